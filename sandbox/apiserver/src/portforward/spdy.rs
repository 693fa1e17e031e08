//! A port-forward session over SPDY: per forwarded connection a data stream and an error stream, told apart by their
//! headers and joined by a request id.

use std::collections::HashMap;
use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::spdy_frames::{Decoder, Encoder, Frame};
use super::{Dialer, QUEUE};

/// Serves one session to its end. The forwarded connections end with it.
pub(crate) async fn serve(connection: impl AsyncRead + AsyncWrite + Send + 'static, dialer: Dialer) {
    let (reader, writer) = tokio::io::split(connection);
    let (frames, outgoing) = mpsc::channel(QUEUE);
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        if let Err(error) = write_all(writer, outgoing).await {
            tracing::debug!("port-forward: writing: {error}");
        }
    });
    let mut session = Session { dialer, frames, tasks, errors: HashMap::new(), data: HashMap::new() };
    if let Err(error) = session.read_all(BufReader::new(reader)).await {
        tracing::debug!("port-forward: reading: {error}");
    }
}

async fn write_all(mut writer: impl AsyncWrite + Unpin, mut frames: mpsc::Receiver<Frame>) -> io::Result<()> {
    let mut encoder = Encoder::new()?;
    while let Some(frame) = frames.recv().await {
        writer.write_all(&encoder.encode(&frame)?).await?;
        if frames.is_empty() {
            writer.flush().await?;
        }
    }
    writer.shutdown().await
}

struct Session {
    dialer: Dialer,
    frames: mpsc::Sender<Frame>,
    tasks: JoinSet<()>,
    /// Request id → its error stream.
    errors: HashMap<String, u32>,
    /// Data stream → what its connection is to be sent; gone once the client has finished.
    data: HashMap<u32, mpsc::Sender<Bytes>>,
}

impl Session {
    async fn read_all(&mut self, mut reader: impl AsyncRead + Unpin) -> io::Result<()> {
        let mut decoder = Decoder::new();
        while let Some(frame) = decoder.read(&mut reader).await? {
            match frame {
                Frame::SynStream { id, headers, fin } => self.open(id, &headers, fin).await,
                Frame::Data { id, bytes, fin } => {
                    if let Some(to_pod) = self.data.get(&id)
                        && !bytes.is_empty()
                    {
                        // Fails when the pod has hung up; its task tells the client.
                        let _ = to_pod.send(bytes).await;
                    }
                    if fin {
                        self.data.remove(&id);
                    }
                }
                Frame::Reset { id, .. } => drop(self.data.remove(&id)),
                Frame::Ping { id } => self.send(Frame::Ping { id }).await,
                Frame::GoAway => return Ok(()),
                Frame::SynReply { .. } | Frame::Other => {}
            }
            while self.tasks.try_join_next().is_some() {}
        }
        Ok(())
    }

    async fn send(&self, frame: Frame) {
        // The writer ends only with the connection, which the reader sees too.
        let _ = self.frames.send(frame).await;
    }

    async fn open(&mut self, id: u32, headers: &HashMap<String, String>, fin: bool) {
        let get = |name: &str| headers.get(name).map_or("", String::as_str);
        // kubectl numbers requests; a client that does not opens the error stream just before its data stream.
        let request = match get("requestid") {
            "" if get("streamtype") == "data" => id.saturating_sub(2).to_string(),
            "" => id.to_string(),
            given => given.to_owned(),
        };
        let port = get("port").parse::<u16>();
        match (get("streamtype"), port) {
            ("error", Ok(_)) => {
                self.errors.insert(request, id);
                self.send(Frame::SynReply { id }).await;
            }
            ("data", Ok(port)) => {
                self.send(Frame::SynReply { id }).await;
                let (to_pod, from_client) = mpsc::channel(QUEUE);
                if !fin {
                    self.data.insert(id, to_pod);
                }
                let error_id = self.errors.remove(&request);
                let forward =
                    Forward { dialer: self.dialer.clone(), frames: self.frames.clone(), id, error_id, port };
                self.tasks.spawn(forward.run(from_client));
            }
            _ => self.send(Frame::Reset { id, status: 1 }).await,
        }
    }
}

/// One forwarded connection.
struct Forward {
    dialer: Dialer,
    frames: mpsc::Sender<Frame>,
    id: u32,
    error_id: Option<u32>,
    port: u16,
}

impl Forward {
    async fn run(self, from_client: mpsc::Receiver<Bytes>) {
        let id = self.id;
        let data = move |bytes| Frame::Data { id, bytes, fin: false };
        let problem = self.dialer.forward(self.port, from_client, &self.frames, data).await.err();
        self.end(self.id, Bytes::new()).await;
        if let Some(error_id) = self.error_id {
            self.end(error_id, problem.map(Bytes::from).unwrap_or_default()).await;
        }
    }

    /// Ends a stream with its last bytes.
    async fn end(&self, id: u32, bytes: Bytes) {
        // Nobody is left to tell when this fails.
        let _ = self.frames.send(Frame::Data { id, bytes, fin: true }).await;
    }
}
