//! The confusion matrix of `explain`, on real faults. Apart from the rest, and run by name, because a fault that meets no
//! request shows nothing: `cargo test -p xtask --test load_matrix -- --nocapture`.

mod matrix;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod world;
