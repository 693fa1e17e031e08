//! What the service costs, and what it promises under load. `scripts/bench-app` runs all of it, or the sections named:
//! `cargo bench -p simple-model-api --bench serving -- start forward`.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

mod forward;
mod load;
#[path = "../../tests/model/mod.rs"]
mod model;
mod promises;
#[path = "../../tests/service/service.rs"]
#[allow(dead_code)]
mod service;
#[path = "../../tests/service/terminate.rs"]
mod terminate;

use std::path::PathBuf;

const SECTIONS: [&str; 8] =
    ["start", "forward", "prepare", "overhead", "throughput", "rss", "overload", "drain"];

fn main() {
    // Cargo adds options of its own.
    let named: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    if let Some(unknown) = named.iter().find(|name| !SECTIONS.contains(&name.as_str())) {
        panic!("there is no section {unknown}: {}", SECTIONS.join(", "));
    }
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let library = model::onnxruntime_library();
    let failed: Vec<&str> = SECTIONS
        .into_iter()
        .filter(|section| named.is_empty() || named.iter().any(|name| name == section))
        .filter(|section| {
            println!("\n## {section}");
            !match *section {
                "forward" => forward::forward(library.as_deref()),
                "prepare" => forward::prepare(),
                "start" => runtime.block_on(load::start(&engines(library.as_ref()))),
                "overhead" => runtime.block_on(load::overhead(&engines(library.as_ref()))),
                "throughput" => runtime.block_on(load::throughput(&engines(library.as_ref()))),
                "rss" => runtime.block_on(load::rss(&engines(library.as_ref()))),
                "overload" => runtime.block_on(promises::overload()),
                _ => runtime.block_on(promises::drain()),
            }
        })
        .collect();
    assert!(failed.is_empty(), "not within what is promised: {}", failed.join(", "));
}

/// An engine's name, and the environment that chooses it.
type EngineEnv = (&'static str, Vec<(&'static str, String)>);

fn engines(library: Option<&PathBuf>) -> Vec<EngineEnv> {
    let mut engines = vec![("rten", vec![("MODEL_ENGINE", "rten".to_owned())])];
    if let Some(library) = library {
        let library = library.to_str().unwrap().to_owned();
        engines.push((
            "onnxruntime",
            vec![("MODEL_ENGINE", "onnxruntime".to_owned()), ("ORT_DYLIB_PATH", library)],
        ));
    }
    engines
}

/// The value below which `percent` of `values` lie (nearest rank).
fn percentile(values: &[f64], percent: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.max(1) - 1).copied().unwrap_or(f64::NAN)
}

/// Prints a measurement beside its limit; false if it is over.
fn within(what: &str, value: f64, limit: f64, unit: &str) -> bool {
    let good = value <= limit;
    println!("{} {what}: {value:.2} {unit} (limit {limit} {unit})", if good { "ok  " } else { "OVER" });
    good
}
