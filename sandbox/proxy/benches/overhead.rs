//! What the proxy adds to a request: the same exchange with and without it, over kept connections.
#![allow(missing_docs)] // criterion's macros make undocumented items
#![allow(clippy::unwrap_used)] // nobody depends on a benchmark

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use sandbox_proxy::route::{Backend, Location, PathKind, Settings, Table};
use sandbox_proxy::{AccessLog, Clients, Proxy, serve};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nHost: app.local\r\nX-Request-ID: 1\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

async fn pod() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            stream.set_nodelay(true).unwrap();
            tokio::spawn(async move {
                let mut read = [0; 4096];
                // Requests here are smaller than a segment: a read is a request.
                while stream.read(&mut read).await.unwrap_or(0) > 0 && stream.write_all(ANSWER).await.is_ok()
                {
                }
            });
        }
    });
    address
}

async fn proxy(pod: SocketAddr) -> SocketAddr {
    let mut table = Table::default();
    let backend = Backend::new("n-web-http", vec![pod]);
    let settings = Arc::new(Settings::default());
    table.add("app.local", Location { path: "/".into(), kind: PathKind::Prefix, backend, settings });
    let (_, routes) = watch::channel(Some(Arc::new(table)));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let entry = listener.local_addr().unwrap();
    let proxy = Proxy::new(routes, AccessLog::new(std::io::sink()));
    tokio::spawn(serve(listener, Clients::of_nginx(), proxy, CancellationToken::new(), Duration::ZERO));
    entry
}

async fn exchange(stream: &mut TcpStream) {
    let mut read = [0; 4096];
    let mut length = 0;
    stream.write_all(REQUEST).await.unwrap();
    while !read[..length].ends_with(b"hello") {
        length += stream.read(&mut read[length..]).await.unwrap();
    }
}

fn overhead(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let pod = runtime.block_on(pod());
    let entry = runtime.block_on(proxy(pod));
    let mut group = criterion.benchmark_group("request");
    for (name, address) in [("direct", pod), ("proxied", entry)] {
        let mut stream = runtime.block_on(TcpStream::connect(address)).unwrap();
        stream.set_nodelay(true).unwrap();
        group.bench_function(name, |bencher| bencher.iter(|| runtime.block_on(exchange(&mut stream))));
    }
    group.finish();
}

criterion_group!(benches, overhead);
criterion_main!(benches);
