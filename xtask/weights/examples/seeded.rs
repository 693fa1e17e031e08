//! `cargo run -p xtask-weights --example seeded -- SEED FILE`: seeded weights as safetensors, for comparing the service
//! with other frameworks.

use std::path::PathBuf;

use anyhow::{Context as _, Result};

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seed = args.next().context("first argument: the seed")?.parse().context("reading the seed")?;
    let path = PathBuf::from(args.next().context("second argument: the file to write")?);
    let bytes = xtask_weights::seeded_safetensors(seed, &mut |_, _| {})?;
    std::fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
}
