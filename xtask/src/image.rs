//! The app's image as a thing of its own: its names, its digests, and the archive that brings it where no container
//! engine builds.

pub mod archive;
mod compile;
mod contents;
pub mod credentials;
mod digests;
mod name;
mod recipe;
pub mod registry;

pub use compile::{HOST_IS_NODE, Linkage, PACKAGE, compile, compile_command, stage, stage_plan};
pub use contents::{ARCHITECTURE, contents};
pub use digests::{Digests, short_id};
pub use name::canonical;
pub use recipe::{Compiled, ImageRef, Inputs, Recipe, inputs, is_scratch, sources_hash};
