//! Port-forwarding over a WebSocket: as a tunnel for SPDY, or as numbered channels.

use axum::extract::ws::{Message, WebSocket};
use bytes::{BufMut as _, Bytes, BytesMut};
use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::{CHUNK_BYTES, Dialer, QUEUE, spdy};

/// SPDY in binary messages, cut anywhere.
pub(crate) async fn tunnel(socket: WebSocket, dialer: Dialer) {
    let (near, far) = tokio::io::duplex(4 * CHUNK_BYTES);
    let (mut sink, mut source) = socket.split();
    let (mut reader, mut writer) = tokio::io::split(near);
    let incoming = async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(bytes) => {
                    if writer.write_all(&bytes).await.is_err() {
                        return;
                    }
                }
                Message::Close(_) => return,
                Message::Text(_) | Message::Ping(_) | Message::Pong(_) => {}
            }
        }
    };
    let outgoing = async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        while let Ok(count @ 1..) = reader.read(&mut buffer).await {
            let message = Message::Binary(Bytes::copy_from_slice(&buffer[..count]));
            if sink.send(message).await.is_err() {
                return;
            }
        }
        let _ = sink.send(Message::Close(None)).await;
    };
    tokio::select! {
        () = spdy::serve(far, dialer) => {}
        () = incoming => {}
        () = outgoing => {}
    }
}

/// Two channels a port: data and error. The first message on each names the port, little-endian.
pub(crate) async fn channels(socket: WebSocket, dialer: Dialer, ports: &[u16]) {
    let (mut sink, mut source) = socket.split();
    let (messages, mut outgoing) = mpsc::channel::<Message>(QUEUE);
    let mut to_pods = Vec::new();
    let mut forwards = JoinSet::new();
    for (index, port) in ports.iter().take(127).copied().enumerate() {
        let channel = u8::try_from(2 * index).unwrap_or(u8::MAX - 1);
        let (to_pod, from_client) = mpsc::channel::<Bytes>(QUEUE);
        to_pods.push(to_pod);
        forwards.spawn(forward(dialer.clone(), port, channel, from_client, messages.clone()));
    }
    drop(messages);
    let write = async move {
        while let Some(message) = outgoing.recv().await {
            if sink.send(message).await.is_err() {
                return;
            }
        }
        // Every connection has ended.
        let _ = sink.send(Message::Close(None)).await;
    };
    let read = async move {
        while let Some(Ok(message)) = source.next().await {
            match message {
                Message::Binary(mut bytes) if !bytes.is_empty() => {
                    let channel = usize::from(bytes.split_to(1)[0]);
                    if let Some(to_pod) = to_pods.get(channel / 2)
                        && channel.is_multiple_of(2)
                    {
                        let _ = to_pod.send(bytes).await;
                    }
                }
                Message::Close(_) => return,
                _ => {}
            }
        }
    };
    tokio::select! {
        () = write => {}
        () = read => {}
    }
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    let mut out = BytesMut::with_capacity(1 + bytes.len());
    out.put_u8(channel);
    out.put_slice(bytes);
    Message::Binary(out.freeze())
}

async fn forward(
    dialer: Dialer,
    port: u16,
    channel: u8,
    from_client: mpsc::Receiver<Bytes>,
    messages: mpsc::Sender<Message>,
) {
    for channel in [channel, channel + 1] {
        if messages.send(message(channel, &port.to_le_bytes())).await.is_err() {
            return;
        }
    }
    let data = move |bytes: Bytes| message(channel, &bytes);
    if let Err(why) = dialer.forward(port, from_client, &messages, data).await {
        let _ = messages.send(message(channel + 1, why.as_bytes())).await;
    }
}
