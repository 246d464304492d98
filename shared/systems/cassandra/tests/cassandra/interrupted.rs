//! Processes that die in the middle, answers that are lost, and a server that comes back.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    time::Duration,
};

use millstream_cassandra::{Does, Gate, Statement, Verdict};
use millstream_core::{Claim, Error, Fence, Owner, TableStore as _};
use millstream_testkit::rows::texts;
use scylla::{
    errors::{DbError, WriteType},
    statement::Consistency,
};

use crate::{
    stand_in::Service,
    support::{FUNCTION, Keyspace, logins, partition, rows, wait_for_my_turn, write},
};

/// Nothing gets through any more that begins with this.
pub struct DiesAt(pub &'static str);

impl Gate for DiesAt {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        if statement.cql.starts_with(self.0) {
            Verdict::Refuse(DbError::ServerError, "(injected)".into())
        } else {
            Verdict::Send
        }
    }
}

/// The process dies at its n-th writing statement: that one and all after it are lost.
struct DiesAfter(AtomicUsize);

impl DiesAfter {
    fn new(writes: usize) -> Arc<Self> {
        Arc::new(Self(AtomicUsize::new(writes)))
    }
}

impl Gate for DiesAfter {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        if !matches!(statement.does, Does::Write | Does::Swap) {
            return Verdict::Send;
        }
        let left = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if left.is_ok() { Verdict::Send } else { Verdict::Refuse(DbError::ServerError, "dead (injected)".into()) }
    }
}

fn owner(function: &str, plan: &str) -> Owner {
    Owner { function: function.into(), fingerprint: plan.into(), declaration: "{}".into() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_dies_at_any_statement_leaves_what_the_next_one_writes() {
    let _turn = wait_for_my_turn().await;
    for service in [Service::Cassandra, Service::Keyspaces] {
        let keyspace = Keyspace::create(service).await;
        let sink = keyspace.sink(&logins());
        sink.prepare(true).await.unwrap();
        let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
        let mut expected = Vec::new();
        // Three rows, three newest rows (two statements each for Keyspaces), and the fence.
        for writes in 0..10 {
            let at = fence.next_offset;
            let batch = rows(&[("ann", Some("a"), at, at), ("bo", None, at + 1, at), ("cy", Some("c"), at + 2, at)]);
            let to = Fence { next_offset: at + 3, ..fence.clone() };
            let store = keyspace.store_behind(Arc::clone(&DiesAfter::new(writes)) as Arc<dyn Gate>);
            let dying = store.sink(FUNCTION, logins()).unwrap();
            let died = dying.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await;
            assert!(died.is_ok() || died.as_ref().is_err_and(Error::is_retry), "{died:?}");
            let now = sink.fence(&partition(0)).await.unwrap().unwrap();
            assert_eq!(now == to, died.is_ok(), "{writes}: {died:?}");
            assert_eq!(
                texts(&sink.snapshot().await.unwrap().rows).len(),
                expected.len() + if died.is_ok() { 3 } else { 0 }
            );
            if died.is_err() {
                sink.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await.unwrap();
            }
            expected.extend(texts(&[batch]));
            expected.sort();
            assert_eq!(texts(&sink.snapshot().await.unwrap().rows), expected);
            fence = to;
        }
        let newest = keyspace.query("SELECT \"user\" FROM $.logins_newest").await;
        assert_eq!(newest.len(), 3);
        keyspace.drop().await;
    }
}

/// Sends the first statement that moves a fence, and loses the answer.
#[derive(Default)]
struct LosesTheAnswer(AtomicUsize);

impl Gate for LosesTheAnswer {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        if statement.cql.starts_with("UPDATE") && self.0.fetch_add(1, Ordering::SeqCst) == 0 {
            let error = DbError::WriteTimeout {
                consistency: Consistency::LocalSerial,
                received: 1,
                required: 2,
                write_type: WriteType::Cas,
            };
            return Verdict::Refuse(error, "CAS operation timed out".into());
        }
        Verdict::Send
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compare_and_swap_whose_time_is_up_is_retried() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let store = keyspace.store_behind(Arc::new(LosesTheAnswer::default()));
    let sink = store.sink(FUNCTION, logins()).unwrap();
    sink.prepare(true).await.unwrap();
    let from = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let to = Fence { next_offset: 1, ..from.clone() };
    let batch = rows(&[("ann", None, 0, 1)]);
    let lost = sink.write(&partition(0), &from, &to, std::slice::from_ref(&batch)).await.unwrap_err();
    assert!(matches!(&lost, Error::Retry(_)) && lost.to_string().contains("outcome is unknown"), "{lost}");
    sink.write(&partition(0), &from, &to, std::slice::from_ref(&batch)).await.unwrap();
    let again = sink.write(&partition(0), &from, &to, &[batch]).await;
    assert!(matches!(again, Err(Error::Fenced { current: Some(1) })), "{again:?}");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_is_interrupted_anywhere_goes_on() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let mut settled = 0;
    // The record, and for each of three fences: its term, its copy, its removal; and the end.
    for swaps in 0..12 {
        let (before, after) = (format!("bank.before{swaps}"), format!("bank.after{swaps}"));
        let table = millstream_core::Table { name: format!("logins{swaps}"), ..logins() };
        let store = keyspace.store();
        let old = store.sink(&before, table.clone()).unwrap();
        old.prepare(true).await.unwrap();
        let record = old.claim(&owner(&before, "1"), &Claim::First).await.unwrap().unwrap();
        old.begin_term(record.term);
        old.begin_topic("login", 1, 2).await.unwrap();
        for number in 0..2 {
            write(old.as_ref(), &partition(number), 0, 5, rows(&[("ann", None, 3, 1)])).await;
        }
        let dying = keyspace.store_behind(DiesAfter::new(swaps)).sink(&after, table.clone()).unwrap();
        let died = dying.adopt(&owner(&after, "2"), Some(&record)).await;
        let new = keyspace.store().sink(&after, table).unwrap();
        let holding = new.holding().await.unwrap();
        let adopted = holding.record.unwrap();
        if adopted.owner.function == before {
            assert_eq!((swaps, adopted), (0, record), "nothing has happened");
            assert!(died.is_err());
            continue;
        }
        assert_eq!(holding.fences.len(), 2, "{swaps}: no fence is ever missing");
        new.begin_term(adopted.term);
        new.settle(&partition(0)).await.unwrap();
        settled += usize::from(died.is_err());
        for number in 0..2 {
            let fence = new.fence(&partition(number)).await.unwrap().unwrap();
            assert_eq!(fence.next_offset, 5);
            assert_eq!(old.fence(&partition(number)).await.unwrap(), None);
            let to = Fence { next_offset: 6, ..fence.clone() };
            let late = old.write(&partition(number), &fence, &to, &[]).await;
            assert!(matches!(late, Err(Error::Fenced { current: None })), "{late:?}");
            new.write(&partition(number), &fence, &to, &[rows(&[("bo", None, 5, 1)])]).await.unwrap();
        }
        assert_eq!(new.begin_topic("login", 1, 9).await.unwrap(), 2);
        assert_eq!(texts(&new.snapshot().await.unwrap().rows).len(), 4);
    }
    assert!(settled >= 9, "{settled} were interrupted");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fence_that_a_claim_did_not_come_to_follows_with_its_first_write() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let old = keyspace.sink(&logins());
    old.prepare(true).await.unwrap();
    let record = old.claim(&owner(FUNCTION, "1"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(record.term);
    let fence = write(old.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 3, 1)])).await;
    let dying = keyspace.store_behind(DiesAfter::new(1)).sink(FUNCTION, logins()).unwrap();
    assert!(dying.adopt(&owner(FUNCTION, "2"), Some(&record)).await.is_err());
    let new = keyspace.sink(&logins());
    let adopted = new.holding().await.unwrap().record.unwrap();
    assert!(adopted.term > record.term);
    new.begin_term(adopted.term);
    let to = Fence { next_offset: 6, ..fence.clone() };
    let created = old.create_fence(&partition(1), Fence::starting_at(0)).await;
    assert!(matches!(created, Err(Error::Stop(_))), "{created:?}");
    new.write(&partition(0), &fence, &to, &[]).await.unwrap();
    let late = old.write(&partition(0), &to, &Fence { next_offset: 7, ..to.clone() }, &[]).await;
    assert!(matches!(late, Err(Error::Stop(_))), "{late:?}");
    keyspace.drop().await;
}

/// Waits before its n-th look at a fence.
struct WaitsAtFence {
    looks: AtomicUsize,
    arrived: mpsc::SyncSender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Gate for WaitsAtFence {
    fn judge(&self, statement: &Statement<'_>) -> Verdict {
        let is_look = statement.cql.starts_with("SELECT next_offset");
        if is_look && self.looks.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.arrived.send(()).unwrap();
            tokio::task::block_in_place(|| self.go_on.lock().unwrap().recv_timeout(Duration::from_secs(60))).unwrap();
        }
        Verdict::Send
    }
}

/// A gate that waits, how to wait until it does, and how to let it go on.
fn waits_at_look(number: usize) -> (Arc<WaitsAtFence>, mpsc::Receiver<()>, mpsc::SyncSender<()>) {
    let ((arrived, arrives), (go_on, goes_on)) = (mpsc::sync_channel(1), mpsc::sync_channel(1));
    let gate = WaitsAtFence { looks: AtomicUsize::new(number), arrived, go_on: Mutex::new(goes_on) };
    (Arc::new(gate), arrives, go_on)
}

fn wait_for(arrives: &mpsc::Receiver<()>) {
    tokio::task::block_in_place(|| arrives.recv_timeout(Duration::from_secs(60))).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_term_is_never_lowered() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let first = keyspace.sink(&logins());
    first.prepare(true).await.unwrap();
    let record = first.claim(&owner(FUNCTION, "1"), &Claim::First).await.unwrap().unwrap();
    first.begin_term(record.term);
    let fence = write(first.as_ref(), &partition(0), 0, 5, rows(&[("ann", None, 3, 1)])).await;
    let term = async || {
        let held = keyspace.query("SELECT term FROM $.millstream_fences").await;
        held[0].columns[0].as_ref().unwrap().as_bigint().unwrap()
    };

    // A claim that is overtaken by the next one.
    let (gate, arrives, go_on) = waits_at_look(1);
    let slow = keyspace.store_behind(gate).sink(FUNCTION, logins()).unwrap();
    let overtaken = {
        let (slow, record) = (Arc::clone(&slow), record.clone());
        tokio::spawn(async move { slow.adopt(&owner(FUNCTION, "2"), Some(&record)).await })
    };
    wait_for(&arrives);
    let second = keyspace.sink(&logins());
    let record = second.holding().await.unwrap().record.unwrap();
    let record = second.adopt(&owner(FUNCTION, "3"), Some(&record)).await.unwrap().unwrap();
    assert_eq!(term().await, record.term);
    go_on.send(()).unwrap();
    overtaken.await.unwrap().unwrap();
    assert_eq!(term().await, record.term);

    // A write whose term ends while it makes the fence follow.
    let dying = keyspace.store_behind(DiesAfter::new(1)).sink(FUNCTION, logins()).unwrap();
    assert!(dying.adopt(&owner(FUNCTION, "4"), Some(&record)).await.is_err());
    let record = second.holding().await.unwrap().record.unwrap();
    let (gate, arrives, go_on) = waits_at_look(2);
    let slow = keyspace.store_behind(gate).sink(FUNCTION, logins()).unwrap();
    slow.begin_term(record.term);
    let to = Fence { next_offset: 6, ..fence.clone() };
    let overtaken = tokio::spawn(async move { slow.write(&partition(0), &fence, &to, &[]).await });
    wait_for(&arrives);
    let record = second.adopt(&owner(FUNCTION, "5"), Some(&record)).await.unwrap().unwrap();
    go_on.send(()).unwrap();
    let overtaken = overtaken.await.unwrap();
    assert!(matches!(overtaken, Err(Error::Stop(_))), "{overtaken:?}");
    assert_eq!(term().await, record.term);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_adoption_that_is_interrupted_is_finished_by_the_next_one() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    // The next one is a third function, or the first again. The record is written, and none, one or two of the fences.
    for (swaps, next) in [(1, "c"), (3, "c"), (7, "c"), (1, "a")] {
        let [a, b, c] = ["a", "b", next].map(|name| format!("bank.{name}{swaps}{next}"));
        let table = millstream_core::Table { name: format!("logins{swaps}{next}"), ..logins() };
        let store = keyspace.store();
        let first = store.sink(&a, table.clone()).unwrap();
        first.prepare(true).await.unwrap();
        let record = first.claim(&owner(&a, "1"), &Claim::First).await.unwrap().unwrap();
        first.begin_term(record.term);
        for number in 0..2 {
            write(first.as_ref(), &partition(number), 0, 5, rows(&[("ann", None, 3, 1)])).await;
        }
        let dying = keyspace.store_behind(DiesAfter::new(swaps)).sink(&b, table.clone()).unwrap();
        assert!(dying.adopt(&owner(&b, "2"), Some(&record)).await.is_err());
        let third = store.sink(&c, table).unwrap();
        let record = dying.holding().await.unwrap().record.unwrap();
        let adopted = third.adopt(&owner(&c, "3"), Some(&record)).await.unwrap().unwrap();
        third.begin_term(adopted.term);
        for number in 0..2 {
            let fence = third.fence(&partition(number)).await.unwrap().expect("no fence is forgotten");
            let to = Fence { next_offset: 6, ..fence.clone() };
            third.write(&partition(number), &fence, &to, &[]).await.unwrap();
        }
    }
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_above_a_fence_are_for_the_plan_that_wrote_them() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let sink = keyspace.sink(&logins());
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0], "there is no table yet");
    sink.prepare(true).await.unwrap();
    let record = sink.claim(&owner(FUNCTION, "1"), &Claim::First).await.unwrap().unwrap();
    sink.begin_term(record.term);
    sink.begin_topic("login", 1, 2).await.unwrap();
    write(sink.as_ref(), &partition(1), 0, 5, rows(&[("ann", None, 4, 1)])).await;
    let from = write(sink.as_ref(), &partition(0), 9_990, 9_998, rows(&[("ann", None, 9_997, 1)])).await;
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0]);
    // The row that has come is in the next bucket.
    let to = Fence { next_offset: 10_003, ..from.clone() };
    let batch = rows(&[("bo", None, 10_002, 1)]);
    let dying = keyspace.store_behind(Arc::new(DiesAt("UPDATE"))).sink(FUNCTION, logins()).unwrap();
    dying.begin_term(record.term);
    assert!(dying.write(&partition(0), &from, &to, std::slice::from_ref(&batch)).await.is_err());
    // The next plan may have another name.
    for next in [keyspace.sink(&logins()), keyspace.store().sink("bank.other", logins()).unwrap()] {
        let said = next.unsettled(&owner("bank.other", "2")).await.unwrap();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].contains("the fence is at 9998") && said[0].contains("start the previous plan"), "{said:?}");
        assert_eq!(next.unsettled(&owner(FUNCTION, "1")).await.unwrap(), [""; 0], "it writes them again");
    }
    sink.write(&partition(0), &from, &to, &[batch]).await.unwrap();
    assert_eq!(sink.unsettled(&owner(FUNCTION, "2")).await.unwrap(), [""; 0]);
    keyspace.drop().await;
}
