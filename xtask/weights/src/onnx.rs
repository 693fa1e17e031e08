//! The part of ONNX's protobuf schema that a convolutional classifier needs; field numbers from `onnx.proto`,
//! which is proto2: repeated numbers are not packed.

/// `IR_VERSION` of ONNX 1.12, the release of opset 17.
pub(crate) const IR_VERSION: i64 = 8;
/// Old enough for every engine, new enough for what we use.
pub(crate) const OPSET_VERSION: i64 = 17;
/// `TensorProto.DataType.FLOAT`
const FLOAT: i32 = 1;
/// `AttributeProto.AttributeType.INT`
const ATTRIBUTE_INT: i32 = 2;
/// `AttributeProto.AttributeType.INTS`
const ATTRIBUTE_INTS: i32 = 7;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Model {
    #[prost(int64, tag = "1")]
    pub(crate) ir_version: i64,
    #[prost(string, tag = "2")]
    pub(crate) producer_name: String,
    #[prost(message, optional, tag = "7")]
    pub(crate) graph: Option<Graph>,
    #[prost(message, repeated, tag = "8")]
    pub(crate) opset_import: Vec<OperatorSet>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct OperatorSet {
    #[prost(string, tag = "1")]
    pub(crate) domain: String,
    #[prost(int64, tag = "2")]
    pub(crate) version: i64,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Graph {
    #[prost(message, repeated, tag = "1")]
    pub(crate) node: Vec<Node>,
    #[prost(string, tag = "2")]
    pub(crate) name: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) initializer: Vec<Tensor>,
    #[prost(message, repeated, tag = "11")]
    pub(crate) input: Vec<ValueInfo>,
    #[prost(message, repeated, tag = "12")]
    pub(crate) output: Vec<ValueInfo>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Node {
    #[prost(string, repeated, tag = "1")]
    pub(crate) input: Vec<String>,
    #[prost(string, repeated, tag = "2")]
    pub(crate) output: Vec<String>,
    #[prost(string, tag = "3")]
    pub(crate) name: String,
    #[prost(string, tag = "4")]
    pub(crate) op_type: String,
    #[prost(message, repeated, tag = "5")]
    pub(crate) attribute: Vec<Attribute>,
}

impl Node {
    /// One output, named as the node is.
    pub(crate) fn new(op_type: &str, name: &str, input: &[&str], attribute: Vec<Attribute>) -> Node {
        Node {
            input: input.iter().map(ToString::to_string).collect(),
            output: vec![name.to_owned()],
            name: name.to_owned(),
            op_type: op_type.to_owned(),
            attribute,
        }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Attribute {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(int64, tag = "3")]
    pub(crate) i: i64,
    #[prost(int64, repeated, packed = "false", tag = "8")]
    pub(crate) ints: Vec<i64>,
    #[prost(int32, tag = "20")]
    pub(crate) r#type: i32,
}

impl Attribute {
    pub(crate) fn int(name: &str, i: i64) -> Attribute {
        Attribute { name: name.to_owned(), i, ints: vec![], r#type: ATTRIBUTE_INT }
    }

    pub(crate) fn ints(name: &str, ints: Vec<i64>) -> Attribute {
        Attribute { name: name.to_owned(), i: 0, ints, r#type: ATTRIBUTE_INTS }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Tensor {
    #[prost(int64, repeated, packed = "false", tag = "1")]
    pub(crate) dims: Vec<i64>,
    #[prost(int32, tag = "2")]
    pub(crate) data_type: i32,
    #[prost(string, tag = "8")]
    pub(crate) name: String,
    /// Little-endian.
    #[prost(bytes = "vec", tag = "9")]
    pub(crate) raw_data: Vec<u8>,
}

impl Tensor {
    pub(crate) fn new(name: &str, dims: &[usize], values: impl Iterator<Item = f32>) -> Tensor {
        let mut raw_data = Vec::with_capacity(dims.iter().product::<usize>() * 4);
        for value in values {
            raw_data.extend_from_slice(&value.to_le_bytes());
        }
        Tensor { dims: signed(dims), data_type: FLOAT, name: name.to_owned(), raw_data }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct ValueInfo {
    #[prost(string, tag = "1")]
    pub(crate) name: String,
    #[prost(message, optional, tag = "2")]
    pub(crate) r#type: Option<Type>,
}

impl ValueInfo {
    pub(crate) fn new(name: &str, dims: &[usize]) -> ValueInfo {
        let dim = signed(dims).into_iter().map(|dim_value| Dimension { dim_value }).collect();
        let tensor_type = Some(TensorType { elem_type: FLOAT, shape: Some(Shape { dim }) });
        ValueInfo { name: name.to_owned(), r#type: Some(Type { tensor_type }) }
    }
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Type {
    #[prost(message, optional, tag = "1")]
    pub(crate) tensor_type: Option<TensorType>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct TensorType {
    #[prost(int32, tag = "1")]
    pub(crate) elem_type: i32,
    #[prost(message, optional, tag = "2")]
    pub(crate) shape: Option<Shape>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Shape {
    #[prost(message, repeated, tag = "1")]
    pub(crate) dim: Vec<Dimension>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Dimension {
    #[prost(int64, tag = "1")]
    pub(crate) dim_value: i64,
}

/// ONNX counts in `int64`; our dimensions are far from its end.
fn signed(dims: &[usize]) -> Vec<i64> {
    dims.iter().map(|&dim| dim as i64).collect()
}
