//! The gates against a real API server, as against the sandbox's.
//!
//! Needs `etcd` and `kube-apiserver` in the folder that `KUBEBUILDER_ASSETS` names, as envtest does; without them the
//! tests of the gates run against the sandbox's API server alone, and the last line says what did not run. There are no
//! controllers: the tests play them.
#![allow(clippy::print_stdout, reason = "this is its own test harness")]

mod gates;
mod play;
#[allow(dead_code, reason = "the sandbox's own tests use the rest")]
#[path = "../../../sandbox/tests/real_api_server/servers.rs"]
mod servers;

use std::panic::AssertUnwindSafe;
use std::process::ExitCode;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use servers::Server;

type Test = (&'static str, fn(Arc<Server>) -> LocalBoxFuture<'static, ()>);

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    if args.iter().any(|arg| arg == "--list") {
        return ExitCode::SUCCESS;
    }
    let filter = args.iter().find(|arg| !arg.starts_with('-')).cloned().unwrap_or_default();
    // Only a second provider could be in the way, and there is none.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let tests: Vec<&Test> = gates::TESTS.iter().filter(|(name, _)| name.contains(&filter)).collect();

    let sandbox = Arc::new(patient(Server::sandbox().await.expect("the sandbox's API server")).await);
    let (mut passed, mut failed) = run(&sandbox, &tests).await;
    let absent = match servers::assets() {
        Err(why) => Some(why),
        Ok(assets) => {
            let real = Arc::new(patient(Server::real(assets).await.expect("the real API server")).await);
            let (more_passed, more_failed) = run(&real, &tests).await;
            (passed, failed) = (passed + more_passed, failed + more_failed);
            None
        }
    };
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!(
        "\ntest result: {verdict}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out"
    );
    let count = tests.len();
    if let Some(why) = absent.filter(|_| count > 0) {
        println!("NOT TESTED: {count} tests against a real API server: {why}");
    }
    ExitCode::from(u8::from(failed > 0))
}

/// With the client that the gates have, which tries again.
async fn patient(mut server: Server) -> Server {
    server.client = xtask::clusters::client(&server.kubeconfig(), "test").await.expect("a client");
    server
}

/// Runs one after another: they share the cluster-wide objects.
async fn run(server: &Arc<Server>, tests: &[&Test]) -> (u32, u32) {
    let (mut passed, mut failed) = (0, 0);
    for (name, test) in tests {
        let ok = AssertUnwindSafe(test(server.clone())).catch_unwind().await.is_ok();
        report(name, server.name, ok);
        *if ok { &mut passed } else { &mut failed } += 1;
    }
    (passed, failed)
}

fn report(name: &str, server: &str, ok: bool) {
    println!("test {name} ({server}) ... {}", if ok { "ok" } else { "FAILED" });
}
