//! The service: environment, configuration, run.

use std::process::ExitCode;

use simple_model_api::{Config, log, run};

fn main() -> ExitCode {
    let config = match Config::from_env() {
        Ok(config) => config,
        Err(error) => {
            log::init(log::Format::default());
            tracing::error!("bad configuration: {error:#}");
            return ExitCode::from(2);
        }
    };
    log::init(config.log_format);
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
