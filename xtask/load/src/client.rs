//! The client: HTTP/1.1 over connections that are kept and used again, each driven by the task that uses it, so that no
//! answer waits for another task to be scheduled.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use anyhow::{Context as _, Result, anyhow, bail};
use bytes::Bytes;
use http::header::{HOST, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use http::{Method, Request, Response, Uri};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How much of an answer that is no success is kept.
const MOST_OF_AN_ERROR: usize = 400;
/// How the requests of a run call themselves, for whoever reads the logs.
pub const AGENT: &str = concat!("xtask-load/", env!("CARGO_PKG_VERSION"));

/// The request's own id: ingress-nginx logs it, and passes it on.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The pod that answered, by its own word.
const SERVED_BY: HeaderName = HeaderName::from_static("x-served-by");
/// Where the time went, by the server's own word.
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Longer ones are told by no server that means well.
const MOST_OF_A_TIMING: usize = 400;

/// What is sent, and where.
#[derive(Clone, Debug)]
pub struct Target {
    address: SocketAddr,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
}

impl Target {
    /// `GET path` at the entry, a base URL without TLS, for `host`.
    ///
    /// # Errors
    /// When the entry is no such URL, or its name does not resolve.
    pub async fn get(entry: &str, host: &str, path: &str) -> Result<Target> {
        let base: Uri = entry.parse().with_context(|| format!("reading the entry `{entry}` as a URL"))?;
        if base.scheme_str() != Some("http") {
            bail!("the entry `{entry}` is not an http:// URL, and the load generator speaks nothing else");
        }
        let name = base.host().unwrap_or_default().trim_matches(['[', ']']);
        let address = tokio::net::lookup_host((name, base.port_u16().unwrap_or(80)))
            .await
            .with_context(|| format!("resolving the entry `{entry}`"))?
            .next()
            .ok_or_else(|| anyhow!("the entry `{entry}` has no address"))?;
        let host = HeaderValue::from_str(host).with_context(|| format!("`{host}` is not a host name"))?;
        // The id has its place already: a map that grows costs each request three allocations.
        let headers = [
            (HOST, host),
            (USER_AGENT, HeaderValue::from_static(AGENT)),
            (REQUEST_ID, HeaderValue::from_static("")),
        ];
        Ok(Target {
            address,
            method: Method::GET,
            uri: path.parse().with_context(|| format!("`{path}` is not a path"))?,
            headers: headers.into_iter().collect(),
            body: Bytes::new(),
        })
    }

    /// The same place, with what is to be sent there; its headers take the place of the defaults.
    #[must_use]
    pub fn sending(mut self, method: Method, headers: HeaderMap, body: Bytes) -> Target {
        self.headers.extend(headers);
        Target { method, body, ..self }
    }

    /// Where it goes: method and path.
    pub fn line(&self) -> String {
        format!("{} {}", self.method, self.uri)
    }

    fn request(&self, id: &str) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(self.body.clone()));
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.uri.clone();
        *request.headers_mut() = self.headers.clone();
        if let Ok(id) = HeaderValue::from_str(id) {
            request.headers_mut().insert(REQUEST_ID, id);
        }
        request
    }
}

/// A whole answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// The pod that says it answered.
    pub served_by: Option<String>,
    /// Where it says that the time went.
    pub server_timing: Option<String>,
    /// How it begins, where it is no success.
    pub beginning: Option<String>,
}

type Driver = Pin<Box<http1::Connection<TokioIo<TcpStream>, Full<Bytes>>>>;

struct Connection {
    sender: SendRequest<Full<Bytes>>,
    /// None once the connection has ended.
    driver: Option<Driver>,
}

/// A client of as many connections as requests are under way: one that is idle is used again, the last used first.
#[derive(Default)]
pub struct Client {
    idle: Mutex<Vec<Connection>>,
}

impl Client {
    /// Sends one request and waits for the whole answer. Whoever gives up half-way closes the connection.
    ///
    /// # Errors
    /// When the connection is refused or breaks; the innermost cause, in the system's words.
    pub async fn ask(&self, target: &Target, id: &str) -> Result<Answer, String> {
        let mut request = target.request(id);
        loop {
            let kept = self.idle().await;
            let is_kept = kept.is_some();
            let mut connection = match kept {
                Some(connection) => connection,
                None => Connection::open(target.address).await?,
            };
            match connection.send(request).await {
                Ok(response) => {
                    let answer = connection.read(response).await?;
                    self.lock().push(connection);
                    return Ok(answer);
                }
                // A kept connection that the other side closed; not a byte was written.
                Err((_, Some(unsent))) if is_kept => request = *unsent,
                Err((why, _)) => return Err(why),
            }
        }
    }

    /// A kept connection that still stands.
    async fn idle(&self) -> Option<Connection> {
        loop {
            let mut connection = self.lock().pop()?;
            if connection.is_ready().await {
                return Some(connection);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Connection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    async fn open(address: SocketAddr) -> Result<Connection, String> {
        let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
        // An answer must not wait for a full packet.
        let _ = stream.set_nodelay(true);
        let (sender, driver) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| reason(&error))?;
        Ok(Connection { sender, driver: Some(Box::pin(driver)) })
    }

    async fn is_ready(&mut self) -> bool {
        let Connection { sender, driver } = self;
        drive(driver, sender.ready()).await.is_ok()
    }

    async fn send(
        &mut self,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Incoming>, (String, Option<Box<Request<Full<Bytes>>>>)> {
        let Connection { sender, driver } = self;
        drive(driver, sender.try_send_request(request)).await.map_err(|mut error| {
            let unsent = error.take_message().map(Box::new);
            (reason(error.error()), unsent)
        })
    }

    async fn read(&mut self, response: Response<Incoming>) -> Result<Answer, String> {
        let (head, mut body) = response.into_parts();
        let mut beginning = (!head.status.is_success()).then(Vec::new);
        let reading = async {
            while let Some(frame) = body.frame().await {
                let frame = frame.map_err(|error| reason(&error))?;
                if let (Some(kept), Some(data)) = (&mut beginning, frame.data_ref()) {
                    kept.extend(data.iter().take(MOST_OF_AN_ERROR - kept.len()));
                }
            }
            Ok::<_, String>(())
        };
        drive(&mut self.driver, reading).await?;
        let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        Ok(Answer {
            status: head.status.as_u16(),
            served_by: text(SERVED_BY),
            server_timing: text(SERVER_TIMING).filter(|timing| timing.len() <= MOST_OF_A_TIMING),
            beginning: beginning.map(|kept| String::from_utf8_lossy(&kept).trim().to_owned()),
        })
    }
}

/// Does `work`, which waits for nothing but the connection, and the connection's own work.
async fn drive<T>(driver: &mut Option<Driver>, work: impl Future<Output = T>) -> T {
    // Whatever the work waits for is done by the driver, after which it is asked again: to be woken for it as well
    // would be for nothing. tokio's own budget must not make it wait for anything else.
    let mut work = pin!(tokio::task::unconstrained(work));
    poll_fn(|cx| {
        let mut asked = Context::from_waker(Waker::noop());
        if let Poll::Ready(done) = work.as_mut().poll(&mut asked) {
            return Poll::Ready(done);
        }
        if let Some(running) = driver
            && running.as_mut().poll(cx).is_ready()
        {
            // How it ended is told to whoever waits for an answer.
            *driver = None;
        }
        work.as_mut().poll(&mut asked)
    })
    .await
}

/// The innermost cause, which is the system's own word.
fn reason(error: &hyper::Error) -> String {
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}
