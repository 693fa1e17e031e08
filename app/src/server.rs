//! Connections: accepted from the first moment, drained at the end.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;

use crate::model::Model;
use crate::watched::{RequestBody, ResponseBody, Socket};
use crate::{App, drain, router};

/// After the last answer, for its bytes to leave.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest head of a request. With it and the limit of connections, what heads take of the memory is bounded.
const MAX_HEAD_BYTES: usize = 16 * 1024;
/// File descriptors for all that is no connection: the listener, libraries, the runtime's own.
const OTHER_FILES: u64 = 64;

pub(crate) async fn serve(app: Arc<App>) -> Result<()> {
    let start = Instant::now();
    // Before anything that takes time, so that an early signal isn't lost.
    let signal = drain::signal().context("listening for signals")?;
    let address = app.config.listen;
    let listener = TcpListener::bind(address).await.with_context(|| format!("listening on {address}"))?;
    let address = listener.local_addr().context("reading the listening address")?;
    tracing::info!(%address, pod = app.config.pod, "listening");

    let config = app.config.clone();
    let loading = tokio::task::spawn_blocking(move || Model::load(&config));
    let load = async {
        let model = loading.await.context("loading the model")??;
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

/// How many connections there can be: what the configuration says, if the system gives as many descriptors. The soft
/// limit, which is a shell's or container engine's guess, is raised for them.
pub(crate) fn connection_limit(wanted: usize) -> usize {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let needed = wanted as u64 + OTHER_FILES;
    let mut files = current.unwrap_or(u64::MAX);
    if files < needed {
        let raised = needed.min(maximum.unwrap_or(u64::MAX));
        match setrlimit(Resource::Nofile, Rlimit { current: Some(raised), maximum }) {
            Ok(()) => files = raised,
            Err(error) => tracing::warn!("raising the limit of open files from {files} to {raised}: {error}"),
        }
    }
    let limit = needed.min(files).saturating_sub(OTHER_FILES).max(1) as usize;
    if limit < wanted {
        tracing::warn!(
            limit,
            wanted,
            open_files = files,
            "fewer connections than configured: the system allows no more open files"
        );
    }
    limit
}

async fn accept(listener: &TcpListener, app: &Arc<App>, graceful: &GracefulShutdown) {
    let router = TowerToHyperService::new(router(app.clone()));
    let mut builder = http1::Builder::new();
    // Times are kept by the connection's place.
    builder.timer(TokioTimer::new()).header_read_timeout(None).max_header_size(MAX_HEAD_BYTES);
    let mut failing = false;
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Once for all that follow: a log must not grow with what goes wrong outside.
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!("accepting a connection: {error}");
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        failing = false;
        // Without a place there is nothing to say that the client would read before it has sent its request.
        let Some(place) = app.connections.admit().map(Arc::new) else { continue };
        let _ = stream.set_nodelay(true);
        let (router, answered) = (router.clone(), place.clone());
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| RequestBody::new(body, answered.clone()));
            let (answer, place) = (router.call(request), answered.clone());
            async move { Ok::<_, Infallible>(answer.await?.map(|body| ResponseBody { body, place })) }
        });
        let io = TokioIo::new(Socket { stream, place: place.clone() });
        let connection = graceful.watch(builder.serve_connection(io, service));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                reason = place.lost() => tracing::debug!("connection closed: {reason}"),
                result = connection => {
                    if let Err(error) = result {
                        tracing::debug!("connection: {error}");
                    }
                }
            }
        });
    }
}
