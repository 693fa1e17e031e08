//! The sets of weights that can be fetched, pinned by revision and digest.

use std::borrow::Cow;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a picture becomes the tensor that a set of weights was trained for; the names are torchvision's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Preset {
    /// Length of the short edge after resizing, in pixels (bilinear, antialiased).
    pub resize: u32,
    /// Edge of the centre crop, in pixels.
    pub crop: u32,
    /// Subtracted per channel (R, G, B) after scaling to 0..1.
    pub mean: [f32; 3],
    /// Divided by per channel.
    pub std: [f32; 3],
}

impl Preset {
    /// Resize 256, crop 224: torchvision's `ResNet50_Weights.IMAGENET1K_V1`.
    pub const IMAGENET_V1: Preset =
        Preset { resize: 256, crop: 224, mean: [0.485, 0.456, 0.406], std: [0.229, 0.224, 0.225] };
}

/// A published set of weights, pinned: another set is one more entry in [`SETS`].
#[derive(Clone, Debug)]
pub struct WeightSet {
    /// What the command line and the manifest call it.
    pub name: &'static str,
    /// Where the safetensors file is, at a fixed revision.
    pub url: Cow<'static, str>,
    /// Length of that file.
    pub size_bytes: u64,
    /// Its SHA-256, lower-case hexadecimal.
    pub sha256: Cow<'static, str>,
    /// SPDX identifier of its licence.
    pub license: &'static str,
    /// The preprocessing it was trained with.
    pub preset: Preset,
    /// What its host may take until the first piece of the file, and between two pieces.
    pub stall_timeout: Duration,
}

impl WeightSet {
    /// The same file from a mirror: the scheme, host and port of the address are replaced by `base`
    /// (`http://127.0.0.1:8000`), the path stays.
    #[must_use]
    pub fn at_mirror(&self, base: &str) -> WeightSet {
        let path = self.url.splitn(4, '/').nth(3).unwrap_or_default();
        WeightSet { url: format!("{}/{path}", base.trim_end_matches('/')).into(), ..self.clone() }
    }
}

/// The sets that `weights fetch` knows; the first is the default.
///
/// Size, digest and revision are the Git LFS pointer's of the repository on the Hugging Face hub.
pub const SETS: &[WeightSet] = &[WeightSet {
    name: "resnet50.tv_in1k",
    url: Cow::Borrowed(
        "https://huggingface.co/timm/resnet50.tv_in1k/resolve/78f3ecfdb38e06d9b8397f662e7ab8fee96026fa/model.safetensors",
    ),
    size_bytes: 102_469_840,
    sha256: Cow::Borrowed("5d061a3c593d795bfe682d9b152bafbcf550579873492def3515b46db1189888"),
    license: "BSD-3-Clause",
    preset: Preset::IMAGENET_V1,
    stall_timeout: Duration::from_secs(10),
}];

/// torchvision's V1 weights.
pub fn default_set() -> &'static WeightSet {
    &SETS[0]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mirror_keeps_the_path() {
        let set = default_set().at_mirror("http://127.0.0.1:9/");
        assert_eq!(
            set.url,
            "http://127.0.0.1:9/timm/resnet50.tv_in1k/resolve/78f3ecfdb38e06d9b8397f662e7ab8fee96026fa/model.safetensors"
        );
    }
}
