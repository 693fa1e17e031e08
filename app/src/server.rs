//! Connections: accepted from the first moment, drained at the end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;

use crate::model::Model;
use crate::{App, drain, router};

/// How long a connection may wait for the head of the next request. It must outlast the proxy's keep-alive of 60 s, or
/// the proxy sends a request into a connection that we are just closing.
const KEEP_ALIVE: Duration = Duration::from_secs(75);
/// After the last answer, for its bytes to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) async fn serve(app: Arc<App>) -> Result<()> {
    let start = Instant::now();
    // Before anything that takes time, so that an early signal isn't lost.
    let signal = drain::signal().context("listen for signals")?;
    let address = app.config.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listen on {address}"))?;
    let address = listener.local_addr().context("read the listening address")?;
    tracing::info!(%address, pod = app.config.pod, "listening");

    let config = app.config.clone();
    let loading = tokio::task::spawn_blocking(move || Model::load(&config));
    let load = async {
        let model = loading.await.context("load the model")??;
        let (engine, threads) = (model.engine.name(), model.threads);
        app.install(model);
        let startup_ms = start.elapsed().as_millis() as u64;
        tracing::info!(startup_ms, engine, threads, "ready");
        // Nothing more to do; the other branches decide when this ends.
        std::future::pending::<Result<()>>().await
    };

    let graceful = GracefulShutdown::new();
    tokio::select! {
        result = load => result?,
        () = accept(&listener, &app, &graceful) => {}
        () = drain::drained(&app, signal) => {}
    }
    drop(listener);
    if tokio::time::timeout(CLOSE_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::warn!("some connections did not close in time");
    }
    tracing::info!("stopped");
    Ok(())
}

async fn accept(listener: &TcpListener, app: &Arc<App>, graceful: &GracefulShutdown) {
    let service = TowerToHyperService::new(router(app.clone()));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(KEEP_ALIVE);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(KEEP_ALIVE);
    loop {
        let socket = match listener.accept().await {
            Ok((socket, _)) => socket,
            Err(error) => {
                // Mostly "too many open files": waiting lets some close.
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let _ = socket.set_nodelay(true);
        let connection = builder.serve_connection(TokioIo::new(socket), service.clone()).into_owned();
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!("connection: {error}");
            }
        });
    }
}
