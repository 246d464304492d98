use fe2o3_amqp::types::{
    messaging::{AmqpSequence, AmqpValue, Batch, Body, Data},
    primitives::{Binary, OrderedMap, SimpleValue, Value},
};
use millstream_core::Log as _;
use millstream_emulators::event_hubs::{EventHubsDouble, NewEvent};

use crate::support::{HUB, ROOMY, open, partition, values};

#[tokio::test]
async fn all_of_an_event_is_read() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let text = |text: &str| SimpleValue::String(text.to_owned());
    let properties = [
        ("text", text("ü"), "ü".as_bytes()),
        ("bytes", SimpleValue::Binary(Binary::from(vec![0, 255])), &[0, 255]),
        ("number", SimpleValue::Long(-7), b"-7"),
        ("flag", SimpleValue::Bool(true), b"true"),
        ("nothing", SimpleValue::Null, b""),
    ];
    let event = NewEvent {
        properties: properties.iter().map(|(name, value, _)| ((*name).to_owned(), value.clone())).collect(),
        enqueued_ms: Some(1_700_000_000_001),
        ..NewEvent::of("v\0\u{1}").with_key("customer 7")
    };
    double.append(HUB, 0, event);
    double.append(HUB, 0, NewEvent::of(""));
    let batch = open(&double).read(&partition(0), 0..2, ROOMY).await.unwrap();
    assert_eq!(batch.keys().iter().collect::<Vec<_>>(), [Some(b"customer 7".as_slice()), None]);
    assert_eq!(values(&batch), [Some(b"v\0\x01".to_vec()), Some(Vec::new())]);
    assert_eq!(batch.timestamps_ms().value(0), 1_700_000_000_001);
    let expected: Vec<_> = properties.iter().map(|(name, _, bytes)| ((*name).to_owned(), bytes.to_vec())).collect();
    assert_eq!(batch.headers_of(0), expected);
    assert!(batch.headers_of(1).is_empty());
}

#[tokio::test]
async fn bodies_of_every_kind_are_records() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let data = |bytes: &[u8]| Data(Binary::from(bytes.to_vec()));
    let map = Value::Map(OrderedMap::from_iter([(Value::String("a".into()), Value::Int(1))]));
    let bodies = [
        Body::Data(Batch::new(vec![data(b"{\"a\":"), data(b"1}")])),
        Body::Value(AmqpValue(Value::String("text".into()))),
        Body::Value(AmqpValue(Value::Binary(Binary::from(b"bytes".to_vec())))),
        Body::Value(AmqpValue(Value::Null)),
        Body::Value(AmqpValue(map.clone())),
        Body::Sequence(Batch::new(vec![AmqpSequence(vec![Value::Int(1)])])),
        Body::Value(AmqpValue(Value::Int(5))),
    ];
    for body in bodies {
        double.append(HUB, 0, NewEvent { body, ..NewEvent::of("") });
    }
    let batch = open(&double).read(&partition(0), 0..7, ROOMY).await.unwrap();
    let values = values(&batch);
    let bytes = |text: &str| Some(text.as_bytes().to_vec());
    assert_eq!(values[..4], [bytes("{\"a\":1}"), bytes("text"), bytes("bytes"), None]);
    // What isn't bytes is there as it is encoded, whole, and no JSON.
    assert_eq!(values[4], Some(serde_amqp::to_vec(&map).unwrap()));
    for value in values[4..].iter().flatten() {
        assert!(
            !value.is_empty()
                && !matches!(value[0], b'{' | b'[' | b'"' | b't' | b'f' | b'n' | b'0'..=b'9' | b'-' | b' ')
        );
    }
}

/// Each is more than fe2o3-amqp decodes: too many elements, and so deep that it would end the process.
#[tokio::test]
async fn no_event_stops_its_neighbours() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let wide = [&[0xD0][..], &70_004_u32.to_be_bytes(), &70_000_u32.to_be_bytes(), &[0x40; 70_000]].concat();
    let levels = 20_000_u32;
    let deep: Vec<u8> = (1..=levels)
        .flat_map(|level| [&[0xD0][..], &((levels - level) * 9 + 4).to_be_bytes(), &1_u32.to_be_bytes()].concat())
        .collect();
    let short = vec![0xD0, 0, 0, 0, 0];
    let all = [wide, deep, short];
    for raw in &all {
        double.append(HUB, 0, NewEvent { raw: Some(raw.clone()), ..NewEvent::of("") });
        double.append(HUB, 0, NewEvent::of("neighbour"));
    }
    let read = values(&open(&double).read(&partition(0), 0..6, ROOMY).await.unwrap());
    for (at, raw) in all.into_iter().enumerate() {
        assert!(read[2 * at] == Some(raw), "event {at}");
        assert_eq!(read[2 * at + 1], Some(b"neighbour".to_vec()));
    }
}
