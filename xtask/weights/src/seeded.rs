//! Weights of the right shape from a seed, for where nothing can be fetched. Their predictions mean nothing.

use std::path::Path;

use anyhow::{Context as _, Result};
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{Rng as _, SeedableRng as _};
use safetensors::Dtype;
use safetensors::tensor::TensorView;

use crate::model_dir::{Manifest, install};
use crate::resnet50::{CLASSES, ConvBn, FEATURES, blocks, stem};
use crate::{Preset, Progress, convert};

/// Bytes of the weights in a safetensors file: 25 557 032 parameters and the running statistics of batch norm.
const TOTAL_BYTES: u64 = (25_557_032 + 2 * 26_560) * 4;

/// Makes `dir` a model folder whose weights are drawn from `seed`, replacing what was there. The same seed gives the
/// same bytes on every machine.
///
/// # Errors
/// If the folder can't be written.
pub fn generate(seed: u64, dir: &Path, progress: Progress<'_>) -> Result<Manifest> {
    let safetensors = seeded_safetensors(seed, progress)?;
    let onnx = convert::to_onnx(&safetensors).context("converting the seeded weights to ONNX")?;
    drop(safetensors);
    let manifest = Manifest {
        weights: format!("seeded-{seed}"),
        source: format!("generated from seed {seed}; not trained, predictions mean nothing"),
        license: None,
        preset: Preset::IMAGENET_V1,
        seeded: Some(seed),
        ..Manifest::describing(&onnx)
    };
    install(dir, &onnx, &manifest)?;
    Ok(manifest)
}

/// A safetensors file with torchvision's tensor names and weights drawn from `seed`: He initialisation (the uniform
/// one, which needs no transcendental function and so has no rounding of its own), and batch norm parameters that are
/// near, but not at, the identity.
///
/// # Errors
/// If the tensors can't be written as safetensors.
pub fn seeded_safetensors(seed: u64, progress: Progress<'_>) -> Result<Vec<u8>> {
    let mut weights = Weights { rng: ChaCha8Rng::seed_from_u64(seed), tensors: vec![], done: 0, progress };
    weights.conv_bn(&stem(), 1.0);
    for block in blocks() {
        let [first, second, third] = &block.convs;
        weights.conv_bn(first, 1.0);
        weights.conv_bn(second, 1.0);
        // The branch is added to its input: damped, so that 16 blocks don't blow the activations up.
        weights.conv_bn(third, 0.3);
        if let Some(downsample) = &block.downsample {
            weights.conv_bn(downsample, 1.0);
        }
    }
    let bound = (3.0 / FEATURES as f32).sqrt();
    weights.uniform("fc.weight", &[CLASSES, FEATURES], -bound, bound);
    weights.uniform("fc.bias", &[CLASSES], -0.01, 0.01);
    debug_assert_eq!(weights.done, TOTAL_BYTES);

    let tensors = weights.tensors.iter().map(|(name, shape, data)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), data);
        view.map(|view| (name.as_str(), view))
    });
    let tensors = tensors.collect::<Result<Vec<_>, _>>().context("laying out the seeded weights")?;
    safetensors::serialize(tensors, None).context("writing the seeded weights as safetensors")
}

struct Weights<'a> {
    rng: ChaCha8Rng,
    tensors: Vec<(String, Vec<usize>, Vec<u8>)>,
    done: u64,
    progress: Progress<'a>,
}

impl Weights<'_> {
    fn conv_bn(&mut self, conv: &ConvBn, gamma: f32) {
        let fan_in = conv.input * conv.kernel * conv.kernel;
        let bound = (6.0 / fan_in as f32).sqrt();
        let shape = [conv.output, conv.input, conv.kernel, conv.kernel];
        self.uniform(&format!("{}.weight", conv.conv), &shape, -bound, bound);
        let bn = |part: &str| format!("{}.{part}", conv.bn);
        self.uniform(&bn("weight"), &[conv.output], 0.9 * gamma, 1.1 * gamma);
        self.uniform(&bn("bias"), &[conv.output], -0.1, 0.1);
        self.uniform(&bn("running_mean"), &[conv.output], -0.1, 0.1);
        self.uniform(&bn("running_var"), &[conv.output], 0.8, 1.2);
    }

    fn uniform(&mut self, name: &str, shape: &[usize], low: f32, high: f32) {
        let count = shape.iter().product::<usize>();
        let mut data = vec![0; count * 4];
        self.rng.fill_bytes(&mut data);
        for bytes in data.as_chunks_mut().0 {
            // The upper 24 bits, as many as a float's mantissa holds.
            let unit = (u32::from_le_bytes(*bytes) >> 8) as f32 / (1 << 24) as f32;
            *bytes = (low + (high - low) * unit).to_le_bytes();
        }
        self.done += data.len() as u64;
        (self.progress)(self.done, TOTAL_BYTES);
        self.tensors.push((name.to_owned(), shape.to_vec(), data));
    }
}
