//! What the tests run: the sandbox's own processes as a tool would embed them, and a small web server for pods.

mod web;

use std::process::ExitCode;

use anyhow::{Context as _, Result, bail};
use sandbox::{Home, Options};

#[tokio::main]
async fn main() -> ExitCode {
    match run(std::env::args().skip(1).collect()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Vec<String>) -> Result<()> {
    let mut args = args.into_iter();
    match args.next().as_deref() {
        Some("serve") => {
            let mut next = || args.next().context("serve HOME CONTEXT PORT");
            let program = std::env::current_exe().context("finding this program")?;
            let argv = |word: &str| vec![program.clone().into(), word.into()];
            let options = Options {
                home: Home::new(next()?),
                context: next()?,
                ingress_port: next()?.parse().context("read the port")?,
                ingress_argv: argv("ingress"),
                leash_argv: argv("leash"),
                faults: false,
            };
            sandbox::serve(options).await
        }
        Some("ingress") => sandbox::ingress_process(args).await,
        Some("leash") => leash::watch_stdin(),
        Some("web") => web::serve().await,
        other => bail!("no such program: {other:?}"),
    }
}
