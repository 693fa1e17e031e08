//! A model folder without the rest of xtask, as the container build wants it:
//! `cargo run -p xtask-weights --example model -- fetch DIR`, or `-- generate SEED DIR`.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xtask_weights::{default_set, fetch, generate};

#[tokio::main]
async fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    match args[..] {
        ["fetch", dir] => fetch(default_set(), Path::new(dir), &mut |_, _| {}).await.map(drop)?,
        ["generate", seed, dir] => {
            generate(seed.parse().context("reading the seed")?, Path::new(dir), &mut |_, _| {}).map(drop)?;
        }
        _ => bail!("arguments: `fetch DIR` or `generate SEED DIR`"),
    }
    Ok(())
}
