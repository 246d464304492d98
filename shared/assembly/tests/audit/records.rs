//! Functions that write to a topic.

use millstream_assembly::topics_beside;
use millstream_core::{Batch, Limits, NewRecord, TopicPartition};

use super::{World, audit};

const PIPELINE: &str = "
name: shop
topics:
  sales: { partitions: 2, schema: { shop: string, amount: bigint, at: timestamp, place: int } }
  named: { partitions: 3, schema: { shop: string, city: string, amount: bigint, at: timestamp, place: int } }
functions:
  f:
    uses: transform
    from: sales
    sql: SELECT s.shop, c.city, s.amount, s.at, s.place FROM sales s JOIN cities c ON c.shop = s.shop WHERE amount > 0
    key: shop
    timestamp: at
    partition: place
    into: topic.named
  total:
    uses: aggregate
    from: named
    sql: SELECT city, sum(amount) AS amount, count(*) AS n FROM named GROUP BY 1
    into: postgres.total
references:
  cities: { file: towns.csv, schema: { shop: string, city: string } }
";

async fn world(cities: &str) -> World {
    World::with(PIPELINE, &[("towns.csv", cities)]).await
}

/// All records of the topic, by partition.
async fn named(world: &World) -> Vec<Batch> {
    let (log, mut all) = (world.systems.source(), Vec::new());
    for number in 0..log.partitions("named").await.unwrap() {
        let partition = TopicPartition::new("named", 1, number);
        let held = log.watermarks(&partition).await.unwrap();
        if held.high > held.low {
            let limits = Limits { max_records: 1_000, max_bytes: 1 << 20, max_wait_ms: 0 };
            all.push(log.read(&partition, held.low..held.high, limits).await.unwrap());
        }
    }
    all
}

#[tokio::test]
async fn records_get_what_the_file_says_and_keep_their_headers() {
    let world = world("shop,city\na,Oslo\n").await;
    let record = |value: &str| NewRecord {
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("traceparent".to_owned(), b"00-ab-cd-01".to_vec())],
        timestamp_ms: Some(5),
        partition: Some(1),
        ..NewRecord::default()
    };
    let values = [
        r#"{"shop":"a","amount":1,"at":"2026-01-01T00:00:00.250Z","place":2}"#,
        r#"{"shop":"a","amount":2}"#,
        r#"{"shop":"a","amount":3,"place":3}"#,
        r#"{"shop":"a","amount":4,"place":-1}"#,
        r#"{"shop":"nowhere","amount":5,"place":0}"#,
        r#"{"shop":"a","amount":0,"place":7}"#,
    ];
    let topic = &world.pipeline.topics["sales"];
    world.systems.producer(topic).unwrap().send("sales", values.map(record).to_vec()).await.unwrap();
    world.run("f").await;
    let report = world.audit("f").await;
    assert!(report.is_clean() && report.rows == 2 && report.dead_letters == 2, "{report:?}");
    let (mut found, by_key) = (Vec::new(), millstream_core::partition_of(b"a", 3));
    for batch in named(&world).await {
        for row in 0..batch.len() {
            assert_eq!(batch.keys().value(row), b"a");
            assert_eq!(batch.find_header(row, "traceparent").unwrap(), b"00-ab-cd-01");
            found.push((batch.partition().partition, batch.timestamps_ms().value(row)));
        }
    }
    found.sort_unstable();
    let mut expected = [(2, 1_767_225_600_250), (by_key, 5)];
    expected.sort_unstable();
    assert_eq!(found, expected);
    let letters = world.systems.dead_letters(&world.pipeline).list(None, 10).await.unwrap();
    let reasons: Vec<_> = letters.iter().map(|letter| letter.reason.as_str()).collect();
    assert!(
        reasons.iter().all(|reason| reason.contains("none of those that the function writes to, 0 to 2")),
        "{reasons:?}"
    );
}

/// Records stay in the partitions that the topic had when the function began; partitions that are added to the source are read.
#[tokio::test]
async fn partitions_are_added_while_functions_run() {
    let world = world("shop,city\na,Oslo\nb,Rome\nc,Rome\n").await;
    let send = async |partition: i32, from: i64| {
        for (at, shop) in ["a", "b", "c"].into_iter().enumerate() {
            let value = format!(r#"{{"shop":"{shop}","amount":{}}}"#, from + at as i64);
            world.send("sales", partition, &[&value]).await;
        }
    };
    let functions = [
        world.systems.function(&world.pipeline, "f").await.unwrap(),
        world.systems.function(&world.pipeline, "total").await.unwrap(),
    ];
    let drain = async || {
        for function in &functions {
            function.drain(world.systems.source().as_ref()).await.unwrap();
        }
    };
    send(0, 1).await;
    drain().await;
    for (topic, partitions) in [("sales", 4), ("named", 7)] {
        world.systems.topics().raise_partitions(topic, partitions).await.unwrap();
    }
    for partition in 0..4 {
        send(partition, 10 * i64::from(partition + 1)).await;
    }
    drain().await;
    for name in ["f", "total"] {
        // A process that begins now sees the same.
        world.run(name).await;
        let report = world.audit(name).await;
        assert!(report.is_clean() && report.dead_letters == 0, "{name}: {report:?}");
        assert_eq!(report.records, 15, "{name}");
    }
    assert!(named(&world).await.iter().all(|batch| batch.partition().partition < 3));
}

#[tokio::test]
async fn what_retention_has_removed_from_the_output_is_not_said_to_be_lost() {
    let world = world("shop,city\na,Oslo\n").await;
    world.send("sales", 0, &[r#"{"shop":"a","amount":1,"place":1}"#, r#"{"shop":"a","amount":2,"place":1}"#]).await;
    world.run("f").await;
    world.store().delete_records("named", 1, 1).await.unwrap();
    let said = audit(&world.systems, &world.pipeline, "f").await.unwrap_err().to_string();
    assert!(said.contains("offsets 0..1 of named/1/1") && said.contains("(retention)"), "{said}");
}

/// An added field is adopted; so is the previous version, in case it has to finish something.
#[tokio::test]
async fn a_topic_goes_on_under_an_adopted_plan_and_back() {
    let world = world("shop,city\na,Oslo\n").await;
    let sale = r#"{"shop":"a","amount":1}"#;
    world.send("sales", 0, &[sale]).await;
    world.run("f").await;
    let more = PIPELINE.replace("c.city, s.amount", "c.city, s.amount, s.amount * 2 AS twice");
    let world = world.changed_to(&more.replace("city: string, amount", "city: string, twice: bigint, amount")).await;
    world.adopt("f").await;
    world.send("sales", 0, &[sale]).await;
    world.run("f").await;
    let world = world.changed_to(PIPELINE).await;
    world.adopt("f").await;
    world.send("sales", 0, &[sale]).await;
    world.run("f").await;
    let held: usize = named(&world).await.iter().map(Batch::len).sum();
    assert_eq!(held, 3);
    assert_eq!(topics_beside(&world.pipeline), ["shop.fences", "shop.outbox"]);
}
