//! Load runs that were recorded on minikube with ingress-nginx, explained again. Their logs are thinned out: requests that
//! were answered at once are told by every twentieth line.

use std::path::{Path, PathBuf};

use xtask::explain::mechanism::Mechanism;
use xtask::explain::{explain_run, text};

fn run(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/runs").join(name)
}

#[test]
fn a_controller_that_has_not_synced_is_not_a_service_without_pods() {
    let verdicts = explain_run(&run("ingress-restart")).expect("a run");
    let count = |mechanism| verdicts.iter().filter(|verdict| verdict.mechanism == mechanism).count();
    assert_eq!(
        (count(Mechanism::ControllerNotSynced), count(Mechanism::NeverReachedProxy), verdicts.len()),
        (98, 110, 208)
    );
    insta::assert_snapshot!("ingress_restart", text(&verdicts));
}

#[test]
fn without_a_pre_stop_the_pods_end_is_the_cause() {
    let verdicts = explain_run(&run("without-pre-stop")).expect("a run");
    insta::assert_snapshot!("without_pre_stop", text(&verdicts));
}
