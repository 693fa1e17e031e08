//! Weights: fetched, seeded, and laid out as a model's folder.
#![allow(clippy::unwrap_used, missing_docs)]

mod fetch;
mod folders;
