//! Gate `image`: the id that the cluster knows the image by is that of the image just built.

use std::time::Duration;

use anyhow::Result;

use super::{Gate, Verdict, poll, wait as wait_at};
use crate::clusters::Kind;
use crate::cx::Cx;
use crate::failure::Evidence;
use crate::pipeline::{Done, SpanId};
use crate::steps::image::{ImageRef, short_id};

/// How long it may stay closed.
pub const DEADLINE: Duration = Duration::from_secs(30);
const POLL_EVERY: Duration = Duration::from_millis(500);

/// Waits until the cluster has the image.
///
/// # Errors
/// As [`super::wait`].
pub async fn wait(cx: &Cx, kind: &Kind, image: &ImageRef, after: &[SpanId]) -> Result<Done<()>> {
    let spec = Gate {
        name: "image-id",
        deadline: DEADLINE,
        after,
        look: "see which images the cluster has, and remove the one in the way".to_owned(),
    };
    let look = async || Ok(judge(image, kind.image_id(cx, &image.reference).await?.as_deref()));
    wait_at(cx, spec, poll(POLL_EVERY, look), async || Evidence::default()).await
}

fn judge(built: &ImageRef, there: Option<&str>) -> Verdict {
    match there {
        Some(id) if id == built.image_id => Verdict::Open((), format!("the cluster has {}", short_id(id))),
        Some(other) => Verdict::Closed(format!(
            "{} is {} in the cluster, not the {} just built",
            built.reference,
            short_id(other),
            short_id(&built.image_id)
        )),
        None => Verdict::Closed(format!("{} is not in the cluster", built.reference)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn opens_on_the_built_id_alone() {
        let built = ImageRef { reference: "app:1".into(), image_id: "sha256:aaaa".into() };
        assert!(matches!(judge(&built, Some("sha256:aaaa")), Verdict::Open(..)));
        assert_eq!(
            judge(&built, Some("sha256:bbbb")),
            Verdict::Closed("app:1 is sha256:bbbb in the cluster, not the sha256:aaaa just built".into())
        );
        assert_eq!(judge(&built, None), Verdict::Closed("app:1 is not in the cluster".into()));
    }
}
