//! Safetensors to ONNX: the fixed graph around the weights, with batch norm folded into the convolutions before it.

use anyhow::{Context as _, Result, ensure};
use safetensors::{Dtype, SafeTensors};

use crate::onnx::{self, Parts};
use crate::protobuf::Message;
use crate::resnet50::{BN_EPSILON, CLASSES, ConvBn, FEATURES, blocks, stem};

/// The ONNX file for the weights in `safetensors` (the file's bytes).
///
/// Fails on a tensor that is missing, or that is not of the shape and type (F32) of ResNet-50.
pub(crate) fn to_onnx(safetensors: &[u8]) -> Result<Vec<u8>> {
    let weights = SafeTensors::deserialize(safetensors).context("reading the safetensors header")?;
    let mut graph = Builder { weights, parts: Parts::default() };

    graph.conv_relu(&stem(), "input")?;
    let pool = [("kernel_shape", &[3; 2][..]), ("strides", &[2; 2]), ("pads", &[1; 4])];
    graph.node(
        "MaxPool",
        "maxpool",
        &["conv1.relu"],
        pool.map(|(name, values)| onnx::ints(name, values)).into(),
    );
    let mut value = "maxpool".to_owned();
    for block in blocks() {
        let [first, second, third] = &block.convs;
        let inner = graph.conv_relu(first, &value)?;
        let inner = graph.conv_relu(second, &inner)?;
        let branch = graph.conv(third, &inner)?;
        let shortcut = match &block.downsample {
            Some(downsample) => graph.conv(downsample, &value)?,
            None => value,
        };
        let sum = format!("{branch}.add");
        graph.node("Add", &sum, &[&branch, &shortcut], vec![]);
        value = graph.relu(&sum);
    }
    graph.node("GlobalAveragePool", "avgpool", &[&value], vec![]);
    graph.node("Flatten", "features", &["avgpool"], vec![onnx::int("axis", 1)]);
    graph.copy("fc.weight", &[CLASSES, FEATURES])?;
    graph.copy("fc.bias", &[CLASSES])?;
    graph.node("Gemm", "logits", &["features", "fc.weight", "fc.bias"], vec![onnx::int("transB", 1)]);

    let input = onnx::value_info("input", &[1, 3, 224, 224]);
    let output = onnx::value_info("logits", &[1, CLASSES]);
    Ok(onnx::model("resnet50", graph.parts, input, output).encode())
}

struct Builder<'a> {
    weights: SafeTensors<'a>,
    parts: Parts,
}

impl<'a> Builder<'a> {
    fn node(&mut self, op_type: &str, name: &str, input: &[&str], attributes: Vec<Message>) {
        self.parts.nodes.push(onnx::node(op_type, name, input, attributes));
    }

    fn relu(&mut self, input: &str) -> String {
        let name = format!("{input}.relu");
        self.node("Relu", &name, &[input], vec![]);
        name
    }

    fn conv_relu(&mut self, conv: &ConvBn, input: &str) -> Result<String> {
        let name = self.conv(conv, input)?;
        Ok(self.relu(&name))
    }

    /// A convolution that does its batch norm's work too:
    /// `gamma * (w*x - mean) / sqrt(var + eps) + beta = (scale * w) * x + (beta - mean * scale)`.
    fn conv(&mut self, conv: &ConvBn, input: &str) -> Result<String> {
        let ConvBn { conv: name, bn, output, kernel, .. } = conv;
        let shape = [*output, conv.input, *kernel, *kernel];
        let weight = self.tensor(&format!("{name}.weight"), &shape)?;
        let [gamma, beta, mean, variance] = ["weight", "bias", "running_mean", "running_var"]
            .map(|part| self.tensor(&format!("{bn}.{part}"), &[*output]).map(Iterator::collect::<Vec<_>>));
        let (gamma, beta, mean, variance) = (gamma?, beta?, mean?, variance?);
        let scale: Vec<f64> = gamma
            .iter()
            .zip(&variance)
            .map(|(g, v)| f64::from(*g) / (f64::from(*v) + BN_EPSILON).sqrt())
            .collect();

        let per_output = conv.input * kernel * kernel;
        let folded = weight.enumerate().map(|(i, w)| (f64::from(w) * scale[i / per_output]) as f32);
        let folded = onnx::tensor(&format!("{name}.weight"), &shape, folded);
        let bias = (0..*output).map(|o| (f64::from(beta[o]) - f64::from(mean[o]) * scale[o]) as f32);
        let bias = onnx::tensor(&format!("{name}.bias"), &[*output], bias);
        self.parts.tensors.extend([folded, bias]);

        let (kernel, stride, pad) = (*kernel as i64, conv.stride as i64, conv.padding() as i64);
        let attributes = vec![
            onnx::ints("kernel_shape", &[kernel; 2]),
            onnx::ints("strides", &[stride; 2]),
            onnx::ints("pads", &[pad; 4]),
        ];
        self.node("Conv", name, &[input, &format!("{name}.weight"), &format!("{name}.bias")], attributes);
        Ok(name.clone())
    }

    fn copy(&mut self, name: &str, shape: &[usize]) -> Result<()> {
        let values = self.tensor(name, shape)?;
        self.parts.tensors.push(onnx::tensor(name, shape, values));
        Ok(())
    }

    fn tensor(&self, name: &str, shape: &[usize]) -> Result<impl Iterator<Item = f32> + use<'a>> {
        let tensor =
            self.weights.tensor(name).with_context(|| format!("finding tensor {name} of ResNet-50"))?;
        ensure!(tensor.dtype() == Dtype::F32, "tensor {name} holds {:?}, expected F32", tensor.dtype());
        ensure!(tensor.shape() == shape, "tensor {name} has shape {:?}, expected {shape:?}", tensor.shape());
        Ok(tensor.data().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)))
    }
}
