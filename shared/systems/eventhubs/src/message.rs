//! A record as an event.

use fe2o3_amqp::types::{
    messaging::{AmqpValue, ApplicationProperties, Batch, Body, Data, Message},
    primitives::{Binary, OrderedMap, SimpleValue, Value},
};
use millstream_core::NewRecord;

/// The property that holds the key of a record. The partition key of an event is no place for it: it is a text of at most 128
/// characters, and Microsoft's clients refuse one together with a partition, as which records are sent here.
pub(crate) const KEY: &str = "millstream-eventhubs-key";

/// Between the name of a header and how often the name was there before: the properties of an event have different names.
const AGAIN: char = '\u{1f}';

/// What AMQP adds to a record at most, without its headers: descriptors and lengths.
const OVERHEAD: usize = 96;

/// The event of a record. Its time is the service's.
pub(crate) fn event_of(record: &NewRecord) -> Message<Body<Value>> {
    let body = match &record.value {
        Some(bytes) => Body::Data(Batch::new(vec![Data(Binary::from(bytes.clone()))])),
        None => Body::Value(AmqpValue(Value::Null)),
    };
    let binary = |bytes: &Vec<u8>| SimpleValue::Binary(Binary::from(bytes.clone()));
    let mut properties: OrderedMap<String, SimpleValue> = OrderedMap::new();
    if let Some(key) = &record.key {
        properties.insert(KEY.to_owned(), binary(key));
    }
    for (at, (name, bytes)) in record.headers.iter().enumerate() {
        properties.insert(name_of(&record.headers[..at], name), binary(bytes));
    }
    let event = Message::builder().body(body);
    if properties.is_empty() {
        return event.build();
    }
    event.application_properties(ApplicationProperties(properties)).build()
}

/// At least as many bytes as the event of a record has.
pub(crate) fn size_of(record: &NewRecord) -> usize {
    let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
    // A name is a text of at most 9 bytes more, a value has 5.
    let headers = record.headers.iter().map(|(name, bytes)| name.len() + bytes.len() + 24);
    length(&record.key) + length(&record.value) + headers.sum::<usize>() + OVERHEAD
}

/// The name of the property for a header that comes after `before`.
fn name_of(before: &[(String, Vec<u8>)], name: &str) -> String {
    let count = before.iter().filter(|(earlier, _)| earlier == name).count();
    if count > 0 || name == KEY || original_name(name) != name {
        format!("{name}{AGAIN}{count}")
    } else {
        name.to_owned()
    }
}

/// The name of the header that a property was made of.
pub(crate) fn original_name(property: &str) -> &str {
    match property.rsplit_once(AGAIN) {
        Some((name, count)) if !count.is_empty() && count.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => property,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_of_the_same_name_are_told_apart() {
        let names = ["a", "a", "a\u{1f}1", "b", KEY, "a", "c\u{1f}", "c\u{1f}x"];
        let headers = names.map(|name| (name.to_owned(), name.as_bytes().to_vec())).to_vec();
        let record = NewRecord { key: Some(vec![255]), headers, ..NewRecord::default() };
        let event = event_of(&record);
        let properties = event.application_properties.unwrap().0;
        let names_again: Vec<_> = properties.keys().skip(1).map(|name| original_name(name)).collect();
        assert_eq!(names_again, names);
        assert_eq!(properties.len(), names.len() + 1);
    }
}
