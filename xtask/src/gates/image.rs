//! Gate `image`: what the cluster knows the image by is a digest of the image just built.

use std::time::Duration;

use anyhow::Result;

use super::{Gate, Verdict, poll, wait as wait_at};
use crate::clusters::Cluster;
use crate::failure::Evidence;
use crate::image::{Digests, ImageRef};
use crate::pipeline::{Branch, Done};

/// The gate; which image was just built, only the build knows.
pub const GATE: Gate = Gate {
    name: "image-id",
    opens_when: "the cluster knows the image by a digest of the one just built",
    // A kubelet looks at its images every 30 s, and tells of them within another 10.
    deadline: Duration::from_secs(90),
    standing: None,
};
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Waits until the cluster has the image.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(branch: &mut Branch<'_>, cluster: &Cluster, image: &ImageRef) -> Result<Done<()>> {
    let cx = branch.cx;
    let further = "see which images the cluster has, and remove the one in the way".to_owned();
    let look = async || {
        Ok(judge(image, cluster.kind.digests(cx, &cluster.client, &image.reference).await?.as_ref()))
    };
    wait_at(branch, &GATE, further, poll(POLL_EVERY, look), async || Evidence::default()).await
}

fn judge(built: &ImageRef, there: Option<&Digests>) -> Verdict {
    match there {
        Some(there) if there.is_of(&built.digests) => Verdict::Open((), format!("the cluster has {there}")),
        Some(other) => Verdict::Closed(format!(
            "{} is {other} in the cluster, not the {} just built",
            built.reference, built.digests
        )),
        None => Verdict::Closed(format!("{} is not in the cluster", built.reference)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_on_a_digest_of_the_built_image_alone() {
        let built =
            ImageRef { reference: "app:1".into(), digests: Digests::new(["sha256:aaaa", "sha256:cccc"]) };
        let there = |ids: &[&str]| judge(&built, Some(&Digests::new(ids.iter().copied())));
        for ids in [&["sha256:aaaa"][..], &["dddd", "docker.io/library/app@sha256:cccc"]] {
            assert!(matches!(there(ids), Verdict::Open(..)), "{ids:?}");
        }
        assert_eq!(
            there(&["sha256:bbbb"]),
            Verdict::Closed("app:1 is sha256:bbbb in the cluster, not the sha256:aaaa just built".into())
        );
        assert_eq!(judge(&built, None), Verdict::Closed("app:1 is not in the cluster".into()));
    }
}
