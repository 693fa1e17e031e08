//! Protobuf's wire format, for messages that are written: <https://protobuf.dev/programming-guides/encoding/>. All that
//! is written with it is one ONNX file, and to derive it from annotated types would compile a parser and a library of
//! iterators for that.

/// A message: its fields by their numbers, in the order in which they are written.
#[derive(Default)]
pub(crate) struct Message(Vec<(u32, Value)>);

enum Value {
    Number(i64),
    Bytes(Vec<u8>),
    Message(Message),
}

/// Wire types.
const VARINT: u32 = 0;
const LENGTH_DELIMITED: u32 = 2;

impl Message {
    pub(crate) fn number(self, field: u32, value: i64) -> Message {
        self.with(field, Value::Number(value))
    }

    /// A repeated number, each with its key: proto2 does not pack them.
    pub(crate) fn numbers(self, field: u32, values: &[i64]) -> Message {
        values.iter().fold(self, |message, value| message.number(field, *value))
    }

    pub(crate) fn text(self, field: u32, text: &str) -> Message {
        self.bytes(field, text.as_bytes().to_vec())
    }

    pub(crate) fn bytes(self, field: u32, bytes: Vec<u8>) -> Message {
        self.with(field, Value::Bytes(bytes))
    }

    pub(crate) fn message(self, field: u32, message: Message) -> Message {
        self.with(field, Value::Message(message))
    }

    /// A repeated message.
    pub(crate) fn messages(self, field: u32, messages: impl IntoIterator<Item = Message>) -> Message {
        messages.into_iter().fold(self, |whole, message| whole.message(field, message))
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut to = Vec::with_capacity(self.len());
        self.write(&mut to);
        to
    }

    fn with(mut self, field: u32, value: Value) -> Message {
        self.0.push((field, value));
        self
    }

    fn len(&self) -> usize {
        let field = |(field, value): &(u32, Value)| {
            let delimited = |len: usize| varint_len(len as u64) + len;
            varint_len(u64::from(field << 3))
                + match value {
                    Value::Number(number) => varint_len(*number as u64),
                    Value::Bytes(bytes) => delimited(bytes.len()),
                    Value::Message(message) => delimited(message.len()),
                }
        };
        self.0.iter().map(field).sum()
    }

    fn write(&self, to: &mut Vec<u8>) {
        for (field, value) in &self.0 {
            let wire_type = if let Value::Number(_) = value { VARINT } else { LENGTH_DELIMITED };
            varint(u64::from(field << 3 | wire_type), to);
            match value {
                // Negative ones as two's complement, in ten bytes.
                Value::Number(number) => varint(*number as u64, to),
                Value::Bytes(bytes) => {
                    varint(bytes.len() as u64, to);
                    to.extend_from_slice(bytes);
                }
                Value::Message(message) => {
                    varint(message.len() as u64, to);
                    message.write(to);
                }
            }
        }
    }
}

/// Seven bits a byte, the lowest first; the eighth says that more follow.
fn varint(mut value: u64, to: &mut Vec<u8>) {
    while value >= 0x80 {
        to.push(value as u8 | 0x80);
        value >>= 7;
    }
    to.push(value as u8);
}

fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The examples of the specification.
    #[test]
    fn messages_are_encoded_as_the_specification_shows() {
        let encoded = |message: Message| {
            let bytes = message.encode();
            assert_eq!(bytes.len(), message.len());
            bytes
        };
        assert_eq!(encoded(Message::default().number(1, 150)), [0x08, 0x96, 0x01]);
        assert_eq!(encoded(Message::default().text(2, "testing")), *b"\x12\x07testing");
        let inner = Message::default().number(1, 150);
        assert_eq!(encoded(Message::default().message(3, inner)), [0x1a, 0x03, 0x08, 0x96, 0x01]);
        let minus_two = [0x08, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
        assert_eq!(encoded(Message::default().number(1, -2)), minus_two);
        assert_eq!(encoded(Message::default().numbers(6, &[1, 0])), [0x30, 1, 0x30, 0]);
        assert_eq!(encoded(Message::default().number(20, 127)), [0xa0, 0x01, 127]);
    }
}
