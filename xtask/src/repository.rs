//! Where images lie: the app's own name for its image, and the repositories of registries.

use std::fmt;

/// The repository of the app's image, as the manifests and the cluster call it.
pub const REPOSITORY: &str = "simple-model-api";

/// A repository of a registry: `HOST[:PORT]/PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Host and port.
    pub host: String,
    /// The path behind it.
    pub repository: String,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.host, self.repository)
    }
}

impl Place {
    /// Reads `HOST[:PORT]/PATH`, below which the image `name` lies; the path may end with that name, or be left out.
    ///
    /// # Errors
    /// What is wrong with it, for the command line.
    pub fn read(text: &str, name: &str) -> Result<Place, String> {
        let (host, path) = text.split_once('/').unwrap_or((text, ""));
        let path = path.trim_end_matches('/');
        let is_host = !host.is_empty() && (host.contains(['.', ':']) || host == "localhost");
        if !is_host || text.contains("://") {
            return Err(format!("`{text}` names no registry: write HOST[:PORT]/PATH, without a scheme"));
        }
        let is_part = |part: &str| {
            !part.is_empty()
                && part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b))
        };
        if !path.is_empty() && !path.split('/').all(is_part) {
            return Err(format!(
                "`{path}` is no repository: lower-case letters, digits, `.`, `_`, `-` between slashes"
            ));
        }
        let is_whole = path == name || path.ends_with(&format!("/{name}"));
        let repository = match path {
            "" => name.to_owned(),
            path if is_whole => path.to_owned(),
            path => format!("{path}/{name}"),
        };
        Ok(Place { host: host.to_owned(), repository })
    }

    /// Whether it is on this machine; such a registry has no certificate.
    pub fn is_loopback(&self) -> bool {
        let host = self.host.rsplit_once(':').map_or(self.host.as_str(), |(host, _)| host);
        let host = host.trim_matches(['[', ']']);
        host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }
}
