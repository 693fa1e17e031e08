//! The part of ONNX's protobuf schema that a convolutional classifier needs; field numbers from `onnx.proto`, which is
//! proto2. What has its default is left out.

use crate::protobuf::Message;

/// `IR_VERSION` of ONNX 1.12, the release of opset 17.
const IR_VERSION: i64 = 8;
/// Old enough for every engine, new enough for what we use.
const OPSET_VERSION: i64 = 17;
/// `TensorProto.DataType.FLOAT`
const FLOAT: i64 = 1;
/// `AttributeProto.AttributeType.INT`
const ATTRIBUTE_INT: i64 = 2;
/// `AttributeProto.AttributeType.INTS`
const ATTRIBUTE_INTS: i64 = 7;

/// What a graph is made of: each node with its own output, and the tensors that they read.
#[derive(Default)]
pub(crate) struct Parts {
    /// By [`node`].
    pub(crate) nodes: Vec<Message>,
    /// By [`tensor`].
    pub(crate) tensors: Vec<Message>,
}

/// A `ModelProto`: the graph of that name, from one input to one output, each by [`value_info`].
pub(crate) fn model(name: &str, parts: Parts, input: Message, output: Message) -> Message {
    let graph = Message::default()
        .messages(1, parts.nodes)
        .text(2, name)
        .messages(5, parts.tensors)
        .message(11, input)
        .message(12, output);
    Message::default()
        .number(1, IR_VERSION)
        .text(2, env!("CARGO_PKG_NAME"))
        .message(7, graph)
        .message(8, Message::default().number(2, OPSET_VERSION))
}

/// A `NodeProto` with one output, named as the node is.
pub(crate) fn node(op_type: &str, name: &str, input: &[&str], attributes: Vec<Message>) -> Message {
    let inputs = input.iter().fold(Message::default(), |node, input| node.text(1, input));
    inputs.text(2, name).text(3, name).text(4, op_type).messages(5, attributes)
}

/// An `AttributeProto` of one number.
pub(crate) fn int(name: &str, value: i64) -> Message {
    Message::default().text(1, name).number(3, value).number(20, ATTRIBUTE_INT)
}

/// An `AttributeProto` of several.
pub(crate) fn ints(name: &str, values: &[i64]) -> Message {
    Message::default().text(1, name).numbers(8, values).number(20, ATTRIBUTE_INTS)
}

/// A `TensorProto`.
pub(crate) fn tensor(name: &str, dims: &[usize], values: impl Iterator<Item = f32>) -> Message {
    let mut little_endian = Vec::with_capacity(dims.iter().product::<usize>() * 4);
    for value in values {
        little_endian.extend_from_slice(&value.to_le_bytes());
    }
    Message::default().numbers(1, &signed(dims)).number(2, FLOAT).text(8, name).bytes(9, little_endian)
}

/// A `ValueInfoProto` of a tensor.
pub(crate) fn value_info(name: &str, dims: &[usize]) -> Message {
    let dimension = |dim| Message::default().number(1, dim);
    let shape = Message::default().messages(1, signed(dims).into_iter().map(dimension));
    let tensor_type = Message::default().number(1, FLOAT).message(2, shape);
    Message::default().text(1, name).message(2, Message::default().message(1, tensor_type))
}

/// ONNX counts in `int64`; our dimensions are far from its end.
fn signed(dims: &[usize]) -> Vec<i64> {
    dims.iter().map(|&dim| dim as i64).collect()
}
