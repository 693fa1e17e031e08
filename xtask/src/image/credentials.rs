//! Who we are to a registry: what `docker login` has kept, in docker's configuration or with one of its helpers.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use k8s_openapi::ByteString;
use serde::Deserialize;
use serde_json::json;
use xshell::cmd;

use crate::commands::quoted;
use crate::cx::Cx;
use crate::proc;

/// A user of a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// Name and password.
    Password(String, String),
    /// What the registry gave for them once; it gives tokens for it.
    IdentityToken(String),
}

impl Login {
    /// As a header says it.
    #[must_use]
    pub fn basic(&self) -> Option<String> {
        let Login::Password(user, password) = self else { return None };
        let bytes = ByteString(format!("{user}:{password}").into_bytes());
        Some(format!("Basic {}", json!(bytes).as_str()?))
    }
}

/// What is read of `config.json`.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Config {
    auths: BTreeMap<String, Auth>,
    cred_helpers: BTreeMap<String, String>,
    creds_store: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Auth {
    auth: Option<ByteString>,
    username: Option<String>,
    password: Option<String>,
    identitytoken: Option<String>,
}

/// What a helper answers.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// The login for a registry, where docker has one; nothing asks for one here.
///
/// # Errors
/// When docker's configuration can't be read, or its helper can't be started.
pub async fn login(cx: &Cx, host: &str) -> Result<Option<Login>> {
    let folder = std::env::var_os("DOCKER_CONFIG").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".docker"));
    let Some(path) = folder.or_else(home).map(|folder| folder.join("config.json")) else { return Ok(None) };
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("reading {}", path.display())),
    };
    let config: Config =
        serde_json::from_str(&text).with_context(|| format!("reading {}", path.display()))?;
    match helper(&config, host) {
        Some((helper, server)) => ask(cx, helper, &server).await,
        None => Ok(kept(&config, host)),
    }
}

/// The names under which docker keeps a registry.
fn names(host: &str) -> Vec<String> {
    let mut names = vec![host.to_owned(), format!("https://{host}"), format!("http://{host}")];
    if host == "docker.io" {
        names.insert(0, "https://index.docker.io/v1/".to_owned());
    }
    names
}

fn kept(config: &Config, host: &str) -> Option<Login> {
    let names = names(host);
    let is_of = |key: &str| names.iter().any(|name| key.trim_end_matches('/') == name.trim_end_matches('/'));
    let (_, auth) = config.auths.iter().find(|(key, _)| is_of(key))?;
    if let Some(token) = auth.identitytoken.as_ref().filter(|token| !token.is_empty()) {
        return Some(Login::IdentityToken(token.clone()));
    }
    if let (Some(user), Some(password)) = (&auth.username, &auth.password) {
        return Some(Login::Password(user.clone(), password.clone()));
    }
    let text = String::from_utf8(auth.auth.as_ref()?.0.clone()).ok()?;
    let (user, password) = text.split_once(':')?;
    Some(Login::Password(user.to_owned(), password.to_owned()))
}

/// The helper that has it, and under which name.
fn helper<'c>(config: &'c Config, host: &str) -> Option<(&'c str, String)> {
    let names = names(host);
    if let Some((server, helper)) = config.cred_helpers.iter().find(|(server, _)| names.contains(server)) {
        return Some((helper, server.clone()));
    }
    let store = config.creds_store.as_deref().filter(|store| !store.is_empty())?;
    Some((store, names[0].clone()))
}

async fn ask(cx: &Cx, helper: &str, server: &str) -> Result<Option<Login>> {
    let sh = proc::shell()?;
    // A helper reads the server's name from its standard input.
    let script = format!("printf %s {} | docker-credential-{} get", quoted(server), quoted(helper));
    let answer = proc::ask(cx, cmd!(sh, "sh -c {script}").into()).await?;
    // It ends badly where it has none.
    let Ok(helped) = serde_json::from_str::<Helped>(&answer.stdout) else { return Ok(None) };
    Ok(Some(match helped.username.as_str() {
        "<token>" => Login::IdentityToken(helped.secret),
        _ => Login::Password(helped.username, helped.secret),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(value: serde_json::Value) -> Config {
        serde_json::from_value(value).expect("a configuration")
    }

    #[test]
    fn a_login_is_found_however_docker_keeps_it() {
        let config = config(json!({
            "auths": {
                "127.0.0.1:5000": {"auth": "dXNlcjpwYTpzcw=="},
                "https://index.docker.io/v1/": {"username": "me", "password": "secret"},
                "https://ghcr.io": {"identitytoken": "t", "auth": ""},
                "empty.example": {},
            },
            "credHelpers": {"eu.gcr.io": "gcloud"},
        }));
        let password = |user: &str, password: &str| Some(Login::Password(user.into(), password.into()));
        assert_eq!(kept(&config, "127.0.0.1:5000"), password("user", "pa:ss"));
        assert_eq!(kept(&config, "docker.io"), password("me", "secret"));
        assert_eq!(kept(&config, "ghcr.io"), Some(Login::IdentityToken("t".into())));
        assert_eq!(kept(&config, "empty.example"), None);
        assert_eq!(kept(&config, "elsewhere.example"), None);
        assert_eq!(helper(&config, "eu.gcr.io"), Some(("gcloud", "eu.gcr.io".into())));
        assert_eq!(helper(&config, "ghcr.io"), None);
        let basic = password("user", "pa:ss").and_then(|login| login.basic());
        assert_eq!(basic.as_deref(), Some("Basic dXNlcjpwYTpzcw=="));
    }

    #[test]
    fn a_store_is_asked_for_every_registry() {
        let config = config(json!({"auths": {"ghcr.io": {}}, "credsStore": "desktop"}));
        assert_eq!(helper(&config, "ghcr.io"), Some(("desktop", "ghcr.io".into())));
        assert_eq!(helper(&config, "docker.io"), Some(("desktop", "https://index.docker.io/v1/".into())));
    }
}
