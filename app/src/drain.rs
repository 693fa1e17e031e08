//! The end: stop accepting, answer what was accepted, go.

use tokio::signal::unix::{Signal, SignalKind, signal as listen};

use crate::App;

/// SIGTERM (the kubelet) and SIGINT (Ctrl-C).
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

/// Listens from now on.
pub(crate) fn signal() -> std::io::Result<Signals> {
    Ok(Signals { terminate: listen(SignalKind::terminate())?, interrupt: listen(SignalKind::interrupt())? })
}

/// Resolves when a signal came and every accepted prediction has its answer. Meanwhile the server goes on answering:
/// `/health` says 503 from the signal on, and new predictions are refused once the delay is over.
pub(crate) async fn drained(app: &App, mut signals: Signals) {
    let name = tokio::select! {
        _ = signals.terminate.recv() => "SIGTERM",
        _ = signals.interrupt.recv() => "SIGINT",
    };
    let delay = app.config.drain_delay;
    if delay.is_zero() {
        app.lifecycle.drain();
    } else {
        app.lifecycle.leave();
    }
    // After the change: whoever reads the line sees it already in force.
    tracing::info!(signal = name, accepted = app.lifecycle.accepted(), "draining");
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
        app.lifecycle.drain();
    }
    // Each accepted prediction ends by its own deadline, so this does too.
    app.lifecycle.idle().await;
}
