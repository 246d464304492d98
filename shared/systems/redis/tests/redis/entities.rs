//! Tables with an entity: the newest row of each, whatever comes in which order.

use std::{collections::BTreeMap, time::Duration};

use millstream_core::{Error, FIRST_REDRIVE, Fence, TopicPartition};

use crate::support::{Database, Row, balances, held, moved, partition, ready, rows, texts, write};

#[tokio::test]
async fn the_newest_row_replaces_the_whole_one() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let of = [("ann", Some(1), Some("a"), 0), ("bob", Some(2), None, 1), ("ann", Some(3), Some("b"), 2)];
    let three = write(&*sink, &start, &of).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&[of[1], of[2]]));
    let expected = [
        ("account", "ann"),
        ("amount", "3"),
        ("note", "b"),
        ("_offset", "2"),
        ("_timestamp", "2027-01-15T08:00:00.002000Z"),
        ("_topic", "transaction"),
        ("_generation", "1"),
        ("_partition", "0"),
        ("_term", "0"),
    ];
    let expected: BTreeMap<_, _> = expected.iter().map(|(name, text)| ((*name).into(), (*text).into())).collect();
    assert_eq!(database.hash("balance:{ann}").await, expected);

    let newer = [("ann", None, None, 3)];
    write(&*sink, &three, &newer).await.unwrap();
    let ann = database.hash("balance:{ann}").await;
    assert!(!ann.contains_key("amount") && !ann.contains_key("note"), "what is null is gone: {ann:?}");
    assert_eq!(held(&*database.sink(&balances())).await, texts(&[of[1], newer[0]]));
}

#[tokio::test]
async fn an_older_row_never_wins() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    sink.prepare(true).await.unwrap();
    let write = async |partition: &TopicPartition, amount: i64, offset: i64| {
        let from = sink.create_fence(partition, Fence::starting_at(offset)).await.unwrap();
        let from = moved(&from, offset);
        sink.write(partition, &from, &moved(&from, offset + 1), &[rows(&[("ann", Some(amount), None, offset)])])
            .await
            .unwrap();
        database.hash("balance:{ann}").await["amount"].clone()
    };
    // 10 is below 9 as a text, and above it as a number; nor is either exact in Lua above 2^53.
    assert_eq!(write(&partition(0), 1, 10).await, "1");
    assert_eq!(write(&partition(1), 2, 9).await, "1");
    assert_eq!(write(&partition(2), 3, 9_007_199_254_740_993).await, "3");
    assert_eq!(write(&partition(3), 4, 9_007_199_254_740_992).await, "3");
    let again = TopicPartition::new("transaction", 2, 0);
    assert_eq!(write(&again, 5, 0).await, "5", "a later generation is newer");
    assert_eq!(write(&partition(4), 6, i64::MAX - 1).await, "5");
}

#[tokio::test]
async fn a_redriven_record_is_where_it_was() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let of = [("ann", Some(1), None, 5), ("bob", Some(2), None, 6)];
    write(&*sink, &start, &of).await.unwrap();
    // Letters of offsets 4 and 7, which were refused.
    let selection = TopicPartition::new("transaction", FIRST_REDRIVE + 1, 0);
    let from = sink.create_fence(&selection, Fence::starting_at(4)).await.unwrap();
    let letters = [("ann", Some(10), None, 4), ("bob", Some(20), None, 7)];
    sink.write(&selection, &from, &moved(&from, 8), &[rows(&letters)]).await.unwrap();
    assert_eq!(database.hash("balance:{ann}").await["amount"], "1");
    let bob = database.hash("balance:{bob}").await;
    assert_eq!((bob["amount"].as_str(), bob["_generation"].as_str()), ("20", "1"));
}

#[tokio::test]
async fn what_cannot_be_stored_is_poison_and_changes_nothing() {
    let database = Database::create().await;
    let mut table = balances();
    table.columns[0].nullable = true;
    let sink = database.sink(&table);
    let start = ready(&*sink).await;
    let written =
        write(&*sink, &start, &[("ann", None, None, 0), ("bob", None, None, 1), ("ann", None, None, 1)]).await;
    match written {
        Err(Error::Poison(why)) => {
            assert!(why.to_string().contains("gives two rows for one event; put the unnest"), "{why}")
        }
        other => panic!("{other:?}"),
    }
    let null = rows(&[("ann", None, None, 0)]);
    let mut columns = null.columns().to_vec();
    columns[0] = arrow::array::new_null_array(columns[0].data_type(), 1);
    let null = arrow::array::RecordBatch::try_new(table.schema(), columns).unwrap();
    let written = sink.write(&partition(0), &start, &moved(&start, 1), &[null]).await;
    assert!(matches!(written, Err(Error::Poison(_))), "{written:?}");
    assert_eq!(held(&*sink).await.len(), 0);
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(start));
}

#[tokio::test]
async fn entities_may_be_called_anything() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let names = ["", "}", "{a}", "a b", "*", "München", "x:{y}:z"];
    let of: Vec<Row<'_>> = names.iter().zip(0..).map(|(name, offset)| (*name, Some(offset), None, offset)).collect();
    write(&*sink, &start, &of).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&of));
    assert_eq!(database.hash("balance:{x:{y}:z}").await["amount"], "6");
}

/// A process that has written rows and died, or whose answer was lost, before its fence moved.
#[tokio::test]
async fn what_is_written_again_is_the_same() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let of =
        [("ann", Some(1), None, 0), ("bob", Some(2), None, 1), ("ann", Some(3), None, 2), ("cid", Some(4), None, 3)];
    write(&*sink, &start, &of).await.unwrap();
    set_back(&database, &start).await;
    assert_eq!(held(&*sink).await, Vec::<Vec<String>>::new(), "nothing is there yet, by the fence");
    let two = write(&*sink, &start, &of[..2]).await.unwrap();
    assert_eq!(database.hash("balance:{ann}").await["amount"], "3", "a row ahead of the fence is not set back");
    write(&*sink, &two, &of[2..]).await.unwrap();
    assert_eq!(held(&*sink).await, texts(&of[1..]));
}

/// A process of the plan before that had looked at its fence when the new term began.
#[tokio::test]
async fn rows_of_an_ended_term_do_not_stay() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    sink.begin_term(2);
    let zombie = [
        "balance:{ann}",
        "account",
        "ann",
        "amount",
        "99",
        "note",
        "old plan",
        "_topic",
        "transaction",
        "_generation",
        "1",
        "_partition",
        "0",
        "_offset",
        "1",
        "_term",
        "1",
    ];
    database.ask::<i64>("HSET", &zombie).await;
    let one = write(&*sink, &start, &[("ann", Some(1), None, 0)]).await.unwrap();
    assert_eq!(database.hash("balance:{ann}").await["amount"], "99", "it is newer");
    write(&*sink, &one, &[("ann", Some(2), None, 1)]).await.unwrap();
    let ann = database.hash("balance:{ann}").await;
    assert_eq!((ann["amount"].as_str(), ann.contains_key("note")), ("2", false), "and is replaced at its position");
}

/// Two writers with other ends of their batches, one of which dies between its rows and its fence every now and then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_schedule_of_two_writers_gives_the_newest_rows() {
    const END: i64 = 120;
    let database = Database::create().await;
    let drive = async |seed: u64| {
        let (sink, mut random) = (database.sink(&balances()), seed);
        let mut dice = move |sides: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (random >> 33) % sides
        };
        loop {
            let fence = sink.fence(&partition(0)).await.unwrap().unwrap();
            if fence.next_offset >= END {
                break;
            }
            let end = (fence.next_offset + 1 + dice(9) as i64).min(END);
            let names: Vec<_> =
                (fence.next_offset..end).map(|offset| (format!("a{}", offset * offset % 7), offset)).collect();
            let of: Vec<Row<'_>> = names.iter().map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect();
            if dice(6) == 0 {
                // It dies in the middle.
                let life = Duration::from_micros(200 * dice(8));
                let _ = tokio::time::timeout(life, write(&*sink, &fence, &of)).await;
                continue;
            }
            match write(&*sink, &fence, &of).await {
                Ok(_) | Err(Error::Fenced { .. }) => {}
                Err(error) => panic!("{error}"),
            }
        }
    };
    for seed in 0..6 {
        database.ask::<()>("FLUSHDB", &[]).await;
        ready(&*database.sink(&balances())).await;
        tokio::join!(drive(seed), drive(seed + 100));
        let newest: BTreeMap<_, _> = (0..END).map(|offset| (format!("a{}", offset * offset % 7), offset)).collect();
        let of: Vec<Row<'_>> = newest.iter().map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect();
        assert_eq!(held(&*database.sink(&balances())).await, texts(&of), "seed {seed}");
    }
}

/// The fence of partition 0 as it was before a write.
pub async fn set_back(database: &Database, fence: &Fence) {
    let text = serde_json::to_string(fence).unwrap();
    let key = "millstream:{test.function}:transaction/1/0";
    database.ask::<i64>("HSET", &[key, "next_offset", &fence.next_offset.to_string(), "fence", &text]).await;
}

#[tokio::test]
async fn a_key_of_another_program_stops() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    database.ask::<()>("SET", &["balance:{ann}", "hunter2"]).await;
    let error = write(&*sink, &start, &[("ann", None, None, 0)]).await.unwrap_err();
    assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("table balance"), "{error}");
    assert!(!error.to_string().contains("ann") && !error.to_string().contains("hunter2"), "{error}");
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(start));
}
