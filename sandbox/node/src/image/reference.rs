//! Image references: `repository[:tag]`, `repository@sha256:…`, `sha256:…`.

use std::fmt;

/// Names an image in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reference {
    /// By content id, `sha256:<hex>`.
    Id(String),
    /// By name; no tag means `latest`.
    Tag { repository: String, tag: String },
}

/// The text is no image reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidReference(String);

impl fmt::Display for InvalidReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "couldn't parse image name {:?}: invalid reference format", self.0)
    }
}

impl std::error::Error for InvalidReference {}

impl Reference {
    /// Parses as container runtimes do; `docker.io/library/x`, `docker.io/x` and `localhost/x` are `x`.
    pub(crate) fn parse(text: &str) -> Result<Reference, InvalidReference> {
        let invalid = || InvalidReference(text.to_owned());
        let name = text.strip_prefix("docker-pullable://").unwrap_or(text);
        let id = name.split_once('@').map_or(name, |(_, digest)| digest);
        if let Some(hex) = id.strip_prefix("sha256:") {
            let is_hex = hex.len() == 64 && hex.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            return if is_hex { Ok(Reference::Id(id.to_owned())) } else { Err(invalid()) };
        }
        let name = ["docker.io/library/", "docker.io/", "localhost/"]
            .iter()
            .find_map(|prefix| name.strip_prefix(prefix))
            .unwrap_or(name);
        // A colon before the last slash is a registry's port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, tag),
            _ => (name, "latest"),
        };
        let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
        let (registry, path) = match repository.split_once('/') {
            Some((host, path)) if host.contains(['.', ':']) => (Some(host), path),
            _ => (None, repository),
        };
        let component = |part: &str| {
            part.starts_with(word)
                && part.ends_with(word)
                && part.chars().all(|c| word(c) || "._-".contains(c))
        };
        let host_ok = registry.is_none_or(|host| {
            host.chars().all(|c| c.is_ascii_alphanumeric() || ".:-".contains(c))
                && !host.starts_with(['.', ':', '-'])
        });
        let tag_ok = (1..=128).contains(&tag.len())
            && tag.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
            && !tag.starts_with(['.', '-']);
        if host_ok && tag_ok && repository.len() <= 255 && path.split('/').all(component) {
            Ok(Reference::Tag { repository: repository.to_owned(), tag: tag.to_owned() })
        } else {
            Err(invalid())
        }
    }

    pub(crate) fn is_id(&self) -> bool {
        matches!(self, Reference::Id(_))
    }

    /// `repository:tag`, or the id.
    pub(crate) fn name_and_tag(&self) -> String {
        match self {
            Reference::Id(id) => id.clone(),
            Reference::Tag { repository, tag } => format!("{repository}:{tag}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references() {
        let hex = "a".repeat(64);
        for (text, parsed) in [
            ("app", "app:latest"),
            ("app:1", "app:1"),
            ("docker.io/library/app", "app:latest"),
            (
                "registry.k8s.io/ingress-nginx/controller:v1.15.0",
                "registry.k8s.io/ingress-nginx/controller:v1.15.0",
            ),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            (&format!("app@sha256:{hex}"), &format!("sha256:{hex}")),
        ] {
            assert_eq!(Reference::parse(text).unwrap().name_and_tag(), parsed, "{text}");
        }
        for text in
            ["", "App", "app:", "a b", "app:x/y:", "../x", "a//b", "app@sha256:12", "-app", "app:%2F", "/app"]
        {
            assert!(Reference::parse(text).is_err(), "{text}");
        }
    }
}
