//! The cache-aside reader, with a loader that counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use millstream_core::{Error, ManualClock, Result};
use millstream_redis::{Fields, Reader, ReaderSettings, Redis};

use crate::{
    server::Server,
    support::{Database, balances, ready, write},
};

/// A slower place that has every entity but `nobody`.
#[derive(Default)]
struct Place {
    loads: AtomicUsize,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

impl Place {
    async fn load(&self, entity: &str) -> Result<Option<Fields>> {
        self.loads.fetch_add(1, Ordering::SeqCst);
        let at_once = 1 + self.at_once.fetch_add(1, Ordering::SeqCst);
        self.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(20)).await;
        self.at_once.fetch_sub(1, Ordering::SeqCst);
        match entity {
            "nobody" => Ok(None),
            "broken" => Err(Error::stop("the place is broken")),
            _ => Ok(Some(fields(&[("account", entity), ("amount", "7")]))),
        }
    }

    fn loads(&self) -> usize {
        self.loads.load(Ordering::SeqCst)
    }
}

fn fields(of: &[(&str, &str)]) -> Fields {
    of.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
}

/// Half of the times that are left to chance are gone.
fn settings(clock: &Arc<ManualClock>) -> ReaderSettings {
    let settings = ReaderSettings::new(clock.clone(), Arc::new(|| 0.5));
    // The machine of a test may be slow.
    ReaderSettings { patience: Duration::from_secs(5), ..settings }
}

fn reader(database: &Database, settings: ReaderSettings) -> Reader {
    Redis::at(&database.url).unwrap().reader("balance", settings)
}

async fn get(reader: &Reader, place: &Place, entity: &str) -> Result<Option<Fields>> {
    Ok(reader.get(entity.as_bytes(), || place.load(entity)).await?.map(|row| (*row).clone()))
}

#[tokio::test]
async fn a_row_is_loaded_once_and_kept_for_a_while() {
    let (database, clock, place) = (Database::create().await, Arc::new(ManualClock::default()), Place::default());
    let reader = reader(&database, settings(&clock));
    let ann = fields(&[("account", "ann"), ("amount", "7")]);
    for _ in 0..3 {
        assert_eq!(get(&reader, &place, "ann").await.unwrap().as_ref(), Some(&ann));
    }
    assert_eq!(place.loads(), 1);
    // 5 min, and half of a fifth less.
    let ttl: i64 = database.ask("PTTL", &["balance:aside:{ann}"]).await;
    assert!((240_000..=270_000).contains(&ttl), "{ttl}");
    for _ in 0..3 {
        assert_eq!(get(&reader, &place, "nobody").await.unwrap(), None);
    }
    assert_eq!(place.loads(), 2, "that there is none is kept too");
    let ttl: i64 = database.ask("PTTL", &["balance:aside:{nobody}"]).await;
    assert!((1..=4_500).contains(&ttl), "{ttl}");
    for _ in 0..2 {
        assert!(matches!(get(&reader, &place, "broken").await, Err(Error::Stop(_))));
    }
    assert_eq!(place.loads(), 4, "an error is not kept");
}

#[tokio::test]
async fn what_the_function_writes_comes_first_and_stays() {
    let (database, clock, place) = (Database::create().await, Arc::new(ManualClock::default()), Place::default());
    let reader = reader(&database, settings(&clock));
    get(&reader, &place, "ann").await.unwrap();
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    write(&*sink, &start, &[("ann", Some(1), None, 0), ("bob", Some(2), None, 1)]).await.unwrap();
    let before = database.hash("balance:{ann}").await;
    for (entity, amount) in [("ann", "1"), ("bob", "2")] {
        assert_eq!(get(&reader, &place, entity).await.unwrap().unwrap()["amount"], amount.as_bytes());
    }
    assert_eq!(place.loads(), 1);
    assert_eq!(database.hash("balance:{ann}").await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_askers_cause_one_load() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::default()));
    let reader = Arc::new(reader(&database, settings(&clock)));
    for entity in ["ann", "broken"] {
        let place = Arc::new(Place::default());
        let ask = |_| {
            let (reader, place) = (reader.clone(), place.clone());
            tokio::spawn(async move { get(&reader, &place, entity).await })
        };
        let asked: Vec<_> = (0..50).map(ask).collect();
        for answer in asked {
            let answer = answer.await.unwrap();
            match entity {
                "ann" => assert_eq!(answer.unwrap().unwrap()["account"], b"ann"),
                _ => assert!(
                    matches!(&answer, Err(Error::Stop(why)) if why.to_string() == "the place is broken"),
                    "{answer:?}"
                ),
            }
        }
        assert!(place.loads() < 5, "{entity}: {} loads for askers of one time", place.loads());
    }
}

/// The one who loads for all goes away.
#[tokio::test]
async fn a_load_that_is_given_up_is_taken_over() {
    let (database, clock) = (Database::create().await, Arc::new(ManualClock::default()));
    let (reader, place) = (Arc::new(reader(&database, settings(&clock))), Arc::new(Place::default()));
    let ask = || {
        let (reader, place) = (reader.clone(), place.clone());
        tokio::spawn(async move { get(&reader, &place, "ann").await })
    };
    let first = ask();
    while place.loads() == 0 {
        tokio::task::yield_now().await;
    }
    let second = ask();
    tokio::task::yield_now().await;
    first.abort();
    assert!(second.await.unwrap().unwrap().is_some());
    assert_eq!(get(&reader, &place, "ann").await.unwrap().unwrap()["account"], b"ann");
    assert_eq!(place.loads(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_redis_is_away_rows_are_loaded_but_not_too_many_at_once() {
    let mut server = Server::start(&[]).await;
    let clock = Arc::new(ManualClock::default());
    let settings = ReaderSettings { max_loads: 4, ..settings(&clock) };
    let (reader, place) = (Arc::new(reader(&server.database(), settings)), Arc::new(Place::default()));
    get(&reader, &place, "ann").await.unwrap();
    server.kill();
    let ask = |number: i32| {
        let (reader, place) = (reader.clone(), place.clone());
        tokio::spawn(async move { get(&reader, &place, &format!("a{number}")).await })
    };
    let asked: Vec<_> = (0..30).map(ask).collect();
    for answer in asked {
        assert!(answer.await.unwrap().unwrap().is_some());
    }
    assert_eq!((place.loads(), place.most_at_once.load(Ordering::SeqCst) <= 4), (31, true));
    server.start_again().await;
    get(&reader, &place, "ann").await.unwrap();
    assert_eq!(place.loads(), 32, "for a second it isn't asked");
    clock.advance_us(1_000_000);
    for _ in 0..100 {
        // The connection may not be there again at once.
        clock.advance_us(1_000_000);
        let before = place.loads();
        get(&reader, &place, "ann").await.unwrap();
        if place.loads() == before {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("redis is never asked again");
}
