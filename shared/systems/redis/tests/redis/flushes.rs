//! A store that is emptied, or that forgets its scripts, while functions write to it.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use millstream_core::{Claim, Error, Fence, Owner, Rows, Sink, Table};

use crate::{
    server::Server,
    support::{Row, alerts, balances, held, moved, partition, ready, rows, texts, write},
};

const END: i64 = 400;

/// The row of an offset.
fn name(offset: i64) -> String {
    format!("a{}", offset * offset % 11)
}

async fn write_some(sink: &dyn Sink, fence: &Fence, end: i64) -> millstream_core::Result<()> {
    let names: Vec<_> = (fence.next_offset..end).map(|offset| (name(offset), offset)).collect();
    let of: Vec<Row<'_>> = names.iter().map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect();
    sink.write(&partition(0), fence, &moved(fence, end), &[rows(&of)]).await
}

/// What a runner does with `start: earliest`, until all is written and `is_over`.
async fn run(sink: &dyn Sink, is_over: &AtomicBool) {
    loop {
        let over = is_over.load(Ordering::SeqCst);
        let step = async {
            let fence = match sink.fence(&partition(0)).await? {
                Some(fence) => fence,
                None => sink.create_fence(&partition(0), Fence::starting_at(0)).await?,
            };
            if fence.next_offset == END {
                return Ok(true);
            }
            write_some(sink, &fence, (fence.next_offset + 7).min(END)).await.map(|()| false)
        };
        match step.await {
            Ok(true) if over => return,
            Ok(true) => tokio::time::sleep(Duration::from_millis(1)).await,
            Ok(false) | Err(Error::Fenced { .. }) => {}
            Err(error) if error.is_retry() => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// All rows, or the newest of each entity.
fn expected(table: &Table) -> Vec<Vec<String>> {
    let names: Vec<_> = (0..END).map(|offset| (name(offset), offset)).collect();
    let newest: BTreeMap<_, _> = names.iter().map(|(name, offset)| (name, offset)).collect();
    let of = names.iter().filter(|(name, offset)| table.entity().is_none() || newest[name] == offset);
    texts(&of.map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect::<Vec<Row<'_>>>())
}

async fn is_filled_again(table: Table) {
    let server = Server::start(&[]).await;
    let database = server.database();
    let sinks = [database.sink(&table), database.sink(&table)];
    ready(&*sinks[0]).await;
    let is_over = AtomicBool::new(false);
    let breaks = async {
        for round in 0..60_u64 {
            tokio::time::sleep(Duration::from_micros(700 * (round % 13))).await;
            match round % 3 {
                0 => database.ask::<()>("SCRIPT", &["FLUSH"]).await,
                1 => database.ask::<()>("FLUSHALL", &["SYNC"]).await,
                _ => database.ask::<()>("FLUSHALL", &["ASYNC"]).await,
            }
        }
        is_over.store(true, Ordering::SeqCst);
    };
    let runs = async { tokio::join!(run(&*sinks[0], &is_over), run(&*sinks[1], &is_over), breaks) };
    tokio::time::timeout(Duration::from_secs(60), runs).await.expect("all is written in the end");
    let (found, expected) = (held(&*database.sink(&table)).await, expected(&table));
    let lacks: Vec<_> = expected.iter().filter(|row| !found.contains(row)).collect();
    assert_eq!((found.len(), lacks), (expected.len(), vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_entities_is_filled_again_after_any_flush() {
    is_filled_again(balances()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_filled_again_after_any_flush() {
    is_filled_again(alerts()).await;
}

#[tokio::test]
async fn after_a_flush_nothing_is_written_before_the_fence_is_created() {
    for table in [balances(), alerts()] {
        let server = Server::start(&[]).await;
        let database = server.database();
        let sink = database.sink(&table);
        let owner = Owner { function: "test.function".into(), fingerprint: "f".into(), declaration: "d".into() };
        sink.prepare(true).await.unwrap();
        let record = sink.claim(&owner, &Claim::First).await.unwrap().unwrap();
        sink.begin_term(record.term);
        let start = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
        let one = write(&*sink, &start, &[("ann", Some(1), None, 0)]).await.unwrap();
        database.ask::<()>("FLUSHALL", &[]).await;

        let next = [("ann", Some(2), None, 1)];
        let written = write(&*sink, &one, &next).await;
        assert!(matches!(written, Err(Error::Fenced { current: None })), "{written:?}");
        assert_eq!(sink.fence(&partition(0)).await.unwrap(), None);
        assert_eq!(database.ask::<i64>("DBSIZE", &[]).await, 0);
        let fresh = database.sink(&table);
        let holding = fresh.holding().await.unwrap();
        assert_eq!(
            (holding.record, holding.others, holding.fences, holding.rows),
            (None, vec![], vec![], Rows::Missing)
        );

        // `latest`: it goes on at the end. The owner and the columns are there again too, for the next start.
        let fence = sink.create_fence(&partition(0), Fence::starting_at(1)).await.unwrap();
        write(&*sink, &fence, &next).await.unwrap();
        assert_eq!(held(&*sink).await, texts(&next));
        let holding = fresh.holding().await.unwrap();
        assert_eq!((holding.record, holding.fences.len(), holding.rows), (Some(record), 1, Rows::Present));
        fresh.prepare(false).await.unwrap();
    }
}

/// The store is emptied in the middle of a write, and the fence is where it was when the write ends: with none of its first rows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_was_created_again_is_another_one() {
    let server = Server::start(&[]).await;
    let database = server.database();
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    let writes = tokio::spawn(async move {
        let names: Vec<_> = (0..3_000).map(|offset| (format!("a{offset}"), offset)).collect();
        let of: Vec<Row<'_>> = names.iter().map(|(name, offset)| (&**name, Some(*offset), None, *offset)).collect();
        write(&*sink, &start, &of).await
    });
    let mut connection = database.connect().await;
    while redis::cmd("DBSIZE").query_async::<i64>(&mut connection).await.unwrap() < 100 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    database.ask::<()>("FLUSHALL", &[]).await;
    let other = database.sink(&balances());
    let created = other.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let written = writes.await.unwrap();
    assert!(matches!(written, Err(Error::Fenced { .. })), "{written:?}");
    assert_eq!(other.fence(&partition(0)).await.unwrap(), Some(created));
}
