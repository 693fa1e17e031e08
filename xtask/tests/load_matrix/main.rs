//! The confusion matrix of `explain`, on real faults. Apart from the rest, for a busy machine is a fault of its own;
//! `cargo test -p xtask --test load_matrix -- --nocapture` prints it.

mod matrix;
#[path = "../it/world.rs"]
#[allow(dead_code, reason = "the other tests use the rest")]
mod world;
