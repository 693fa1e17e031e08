//! The fixed graph: ResNet-50 v1.5 (the stride of a downsampling block sits in its 3x3 convolution), with the tensor
//! names of torchvision, which timm keeps.

/// Input and output channels of the classifier.
pub(crate) const FEATURES: usize = 2048;
/// Classes of ImageNet-1k.
pub(crate) const CLASSES: usize = 1000;
/// `BatchNorm2d`'s default epsilon.
pub(crate) const BN_EPSILON: f64 = 1e-5;

/// A convolution without bias, followed by batch norm.
#[derive(Clone, Debug)]
pub(crate) struct ConvBn {
    /// Tensor `{conv}.weight`, of shape [output, input, kernel, kernel].
    pub(crate) conv: String,
    /// Tensors `{bn}.weight`, `.bias`, `.running_mean`, `.running_var`, each of [output].
    pub(crate) bn: String,
    pub(crate) input: usize,
    pub(crate) output: usize,
    pub(crate) kernel: usize,
    pub(crate) stride: usize,
}

impl ConvBn {
    fn new(prefix: &str, conv: &str, bn: &str, shape: (usize, usize, usize), stride: usize) -> ConvBn {
        let (input, output, kernel) = shape;
        ConvBn { conv: format!("{prefix}{conv}"), bn: format!("{prefix}{bn}"), input, output, kernel, stride }
    }

    /// Zeros around the picture that keep its size at stride 1.
    pub(crate) fn padding(&self) -> usize {
        self.kernel / 2
    }
}

/// A bottleneck block: 1x1, 3x3, 1x1, added to its input (through a 1x1 where the shape changes).
#[derive(Clone, Debug)]
pub(crate) struct Block {
    pub(crate) convs: [ConvBn; 3],
    pub(crate) downsample: Option<ConvBn>,
}

/// 7x7, stride 2; a 3x3 max pool with stride 2 follows it.
pub(crate) fn stem() -> ConvBn {
    ConvBn::new("", "conv1", "bn1", (3, 64, 7), 2)
}

/// The 16 blocks, in order.
pub(crate) fn blocks() -> Vec<Block> {
    let mut blocks = Vec::with_capacity(16);
    let mut input = 64;
    for (layer, (count, width)) in [(3, 64), (4, 128), (6, 256), (3, 512)].into_iter().enumerate() {
        let output = width * 4;
        for index in 0..count {
            let prefix = format!("layer{}.{index}.", layer + 1);
            let stride = if index == 0 && layer > 0 { 2 } else { 1 };
            blocks.push(Block {
                convs: [
                    ConvBn::new(&prefix, "conv1", "bn1", (input, width, 1), 1),
                    ConvBn::new(&prefix, "conv2", "bn2", (width, width, 3), stride),
                    ConvBn::new(&prefix, "conv3", "bn3", (width, output, 1), 1),
                ],
                downsample: (index == 0).then(|| {
                    ConvBn::new(&prefix, "downsample.0", "downsample.1", (input, output, 1), stride)
                }),
            });
            input = output;
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parameters_are_as_many_as_the_papers() {
        let convs = [stem()]
            .into_iter()
            .chain(blocks().into_iter().flat_map(|b| b.convs.into_iter().chain(b.downsample)));
        let weights: usize = convs.map(|c| c.output * c.input * c.kernel * c.kernel + 2 * c.output).sum();
        assert_eq!(weights + FEATURES * CLASSES + CLASSES, 25_557_032);
    }
}
