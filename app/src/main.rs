//! The service: environment, configuration, run.

use std::process::ExitCode;

use simple_model_api::{Config, Library, log, run};

fn main() -> ExitCode {
    let mut config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            log::init(log::Format::default());
            tracing::error!("bad configuration: {error:#}");
            return ExitCode::from(2);
        }
    };
    // Known here alone: the library crate is compiled the same for both linkages.
    if cfg!(target_feature = "crt-static") {
        config.onnxruntime_library = Library::Unloadable;
    }
    log::init(config.log_format);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
