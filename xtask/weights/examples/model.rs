//! `cargo run -p xtask-weights --example model -- SEED DIR`: a model folder with seeded weights.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seed = args.next().context("first argument: the seed")?.parse().context("read the seed")?;
    let dir = PathBuf::from(args.next().context("second argument: the folder to make")?);
    xtask_weights::generate(seed, &dir, &mut |_, _| {}).map(drop)
}
