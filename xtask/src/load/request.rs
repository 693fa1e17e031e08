//! What a load sends: the sample picture to `/predict`, unless the options say otherwise.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use clap::Args;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use xtask_load::client::Target;

use crate::failure::{Attach as _, Exit};
use crate::steps::smoke::{self, PICTURE};

/// Where pictures go.
const PREDICT: &str = "/predict";
/// What the client writes itself, or what attribution hangs on.
const RESERVED: [&str; 9] = [
    "host",
    "x-request-id",
    "content-length",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "te",
    "trailer",
    "upgrade",
];

/// The request, which every sender repeats.
#[derive(Args, Clone, Debug, Default)]
pub struct RequestArgs {
    /// GET this path instead of posting the sample picture to /predict.
    #[arg(long, value_name = "PATH", value_parser = path)]
    #[arg(conflicts_with_all = ["path", "method", "file", "body"])]
    pub get: Option<String>,
    /// Path of the request; /predict without it.
    #[arg(long, value_parser = path)]
    pub path: Option<String>,
    /// Method of the request; POST without it. GET, HEAD, DELETE and OPTIONS send no picture.
    #[arg(long, value_parser = method)]
    pub method: Option<Method>,
    /// Post this file in the sample picture's place, as the multipart field `file`.
    #[arg(long, conflicts_with = "body")]
    pub file: Option<PathBuf>,
    /// Send this body as it is, or that of a file with @FILE; its type is that of a --header.
    #[arg(long, value_name = "TEXT|@FILE")]
    pub body: Option<String>,
    /// Header to send, as 'Name: value'; may be repeated.
    #[arg(long, value_name = "HEADER")]
    pub header: Vec<Header>,
}

/// A header of the user's own.
#[derive(Clone, Debug, PartialEq)]
pub struct Header(HeaderName, HeaderValue);

/// A body and its type.
pub(super) type Body = (Option<HeaderValue>, Bytes);

impl RequestArgs {
    /// These, or `GET path` where nothing is given.
    #[must_use]
    pub fn or_get(&self, path: &str) -> RequestArgs {
        let RequestArgs { get, path: to, method, file, body, header } = self;
        let is_given = get.is_some() || to.is_some() || method.is_some() || file.is_some() || body.is_some();
        let default =
            || RequestArgs { get: Some(path.to_owned()), header: header.clone(), ..RequestArgs::default() };
        if is_given { self.clone() } else { default() }
    }

    /// The request with this `body`, addressed.
    ///
    /// # Errors
    /// When the entry is no place to send to.
    pub(super) async fn target(&self, body: Body, entry: &str, host: &str) -> Result<Target> {
        let mut headers = HeaderMap::new();
        for Header(name, value) in &self.header {
            headers.append(name, value.clone());
        }
        let target = Target::get(entry, host, self.to()).await?;
        let (content_type, body) = body;
        if let Some(content_type) = content_type {
            headers.entry(CONTENT_TYPE).or_insert(content_type);
        }
        Ok(target.sending(self.how(), headers, body))
    }

    /// In words, for the plan; a header's value may be a secret.
    pub fn line(&self) -> String {
        let what = match (&self.body, &self.file) {
            (Some(body), _) => match body.strip_prefix('@') {
                Some(file) => format!(" with {file}"),
                None => format!(" with a body of {} bytes", body.len()),
            },
            (None, Some(file)) => format!(" with {}", file.display()),
            (None, None) if self.is_picture() => format!(" with {PICTURE}"),
            (None, None) => String::new(),
        };
        let names: Vec<_> = self.header.iter().map(|Header(name, _)| name.as_str()).collect();
        let names = if names.is_empty() { String::new() } else { format!(", header {}", names.join(", ")) };
        format!("{} {}{what}{names}", self.how(), self.to())
    }

    fn to(&self) -> &str {
        self.get.as_deref().or(self.path.as_deref()).unwrap_or(PREDICT)
    }

    fn how(&self) -> Method {
        if self.get.is_some() { Method::GET } else { self.method.clone().unwrap_or(Method::POST) }
    }

    fn is_picture(&self) -> bool {
        ![Method::GET, Method::HEAD, Method::DELETE, Method::OPTIONS].contains(&self.how())
    }

    /// What is sent; where nothing else is named, the picture of the workspace at `root`.
    ///
    /// # Errors
    /// When a file can't be read (exit code 2).
    pub(super) fn body(&self, root: &Path) -> Result<Body> {
        if let Some(body) = &self.body {
            let body = match body.strip_prefix('@') {
                Some(file) => read("body", Path::new(file))?,
                None => Bytes::from(body.clone()),
            };
            return Ok((None, body));
        }
        let file = match &self.file {
            Some(file) => file.clone(),
            None if self.is_picture() => root.join(PICTURE),
            None => return Ok(Body::default()),
        };
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let (content_type, body) = smoke::multipart(&name, &read("file", &file)?);
        let content_type = HeaderValue::from_str(&content_type).context("naming the body's type")?;
        Ok((Some(content_type), body))
    }
}

/// A file's bytes; a device or a pipe may have no end.
fn read(option: &str, file: &Path) -> Result<Bytes> {
    let reading = || {
        ensure!(file.metadata()?.is_file(), "it is not a file");
        anyhow::Ok(std::fs::read(file)?)
    };
    let bytes = reading().with_context(|| format!("reading {} for --{option}", file.display()));
    bytes.map(Bytes::from).exit(Exit::Usage)
}

fn path(text: &str) -> Result<String, String> {
    let is_path = text.starts_with('/') && text.parse::<http::Uri>().is_ok();
    if is_path { Ok(text.to_owned()) } else { Err(format!("`{text}` is not a path; it must begin with `/`")) }
}

fn method(text: &str) -> Result<Method, String> {
    match text.to_ascii_uppercase().parse() {
        Ok(Method::CONNECT) => Err("CONNECT asks for a tunnel, which is nothing to load".to_owned()),
        Ok(method) => Ok(method),
        Err(_) => Err(format!("`{text}` is not a method")),
    }
}

impl FromStr for Header {
    type Err = String;

    fn from_str(text: &str) -> Result<Header, String> {
        let (name, value) =
            text.split_once(':').ok_or_else(|| format!("`{text}` has no colon; write 'Name: value'"))?;
        let name: HeaderName =
            name.trim().parse().map_err(|_| format!("`{}` is not a header's name", name.trim()))?;
        if RESERVED.contains(&name.as_str()) {
            return Err(format!("`{name}` is written by the generator itself"));
        }
        // The value is not repeated: it may be a secret.
        let value =
            value.trim().parse().map_err(|_| format!("the value of `{name}` can't be in a header"))?;
        Ok(Header(name, value))
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        request: RequestArgs,
    }

    fn args(words: &[&str]) -> Result<RequestArgs, String> {
        let cli = Cli::try_parse_from([&["load"], words].concat()).map_err(|error| error.to_string())?;
        Ok(cli.request)
    }

    #[test]
    fn the_request_is_shown_without_what_may_be_a_secret() {
        let line = |words: &[&str]| args(words).unwrap().line();
        assert_eq!(line(&[]), "POST /predict with app/assets/sample.jpg");
        assert_eq!(line(&["--get", "/health"]), "GET /health");
        assert_eq!(line(&["--method", "head", "--path", "/info"]), "HEAD /info");
        assert_eq!(
            line(&["--file", "cat.png", "--path", "/predict?top_k=3"]),
            "POST /predict?top_k=3 with cat.png"
        );
        assert_eq!(
            line(&[
                "--body",
                "{}",
                "--header",
                "Authorization: Bearer 1",
                "--header",
                "content-type: application/json"
            ]),
            "POST /predict with a body of 2 bytes, header authorization, content-type"
        );
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (words, why) in [
            (&["--header", "no colon"][..], "has no colon"),
            (&["--header", "Host: other"], "by the generator itself"),
            (&["--header", "a b: c"], "not a header's name"),
            (&["--header", "a: \u{7f}secret"], "the value of `a`"),
            (&["--method", "CONNECT"], "a tunnel"),
            (&["--method", "G T"], "not a method"),
            (&["--path", "health"], "must begin with"),
            (&["--get", "/a", "--path", "/b"], "cannot be used with"),
            (&["--file", "a", "--body", "b"], "cannot be used with"),
        ] {
            let error = args(words).expect_err(why);
            assert!(error.contains(why), "{words:?}: {error}");
        }
    }

    #[test]
    fn a_body_is_that_of_a_file_and_not_of_a_device() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("body.json");
        std::fs::write(&file, "{}").unwrap();
        let content = |body: &str| {
            let args = RequestArgs { body: Some(body.to_owned()), ..RequestArgs::default() };
            args.body(Path::new("/")).map(|(_, body)| body)
        };
        assert_eq!(content(&format!("@{}", file.display())).unwrap(), "{}");
        assert_eq!(content("@").unwrap_err().to_string(), "reading  for --body");
        assert!(
            format!("{:#}", content("@/dev/zero").unwrap_err())
                .contains("/dev/zero for --body: it is not a file")
        );
    }
}
