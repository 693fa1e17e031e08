//! The digests of one image.

use std::collections::BTreeSet;
use std::fmt;

/// Every digest by which a runtime may call one and the same image. Docker's classic store and containerd name it by
/// its config, cri-o and Docker's containerd store by its manifest or index.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Digests {
    /// The one to show.
    shown: String,
    all: BTreeSet<String>,
}

impl Digests {
    /// One image's; the first is shown to people. What holds no digest is left out.
    pub fn new<'a>(ids: impl IntoIterator<Item = &'a str>) -> Digests {
        let mut digests = Digests::default();
        for hex in ids.into_iter().filter_map(hex) {
            if digests.shown.is_empty() {
                hex.clone_into(&mut digests.shown);
            }
            digests.all.insert(hex.to_owned());
        }
        digests
    }

    /// Whether none is known.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether both are of one image: they share a digest.
    pub fn is_of(&self, other: &Digests) -> bool {
        !self.all.is_disjoint(&other.all)
    }

    /// Whether `id` is this image, however a runtime writes it: `sha256:…`, `docker://sha256:…`, `sandbox://…`,
    /// `name@sha256:…`, or the digits alone.
    pub fn contains(&self, id: &str) -> bool {
        hex(id).is_some_and(|hex| self.all.contains(hex))
    }
}

impl fmt::Display for Digests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&short_id(&self.shown))
    }
}

/// The first twelve digits of an id, which is what people compare.
pub fn short_id(id: &str) -> String {
    let digits = hex(id).unwrap_or(id);
    format!("sha256:{}", digits.get(..12).unwrap_or(digits))
}

/// The digits of an id.
fn hex(id: &str) -> Option<&str> {
    let digits = id.trim().rsplit([':', '/']).next()?;
    (!digits.is_empty()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_known_by_each_of_its_digests_however_it_is_written() {
        let digests = Digests::new(["sha256:aaaa", "bbbb", "app@sha256:cccc"]);
        for id in [
            "aaaa",
            "docker://sha256:aaaa",
            "sandbox://aaaa",
            "docker.io/library/app@sha256:bbbb",
            "sha256:cccc",
        ] {
            assert!(digests.contains(id), "{id}");
        }
        for id in ["", "sha256:", "sha256:aaa", "sha256:dddd", "aaaab"] {
            assert!(!digests.contains(id), "{id}");
        }
        assert_eq!(digests.to_string(), "sha256:aaaa");
        assert!(Digests::new(["", "sha256:"]).is_empty());
    }
}
