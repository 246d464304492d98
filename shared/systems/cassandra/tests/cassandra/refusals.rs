//! What the services refuse, as their stand-ins do: one test for each refusal. That the sink gets along with it is what the
//! suites in `conformance` show.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millstream_cassandra::{Cassandra, Does, Gate, Statement, Verdict};
use millstream_core::{Error, Fence, TableStore as _};
use scylla::{errors::DbError, statement::Consistency, value::CqlValue};

use crate::{
    stand_in::{Cosmos, Keyspaces, Service},
    support::{FUNCTION, Keyspace, logins, partition, rows, wait_for_my_turn, write},
};

/// Does the stand-in refuse it?
fn refuses(
    gate: &dyn Gate,
    cql: &str,
    values: &[Option<CqlValue>],
    does: Does,
    consistency: Consistency,
) -> Option<String> {
    match gate.judge(&Statement { cql, values, does, consistency }) {
        Verdict::Refuse(_, message) => Some(message),
        _ => None,
    }
}

#[test]
fn keyspaces_takes_no_writetimes_that_are_positions() {
    let cql = "INSERT INTO t (a) VALUES (?) USING TIMESTAMP ?";
    let at = |writetime| {
        let values = [Some(CqlValue::Int(1)), Some(CqlValue::BigInt(writetime))];
        refuses(&Keyspaces::default(), cql, &values, Does::Write, Consistency::LocalQuorum).unwrap()
    };
    assert!(at(1 << 50).contains("2 days in the past"));
    assert!(at(i64::MAX).contains("5 minutes in the future"));
}

#[test]
fn neither_service_takes_quorum_or_serial_reads() {
    let keyspaces = |does, consistency| refuses(&Keyspaces::default(), "SELECT 1", &[], does, consistency).is_some();
    assert!(keyspaces(Does::Read, Consistency::Quorum) && keyspaces(Does::ReadSwapped, Consistency::LocalSerial));
    assert!(keyspaces(Does::Write, Consistency::LocalOne) && keyspaces(Does::Write, Consistency::Quorum));
    assert!(!keyspaces(Does::Read, Consistency::LocalQuorum));
    assert!(refuses(&Cosmos, "SELECT 1", &[], Does::ReadSwapped, Consistency::LocalSerial).is_some());
}

#[test]
fn a_batch_has_at_most_thirty_rows_on_keyspaces() {
    let batch = |rows| format!("BEGIN UNLOGGED BATCH {} APPLY BATCH", "INSERT INTO t (a) VALUES (1);".repeat(rows));
    let refused =
        |rows| refuses(&Keyspaces::default(), &batch(rows), &[], Does::Write, Consistency::LocalQuorum).is_some();
    assert!(!refused(30) && refused(31));
}

#[test]
fn keyspaces_knows_few_conditions() {
    let refused = |condition: &str| {
        let cql = format!("UPDATE t SET a = 1 WHERE b = 2 IF {condition}");
        refuses(&Keyspaces::default(), &cql, &[], Does::Swap, Consistency::LocalQuorum).is_some()
    };
    assert!(refused("c CONTAINS 3") && !refused("c < 3") && !refused("c = 3 AND d = 4"));
}

/// A store of one profile behind the stand-in of another service.
async fn misconfigured(profile: Service, gate: Arc<dyn Gate>) -> (Keyspace, Cassandra) {
    let keyspace = Keyspace::create(profile).await;
    let store = keyspace.store_behind(gate);
    (keyspace, store)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wrong_profile_stops_with_what_the_service_says() {
    let _turn = wait_for_my_turn().await;
    let (keyspace, store) = misconfigured(Service::Cassandra, Arc::new(Cosmos)).await;
    let stopped = store.sink(FUNCTION, logins()).unwrap().prepare(true).await.unwrap_err();
    assert!(matches!(&stopped, Error::Stop(_)) && stopped.to_string().contains("timestamps by cell"), "{stopped}");
    keyspace.drop().await;
    // On Keyspaces, Cassandra's profile reads fences as Keyspaces can't.
    let (keyspace, store) = misconfigured(Service::Cassandra, Arc::new(Keyspaces::default())).await;
    let sink = store.sink(FUNCTION, logins()).unwrap();
    sink.prepare(true).await.unwrap();
    let stopped = sink.fence(&partition(0)).await.unwrap_err();
    assert!(matches!(&stopped, Error::Stop(_)) && stopped.to_string().contains("Consistency level"), "{stopped}");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_of_keyspaces_is_waited_for() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Keyspaces).await;
    let gate = Arc::new(Keyspaces::default());
    let store = keyspace.store_behind(Arc::clone(&gate) as Arc<dyn Gate>);
    store.sink(FUNCTION, logins()).unwrap().prepare(true).await.unwrap();
    let asked = gate.asked();
    let mut tables: Vec<_> = asked.keys().map(String::as_str).collect();
    tables.sort_unstable();
    assert_eq!(tables, ["logins", "logins_newest", "millstream_fences", "millstream_owners"]);
    assert!(asked.values().all(|times| *times == 2), "{asked:?}");
    keyspace.drop().await;
}

/// Cosmos over its provisioned throughput: every so many statements one is refused.
struct Throttles {
    every: usize,
    seen: AtomicUsize,
}

impl Gate for Throttles {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        if statement.does != Does::Define && self.seen.fetch_add(1, Ordering::SeqCst) % self.every == self.every - 1 {
            let message =
                "Request rate is large: ActivityID=4b, RetryAfterMs=7, Additional details='Response status code 429'";
            return Verdict::Refuse(DbError::Overloaded, message.to_owned());
        }
        Cosmos.judge(statement)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttled_write_says_when_to_come_again_and_is_made_in_the_end() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cosmos).await;
    keyspace.sink(&logins()).prepare(true).await.unwrap();
    let gate = Arc::new(Throttles { every: 11, seen: AtomicUsize::new(0) });
    let sink = keyspace.store_behind(gate).sink(FUNCTION, logins()).unwrap();
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let (mut throttled, mut written) = (0, 0);
    for _ in 0..200 {
        let at = fence.next_offset;
        let to = Fence { next_offset: at + 2, ..fence.clone() };
        match sink.write(&partition(0), &fence, &to, &[rows(&[("ann", None, at, 1), ("bo", None, at + 1, 1)])]).await {
            Ok(()) => written += 1,
            Err(error) => {
                assert_eq!(error.retry_after(), Some(Duration::from_millis(7)), "{error}");
                throttled += 1;
                continue;
            }
        }
        fence = to;
        if written == 20 {
            break;
        }
    }
    assert!(written == 20 && throttled > 3, "{written} written, {throttled} throttled");
    let held = keyspace.sink(&logins()).snapshot().await.unwrap();
    assert_eq!(held.rows.iter().map(|rows| rows.num_rows()).sum::<usize>(), 40);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_larger_than_the_service_takes_is_poison() {
    let _turn = wait_for_my_turn().await;
    for (service, bytes) in [(Service::Keyspaces, 1_000_000), (Service::Cosmos, 2_000_000)] {
        let keyspace = Keyspace::create(service).await;
        let sink = keyspace.sink(&logins());
        sink.prepare(true).await.unwrap();
        let fence = write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", Some(&"x".repeat(100_000)), 0, 1)])).await;
        let to = Fence { next_offset: 2, ..fence.clone() };
        let long = "x".repeat(bytes);
        let refused = sink.write(&partition(0), &fence, &to, &[rows(&[("bo", Some(&long), 1, 1)])]).await;
        assert!(matches!(refused, Err(Error::Poison(_))), "{refused:?}");
        keyspace.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_that_is_longer_than_a_key_of_the_service_is_poison_before_anything_is_written() {
    let _turn = wait_for_my_turn().await;
    for service in [Service::Keyspaces, Service::Cosmos] {
        let keyspace = Keyspace::create(service).await;
        let sink = keyspace.sink(&logins());
        sink.prepare(true).await.unwrap();
        let fence = write(sink.as_ref(), &partition(0), 0, 1, rows(&[(&"x".repeat(2_048), None, 0, 1)])).await;
        let to = Fence { next_offset: 3, ..fence.clone() };
        let batch = rows(&[("ann", None, 1, 1), (&"x".repeat(2_049), None, 2, 1)]);
        let refused = sink.write(&partition(0), &fence, &to, &[batch]).await;
        assert!(matches!(refused, Err(Error::Poison(_))), "{refused:?}");
        assert_eq!(keyspace.query("SELECT \"_offset\" FROM $.logins").await.len(), 1);
        keyspace.drop().await;
    }
}

#[test]
fn the_services_have_short_keys() {
    let refused = |gate: &dyn Gate, cql: &str, does| {
        let values = [Some(CqlValue::Text("x".repeat(2_049))), Some(CqlValue::Int(1))];
        refuses(gate, cql, &values, does, Consistency::LocalQuorum).is_some_and(|said| said.contains("2048 bytes"))
    };
    for gate in [&Cosmos as &dyn Gate, &Keyspaces::default()] {
        assert!(refused(gate, "INSERT INTO t (a, b) VALUES (?, ?)", Does::Write));
        assert!(refused(gate, "UPDATE t SET b = 1 WHERE a = ? IF b < ?", Does::Swap));
        assert!(!refused(gate, "UPDATE t SET b = ? WHERE a = ?", Does::Swap));
    }
}
