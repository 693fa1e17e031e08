//! The steps, one file each, named as the timing table names them. A step looks at reality first and says
//! whether it did something or found it done; a gate from [`crate::gates`] stands behind it.

pub mod apply;
pub mod cluster;
pub mod compile;
pub mod current;
pub mod image;
pub mod ingress;
pub mod metrics;
pub mod preflight;
pub mod prune;
pub mod restart;
pub mod route;
pub mod smoke;
pub mod weights;
