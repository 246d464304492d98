//! An event as a record.

use fe2o3_amqp::types::{
    messaging::{AmqpValue, Body, Message, annotations::AnnotationKey},
    primitives::{SimpleValue, Symbol, Value},
};
use millstream_core::{BatchBuilder, Error, Result};

/// What the service writes on each event.
const SEQUENCE_NUMBER: &str = "x-opt-sequence-number";
const ENQUEUED_TIME: &str = "x-opt-enqueued-time";
const PARTITION_KEY: &str = "x-opt-partition-key";

/// An event that was read.
#[derive(Debug)]
pub(crate) struct Record {
    /// Its sequence number.
    pub offset: i64,
    timestamp_ms: i64,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// Takes an event apart.
    ///
    /// # Errors
    /// `Retry` when the service has not numbered it.
    pub fn of(message: Message<Body<Value>>) -> Result<Self> {
        let annotations = message.message_annotations.as_ref();
        let find = |name: &str| {
            let symbol = Symbol::from(name);
            annotations.and_then(|annotations| annotations.0.get(&symbol as &dyn AnnotationKey))
        };
        let Some(Value::Long(offset)) = find(SEQUENCE_NUMBER) else {
            return Err(Error::retry(format!("the service sent an event without `{SEQUENCE_NUMBER}`")));
        };
        let headers = message.application_properties.map(|properties| properties.0);
        Ok(Self {
            offset: *offset,
            timestamp_ms: match find(ENQUEUED_TIME) {
                Some(Value::Timestamp(time)) => time.milliseconds(),
                _ => -1,
            },
            key: match find(PARTITION_KEY) {
                Some(Value::String(key)) => Some(key.clone().into_bytes()),
                _ => None,
            },
            value: value_of(message.body),
            headers: headers.into_iter().flatten().map(|(name, value)| (name, header_of(value))).collect(),
        })
    }

    /// Bytes of key, value and headers, for limits.
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        length(&self.key) + length(&self.value) + headers
    }

    /// When the service took it, in milliseconds since 1970.
    pub fn timestamp_ms(&self) -> i64 {
        self.timestamp_ms
    }

    pub fn push_to(&self, builder: &mut BatchBuilder) {
        let headers = self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        builder.push(self.offset, self.timestamp_ms, self.key.as_deref(), self.value.as_deref(), headers);
    }
}

/// The bytes that were sent: data sections one after the other, or the bytes or the text of a value. A value of another kind (a
/// map, a number, a list) is no payload of bytes; its AMQP encoding is taken for it. No decoder accepts that, so such an event
/// becomes a dead letter, whole, and the others go on.
fn value_of(body: Body<Value>) -> Option<Vec<u8>> {
    match body {
        Body::Data(sections) => {
            let mut sections = sections.into_iter().map(|section| section.0.into_vec());
            let mut bytes = sections.next().unwrap_or_default();
            sections.for_each(|section| bytes.extend(section));
            Some(bytes)
        }
        Body::Value(AmqpValue(Value::Null)) => None,
        Body::Value(AmqpValue(Value::Binary(bytes))) => Some(bytes.into_vec()),
        Body::Value(AmqpValue(Value::String(text))) => Some(text.into_bytes()),
        Body::Value(AmqpValue(value)) => Some(encoded(&value)),
        Body::Sequence(sections) => {
            let lists = sections.into_iter().map(|section| Value::List(section.0));
            Some(lists.flat_map(|list| encoded(&list)).collect())
        }
        Body::Empty => Some(Vec::new()),
    }
}

fn encoded(value: &Value) -> Vec<u8> {
    // What was decoded can be encoded. If it could not, the dead letter would be without its bytes, which are still in the log.
    serde_amqp::to_vec(value).unwrap_or_else(|_| b"?".to_vec())
}

/// The bytes of an application property: of bytes and text what they are, of anything else its text.
fn header_of(value: SimpleValue) -> Vec<u8> {
    match value {
        SimpleValue::Null => Vec::new(),
        SimpleValue::String(text) => text.into_bytes(),
        SimpleValue::Symbol(text) => text.0.into_bytes(),
        SimpleValue::Binary(bytes) => bytes.into_vec(),
        SimpleValue::Bool(value) => value.to_string().into_bytes(),
        SimpleValue::Ubyte(value) => value.to_string().into_bytes(),
        SimpleValue::Ushort(value) => value.to_string().into_bytes(),
        SimpleValue::Uint(value) => value.to_string().into_bytes(),
        SimpleValue::Ulong(value) => value.to_string().into_bytes(),
        SimpleValue::Byte(value) => value.to_string().into_bytes(),
        SimpleValue::Short(value) => value.to_string().into_bytes(),
        SimpleValue::Int(value) => value.to_string().into_bytes(),
        SimpleValue::Long(value) => value.to_string().into_bytes(),
        SimpleValue::Float(value) => value.to_string().into_bytes(),
        SimpleValue::Double(value) => value.to_string().into_bytes(),
        SimpleValue::Char(value) => value.to_string().into_bytes(),
        SimpleValue::Timestamp(time) => time.milliseconds().to_string().into_bytes(),
        other => format!("{other:?}").into_bytes(),
    }
}
