//! The sandbox's answers beside those of a real API server.
//!
//! Needs `etcd` and `kube-apiserver` in the folder that `KUBEBUILDER_ASSETS` names, as envtest does; without them the
//! last line says what did not run. There are no controllers.
#![allow(clippy::print_stdout, reason = "this is its own test harness")]

mod parity;
#[allow(dead_code, reason = "the tests of the gates use the rest")]
mod servers;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use servers::Server;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned().unwrap_or_default();
    if args.iter().any(|arg| arg == "--list") || !parity::NAME.contains(&filter) {
        return ExitCode::SUCCESS;
    }
    // Only a second provider could be in the way, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let assets = match servers::assets() {
        Ok(assets) => assets,
        Err(why) => {
            println!("NOT TESTED: the sandbox against a real API server: {why}");
            return ExitCode::SUCCESS;
        }
    };
    let sandbox = Arc::new(Server::sandbox().await.expect("the sandbox's API server"));
    let real = Arc::new(Server::real(assets).await.expect("the real API server"));
    let same = parity::the_sandbox_answers_as_the_real_one(sandbox, real);
    let is_ok = AssertUnwindSafe(same).catch_unwind().await.is_ok();
    println!("test {} ... {}", parity::NAME, if is_ok { "ok" } else { "FAILED" });
    ExitCode::from(u8::from(!is_ok))
}
