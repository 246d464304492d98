//! Records that are made up.

use std::time::Duration;

use millstream_emulators::{InvocationError, LambdaRuntimeApi};
use serde_json::{Value, json};

use crate::shop::{LIMIT, Shop};

const PIPELINE: &str = r#"
name: shop
topics:
  orders:
    partitions: 2
    schema: { number: bigint not null, product: string not null, at: timestamp not null }
    event_time: at
functions:
  make:
    uses: ingest
    generate: { rate_per_s: 200, fields: { number: sequence, product: { one_of: [tea, rice] }, at: now } }
    key: product
    into: topic.orders
"#;

#[tokio::test(flavor = "multi_thread")]
async fn as_a_service_it_makes_records_until_it_is_asked_to_end() {
    let shop = Shop::of(PIPELINE);
    let mut ingest = shop.start(&[]);
    shop.until_records(100, &mut ingest).await;
    ingest.signal("TERM");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
    let records = shop.records().await;
    // The log of the process is for machines.
    for line in ingest.stderr().lines() {
        assert!(serde_json::from_str::<Value>(line).is_ok(), "{line}");
    }
    // It goes on where the log ends.
    let mut ingest = shop.start(&[("MILLSTREAM_FUNCTION", "make".to_owned())]);
    shop.until_records(records + 100, &mut ingest).await;
    ingest.signal("INT");
    assert_eq!(ingest.end().await.code(), Some(0), "{}", ingest.stderr());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_person_must_correct_ends_it_with_a_message() {
    let shop = Shop::of(PIPELINE);
    for (name, value, says) in [
        ("MILLSTREAM_CREATE", "false", "topic `orders` does not exist"),
        ("MILLSTREAM_FUNCTION", "nothing", "there is no function `nothing`"),
        ("MILLSTREAM_PERIOD_S", "soon", "MILLSTREAM_PERIOD_S"),
    ] {
        let mut ingest = shop.start(&[(name, value.to_owned())]);
        let (status, said) = (ingest.end().await, ingest.stderr());
        assert!(status.code() == Some(1) && said.contains(says), "{status} {said}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_lambda_each_event_of_a_schedule_makes_records_for_a_bounded_time() {
    let (shop, api) = (Shop::of(PIPELINE), LambdaRuntimeApi::start().await);
    let scheduled = || json!({"source": "aws.events", "detail-type": "Scheduled Event", "detail": {}});
    let acknowledged = |answer: Result<Value, InvocationError>| answer.unwrap()["acknowledged"].as_i64().unwrap();
    let of_one_second = [api.environment(), vec![("MILLSTREAM_PERIOD_S", "1".to_owned())]].concat();
    let ingest = shop.start(&of_one_second);
    let mut sum = 0;
    for _ in 0..2 {
        // 200 in the period of a second, if the machine is not busy.
        let made = acknowledged(api.invoke(scheduled(), LIMIT).await);
        assert!((1..=200).contains(&made), "{made}");
        sum += made;
        assert_eq!(shop.records().await, sum, "what was acknowledged is in the topic");
    }
    match api.invoke(json!({"eventSource": "aws:kafka", "records": {}}), LIMIT).await {
        Err(InvocationError::Function { message, .. }) => assert!(message.contains("Scheduled Event"), "{message}"),
        other => panic!("an event of Kafka must be refused, got {other:?}"),
    }
    assert_eq!(shop.records().await, sum);
    drop(ingest);

    // The period is a minute here: the deadline ends the invocation before that, and before it is over.
    let _ingest = shop.start(&api.environment());
    let made = acknowledged(api.invoke(scheduled(), Duration::from_secs(4)).await);
    assert!((1..=600).contains(&made), "{made}");
    assert_eq!(shop.records().await, sum + made);
}
