//! SPDY/3.1 frames. Source: the SPDY protocol draft 3.1, sections 2.2 to 2.6.

use std::collections::HashMap;
use std::io;

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use tokio::io::{AsyncRead, AsyncReadExt as _};

/// Set in a frame after which its sender says nothing more on the stream.
const FIN: u8 = 1;
/// More header text than this is no port-forward.
const MAX_HEADER_BYTES: usize = 64 * 1024;

/// A frame, as far as port-forwarding uses them.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Frame {
    SynStream {
        id: u32,
        headers: HashMap<String, String>,
        fin: bool,
    },
    SynReply {
        id: u32,
    },
    Data {
        id: u32,
        bytes: Bytes,
        fin: bool,
    },
    Reset {
        id: u32,
        status: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// SETTINGS, WINDOW_UPDATE and the like: nothing to do.
    Other,
}

/// Reads frames; keeps the state of header compression.
pub(crate) struct Decoder {
    inflate: Decompress,
}

impl Decoder {
    pub(crate) fn new() -> Decoder {
        Decoder { inflate: Decompress::new(true) }
    }

    /// The next frame, `None` at a clean end.
    pub(crate) async fn read(&mut self, io: &mut (impl AsyncRead + Unpin)) -> io::Result<Option<Frame>> {
        let mut head = [0_u8; 8];
        if let Err(error) = io.read_exact(&mut head).await {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
        }
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let mut body = vec![0; length];
        io.read_exact(&mut body).await?;
        let fin = head[4] & FIN != 0;
        if head[0] & 0x80 == 0 {
            return Ok(Some(Frame::Data { id: word(&head, 0)?, bytes: Bytes::from(body), fin }));
        }
        let frame = match u16::from_be_bytes([head[2], head[3]]) {
            1 => {
                let id = word(&body, 0)? & 0x7fff_ffff;
                let block = body.get(10..).ok_or_else(|| invalid("a short SYN_STREAM"))?;
                Frame::SynStream { id, headers: self.headers(block)?, fin }
            }
            2 => {
                self.headers(body.get(4..).ok_or_else(|| invalid("a short SYN_REPLY"))?)?;
                Frame::Other
            }
            8 => {
                self.headers(body.get(4..).ok_or_else(|| invalid("short HEADERS"))?)?;
                Frame::Other
            }
            3 => Frame::Reset { id: word(&body, 0)? & 0x7fff_ffff, status: word(&body, 4)? },
            6 => Frame::Ping { id: word(&body, 0)? },
            7 => Frame::GoAway,
            _ => Frame::Other,
        };
        Ok(Some(frame))
    }

    /// Every block is part of one zlib stream, so that each must be read, wanted or not.
    fn headers(&mut self, block: &[u8]) -> io::Result<HashMap<String, String>> {
        let mut text = Vec::with_capacity(1024);
        let mut rest = block;
        loop {
            if text.len() == text.capacity() {
                if text.len() >= MAX_HEADER_BYTES {
                    return Err(invalid("a header block is too long"));
                }
                text.reserve(text.len());
            }
            let (read, written) = (self.inflate.total_in(), text.len());
            let status = self.inflate.decompress_vec(rest, &mut text, FlushDecompress::Sync);
            let consumed = usize::try_from(self.inflate.total_in() - read).unwrap_or(rest.len());
            rest = rest.get(consumed..).unwrap_or(&[]);
            match status {
                Err(error) if error.needs_dictionary().is_some() => {
                    let set = self.inflate.set_dictionary(&dictionary());
                    set.map_err(|error| invalid(&format!("another header dictionary: {error}")))?;
                }
                Err(error) => return Err(invalid(&format!("a header block does not inflate: {error}"))),
                Ok(Status::StreamEnd) => break,
                Ok(_) if rest.is_empty() && text.len() < text.capacity() => break,
                Ok(_) if consumed == 0 && text.len() == written && text.len() < text.capacity() => {
                    return Err(invalid("a header block does not inflate"));
                }
                Ok(_) => {}
            }
        }
        parse_headers(&text)
    }
}

fn parse_headers(text: &[u8]) -> io::Result<HashMap<String, String>> {
    let mut at = 4;
    let mut next = || -> io::Result<String> {
        let length = usize::try_from(word(text, at)?).map_err(|_| invalid("a header is too long"))?;
        let bytes = text
            .get(at + 4..)
            .and_then(|rest| rest.get(..length))
            .ok_or_else(|| invalid("a short header"))?;
        at += 4 + length;
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut headers = HashMap::new();
    for _ in 0..word(text, 0)? {
        let (name, value) = (next()?, next()?);
        headers.insert(name.to_ascii_lowercase(), value);
    }
    Ok(headers)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    match bytes.get(at..at + 4) {
        Some(&[a, b, c, d]) => Ok(u32::from_be_bytes([a, b, c, d])),
        _ => Err(invalid("a short frame")),
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("SPDY: {what}"))
}

/// Writes frames; keeps the state of header compression.
pub(crate) struct Encoder {
    deflate: Compress,
}

impl Encoder {
    pub(crate) fn new() -> io::Result<Encoder> {
        let mut deflate = Compress::new(Compression::fast(), true);
        deflate.set_dictionary(&dictionary()).map_err(|error| invalid(&error.to_string()))?;
        Ok(Encoder { deflate })
    }

    /// The bytes of a frame. Only what a server sends is written.
    pub(crate) fn encode(&mut self, frame: &Frame) -> io::Result<Bytes> {
        match frame {
            Frame::Data { id, bytes, fin } => {
                let mut out = BytesMut::with_capacity(8 + bytes.len());
                out.put_u32(id & 0x7fff_ffff);
                put_flags_and_length(&mut out, *fin, bytes.len());
                out.put_slice(bytes);
                Ok(out.freeze())
            }
            Frame::SynReply { id } => {
                let mut body = id.to_be_bytes().to_vec();
                body.extend(self.no_headers()?);
                Ok(control(2, &body))
            }
            Frame::Reset { id, status } => Ok(control(3, &[id.to_be_bytes(), status.to_be_bytes()].concat())),
            Frame::Ping { id } => Ok(control(6, &id.to_be_bytes())),
            Frame::GoAway => Ok(control(7, &[0; 8])),
            Frame::SynStream { .. } | Frame::Other => Ok(Bytes::new()),
        }
    }

    fn no_headers(&mut self) -> io::Result<Vec<u8>> {
        let mut block = Vec::with_capacity(64);
        self.deflate
            .compress_vec(&0_u32.to_be_bytes(), &mut block, FlushCompress::Sync)
            .map_err(|error| invalid(&error.to_string()))?;
        Ok(block)
    }
}

fn control(kind: u16, body: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(8 + body.len());
    out.put_u16(0x8003);
    out.put_u16(kind);
    put_flags_and_length(&mut out, false, body.len());
    out.put_slice(body);
    out.freeze()
}

fn put_flags_and_length(out: &mut BytesMut, fin: bool, length: usize) {
    out.put_u8(if fin { FIN } else { 0 });
    out.put_uint(length as u64, 3);
}

/// The text both sides start header compression from (section 2.6.10.1): words with their lengths, then a tail.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding \
                         accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding \
        content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires \
        from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location \
        max-forwards \
        pragma proxy-authenticate proxy-authorization range referer retry-after server te trailer \
        transfer-encoding \
        upgrade user-agent vary via warning www-authenticate method get status";
    const LAST_WORDS: &str = "version HTTP/1.1 url public set-cookie keep-alive origin";
    const TAIL: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505\
        203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized\
        403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable\
        Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT\
        chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,\
        text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let words = WORDS.split_whitespace().chain(["200 OK"]).chain(LAST_WORDS.split_whitespace());
    let mut bytes = Vec::with_capacity(1423);
    for word in words {
        bytes.put_uint(word.len() as u64, 4);
        bytes.put_slice(word.as_bytes());
    }
    bytes.put_slice(TAIL.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The id that zlib streams of SPDY/3 name their dictionary by.
    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let mut deflate = Compress::new(Compression::fast(), true);
        let id = deflate.set_dictionary(&dictionary()).expect("a dictionary is taken");
        assert_eq!((dictionary().len(), id), (1423, 0xe3c6_a7c2));
    }

    #[tokio::test]
    async fn frames_that_are_cut_or_nonsense_are_errors() {
        let nonsense: [&[u8]; 3] = [
            &[0x80, 3, 0, 1, 0, 0, 0, 4, 0, 0, 0, 1],
            &[0x80, 3, 0, 1, 0, 0, 0, 12, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 9, 9],
            &[0, 0, 0, 1, 0, 0, 0, 9, 1],
        ];
        for mut bytes in nonsense {
            assert!(Decoder::new().read(&mut bytes).await.is_err());
        }
        assert_eq!(Decoder::new().read(&mut &b""[..]).await.expect("a clean end"), None);
    }
}
