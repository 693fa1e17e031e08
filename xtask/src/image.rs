//! The app's image as a thing of its own: its names, its digests, and the archive that brings it where no container
//! engine builds.

pub mod archive;
mod contents;
pub mod credentials;
mod digests;
mod name;
pub mod registry;

pub use contents::{ARCHITECTURE, contents};
pub use digests::{Digests, short_id};
pub use name::canonical;
