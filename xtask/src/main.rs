//! `cargo xtask`: see [`xtask::cli`] for the commands and [`xtask::up`] for the story.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(match xtask::cli::parse() {
        Ok(cli) => xtask::run::main(cli),
        Err(error) => xtask::run::without_run(&error),
    } as u8)
}
