//! A registry, by the protocol of the OCI distribution specification: the layers that it has are not sent again, and
//! what was pushed is known by its digest. No crate for it: it is five requests, and the crates for it bring
//! another HTTP client along.

use std::io::SeekFrom;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use parking_lot::Mutex;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, LOCATION, WWW_AUTHENTICATE};
use reqwest::{Client, Method, RequestBuilder, Response, StatusCode, Url};
use serde::Deserialize;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use super::archive::{Blob, MANIFEST, Packed};
use super::credentials::Login;
use crate::failure::{Attach as _, Exit, reason};
use crate::repository::Place;

/// How long a registry may take to connect, and how long it may be silent.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(120));

/// What a push has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pushed {
    /// Bytes of layers, configuration and manifest that went over the wire.
    pub sent: u64,
    /// Bytes that the image has in all.
    pub whole: u64,
}

/// Where the registry answers for a repository.
fn base(place: &Place) -> Result<Url> {
    let scheme = if place.is_loopback() { "http" } else { "https" };
    // What Docker's hub is called, and where its registry is.
    let host = if place.host == "docker.io" { "registry-1.docker.io" } else { &place.host };
    Url::parse(&format!("{scheme}://{host}/v2/{}/", place.repository))
        .with_context(|| format!("reading `{place}` as the address of a registry"))
}

/// A registry that is spoken to.
pub struct Registry {
    place: Place,
    http: Client,
    base: Url,
    login: Option<Login>,
    /// The last answer to its question who we are.
    authorization: Mutex<Option<String>>,
}

impl Registry {
    /// For one repository.
    ///
    /// # Errors
    /// When its name is no address.
    pub fn new(place: &Place, login: Option<Login>) -> Result<Registry> {
        let (connect, read) = PATIENCE;
        let mut http = Client::builder().connect_timeout(connect).read_timeout(read);
        if place.is_loopback() {
            http = http.no_proxy();
        }
        let http = http.build().context("making an HTTP client")?;
        let base = base(place)?;
        Ok(Registry { place: place.clone(), http, base, login, authorization: Mutex::new(None) })
    }

    /// The digest of what a tag or a digest names, if it is there.
    ///
    /// # Errors
    /// When the registry can't be asked.
    pub async fn manifest(&self, reference: &str) -> Result<Option<String>> {
        let url = self.url(&format!("manifests/{reference}"))?;
        let answer =
            self.send(|http| http.request(Method::HEAD, url.clone()).header(ACCEPT, MANIFEST)).await?;
        if answer.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let answer = self.expect(answer, StatusCode::OK, "looking for the image").await?;
        let digest = answer.headers().get("docker-content-digest").and_then(|value| value.to_str().ok());
        // A registry need not say it of what was asked for by its digest.
        Ok(Some(digest.unwrap_or(reference).to_owned()))
    }

    /// Pushes an archive's image under a tag, from below to above. `at` is told how far it is.
    ///
    /// # Errors
    /// When the registry refuses, or the archive can't be read.
    pub async fn push(&self, path: &Path, packed: &Packed, tag: &str, at: impl Fn(String)) -> Result<Pushed> {
        let manifest_bytes = packed.manifest.len() as u64;
        let whole = packed.blobs.iter().map(|blob| blob.bytes).sum::<u64>() + manifest_bytes;
        let mut pushed = Pushed { sent: 0, whole };
        if self.manifest(&packed.digest).await?.is_some()
            && self.manifest(tag).await?.as_deref() == Some(packed.digest.as_str())
        {
            return Ok(pushed);
        }
        for (index, blob) in packed.blobs.iter().enumerate() {
            let url = self.url(&format!("blobs/{}", blob.digest))?;
            let there = self.send(|http| http.request(Method::HEAD, url.clone())).await?;
            if there.status() == StatusCode::OK {
                continue;
            }
            at(format!(
                "pushing part {} of {}, {} MB",
                index + 1,
                packed.blobs.len(),
                blob.bytes / 1_000_000
            ));
            self.upload(path, blob)
                .await
                .with_context(|| format!("pushing {} to {}", blob.digest, self.place))?;
            pushed.sent += blob.bytes;
        }
        // By its digest, which nobody moves, and by the tag, which keeps it from being collected.
        let url = self.url(&format!("manifests/{tag}"))?;
        let put = |http: &Client| {
            http.put(url.clone()).header(CONTENT_TYPE, MANIFEST).body(packed.manifest.clone())
        };
        let answer = self.send(put).await?;
        self.expect(answer, StatusCode::CREATED, "pushing the manifest").await?;
        pushed.sent += manifest_bytes;
        Ok(pushed)
    }

    async fn upload(&self, path: &Path, blob: &Blob) -> Result<()> {
        let url = self.url("blobs/uploads/")?;
        let begin = self.send(|http| http.post(url.clone()).header(CONTENT_LENGTH, 0)).await?;
        let begin = self.expect(begin, StatusCode::ACCEPTED, "beginning an upload").await?;
        let location = begin.headers().get(LOCATION).and_then(|value| value.to_str().ok());
        let location = location.context("the registry does not say where to upload to")?;
        let mut to = self.base.join(location).context("reading where the registry wants the upload")?;
        to.query_pairs_mut().append_pair("digest", &blob.digest);
        let mut file = tokio::fs::File::open(path).await.context("opening the image's archive")?;
        file.seek(SeekFrom::Start(blob.offset)).await.context("reading the image's archive")?;
        let stream = ReaderStream::with_capacity(file.take(blob.bytes), 1 << 16);
        let mut put = self
            .http
            .put(to)
            .header(CONTENT_TYPE, "application/octet-stream")
            .header(CONTENT_LENGTH, blob.bytes)
            .body(reqwest::Body::wrap_stream(stream));
        let authorization = self.authorization.lock().clone();
        if let Some(authorization) = authorization {
            put = put.header(AUTHORIZATION, authorization);
        }
        let answer = put.send().await.map_err(|error| self.unreachable(&error))?;
        self.expect(answer, StatusCode::CREATED, "uploading").await.map(drop)
    }

    fn url(&self, path: &str) -> Result<Url> {
        self.base.join(path).with_context(|| format!("asking {} for {path}", self.place))
    }

    /// Sends a request, and again when it has been asked who we are.
    async fn send(&self, request: impl Fn(&Client) -> RequestBuilder) -> Result<Response> {
        let mut is_first = true;
        loop {
            let mut one = request(&self.http);
            let authorization = self.authorization.lock().clone();
            if let Some(authorization) = authorization {
                one = one.header(AUTHORIZATION, authorization);
            }
            let answer = one.send().await.map_err(|error| self.unreachable(&error))?;
            if answer.status() != StatusCode::UNAUTHORIZED || !is_first {
                return Ok(answer);
            }
            is_first = false;
            let challenge = answer.headers().get(WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
            let answered = self.answer(challenge.unwrap_or_default()).await?;
            if answered.is_none() {
                return Ok(answer);
            }
            *self.authorization.lock() = answered;
        }
    }

    /// What is to be sent for a challenge: the password itself, or a token that another server gives for it.
    async fn answer(&self, challenge: &str) -> Result<Option<String>> {
        let (scheme, rest) = challenge.split_once(' ').unwrap_or((challenge, ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Ok(self.login.as_ref().and_then(Login::basic));
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Ok(None);
        }
        let Some(realm) = parameter(rest, "realm") else { return Ok(None) };
        let mut url = Url::parse(&realm)
            .with_context(|| format!("reading `{realm}`, where {} sends for a token", self.place.host))?;
        let scope = format!("repository:{}:pull,push", self.place.repository);
        let service = parameter(rest, "service").unwrap_or_default();
        let request = match &self.login {
            Some(Login::IdentityToken(token)) => {
                let form = [
                    ("grant_type", "refresh_token"),
                    ("service", &service),
                    ("client_id", "xtask"),
                    ("scope", &scope),
                    ("refresh_token", token),
                ];
                let body = url::form(&form);
                self.http.post(url).header(CONTENT_TYPE, "application/x-www-form-urlencoded").body(body)
            }
            login => {
                url.query_pairs_mut().append_pair("service", &service).append_pair("scope", &scope);
                let request = self.http.get(url);
                match login.as_ref().and_then(Login::basic) {
                    Some(basic) => request.header(AUTHORIZATION, basic),
                    None => request,
                }
            }
        };
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let answer = self.expect(answer, StatusCode::OK, "asking for a token").await?;
        let token: Token = answer.json().await.context("reading the registry's token")?;
        let token = token.token.or(token.access_token).context("the answer holds no token")?;
        Ok(Some(format!("Bearer {token}")))
    }

    async fn expect(&self, answer: Response, wanted: StatusCode, doing: &str) -> Result<Response> {
        let status = answer.status();
        if status == wanted {
            return Ok(answer);
        }
        let text = answer.text().await.unwrap_or_default();
        let said =
            serde_json::from_str::<Errors>(&text).ok().and_then(|errors| errors.errors.into_iter().next());
        let said = said.map(|error| format!(": {} {}", error.code, error.message)).unwrap_or_default();
        let error = anyhow!("{doing}: {} answered {status}{said}", self.place);
        Err(if matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            error.hint(format!("`docker login {}` with a user who may push there", self.place.host))
        } else {
            error
        })
        .exit(Exit::Step)
    }

    fn unreachable(&self, error: &reqwest::Error) -> anyhow::Error {
        let cause = reason(error);
        let hint = if self.place.is_loopback() {
            "start it, or name another with --registry"
        } else {
            "it must be reached over TLS, with a certificate that this system trusts; a registry on \
             loopback needs none"
        };
        anyhow!("the registry {} can't be reached: {cause}", self.place.host).hint(hint)
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<OneError>,
}

#[derive(Deserialize)]
struct OneError {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

/// A parameter of a challenge: `name="value"`.
fn parameter(challenge: &str, name: &str) -> Option<String> {
    let at = challenge.find(&format!("{name}=\""))? + name.len() + 2;
    let rest = &challenge[at..];
    Some(rest[..rest.find('"')?].to_owned())
}

mod url {
    /// A form as it is sent.
    pub(super) fn form(fields: &[(&str, &str)]) -> String {
        let mut url = reqwest::Url::parse("http://form/").ok();
        if let Some(url) = &mut url {
            url.query_pairs_mut().extend_pairs(fields);
        }
        url.as_ref().and_then(reqwest::Url::query).unwrap_or_default().to_owned()
    }
}

#[cfg(test)]
mod tests;
