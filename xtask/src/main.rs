//! `cargo xtask`: see [`xtask::cli`] for the commands and [`xtask::up`] for the story.

use std::process::ExitCode;

use clap::Parser as _;

fn main() -> ExitCode {
    ExitCode::from(xtask::run::main(xtask::cli::Cli::parse()) as u8)
}
