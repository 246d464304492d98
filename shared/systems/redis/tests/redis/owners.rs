//! What of owners and adoptions is Redis' alone.

use arrow::datatypes::DataType;
use millstream_core::{Claim, Column, Error, Fence, Owner, Role, TableStore as _, meta};
use millstream_redis::Redis;
use millstream_testkit::adopt;

use crate::support::{Database, balances, held, partition, ready, texts, write};

const OF: [(&str, Option<i64>, Option<&str>, i64); 2] = [("ann", Some(1), None, 0), ("bob", Some(2), None, 1)];

#[tokio::test]
async fn a_table_gets_new_columns_by_adoption_alone() {
    let database = Database::create().await;
    let sink = database.sink(&balances());
    let start = ready(&*sink).await;
    write(&*sink, &start, &OF).await.unwrap();
    let mut wider = balances();
    wider.columns.push(Column { name: "city".into(), data_type: DataType::Utf8, nullable: true, role: Role::Value });
    let new = database.sink(&wider);
    assert!(matches!(new.prepare(true).await, Err(Error::Stop(_))));
    assert_eq!(new.misfits().await.unwrap(), [""; 0]);
    adopt(&*new, "test.function").await.unwrap();
    new.prepare(false).await.unwrap();
    assert_eq!(held(&*new).await.len(), 2);
    assert!(matches!(sink.prepare(true).await, Err(Error::Stop(_))));
    let mut other = balances();
    other.columns[0].role = Role::Value;
    let misfits = database.sink(&other).misfits().await.unwrap();
    assert!(misfits[0].contains("account is string not null entity"), "{misfits:?}");
}

/// It has copied the fences, and died before it has made the claim.
#[tokio::test]
async fn a_rename_that_ended_in_the_middle_is_made_again() {
    let database = Database::create().await;
    let old = database.sink(&balances());
    ready(&*old).await;
    let of = |function: &str| Owner { function: function.into(), fingerprint: "f".into(), declaration: "d".into() };
    let record = old.claim(&of("test.function"), &Claim::First).await.unwrap().unwrap();
    old.begin_term(record.term);
    let one = write(&*old, &Fence::starting_at(0), &OF[..1]).await.unwrap();
    let (fence, function) = ("millstream:{test.renamed}:transaction/1/0", "millstream:{test.renamed}:function");
    let text = serde_json::to_string(&Fence::starting_at(0)).unwrap();
    database.ask::<i64>("HSET", &[fence, "next_offset", "0", "fence", &text, "from", "test.function"]).await;
    database.ask::<i64>("HSET", &[function, "at:transaction/1/0", ""]).await;

    let new = Redis::at(&database.url).unwrap().sink("test.renamed", balances()).unwrap();
    let claimed = new.claim(&of("test.renamed"), &Claim::Adopt(Some(record))).await.unwrap().unwrap();
    new.begin_term(claimed.term);
    assert_eq!(new.fence(&partition(0)).await.unwrap(), Some(one.clone()));
    let ended = write(&*old, &one, &OF[1..]).await;
    assert!(matches!(ended, Err(Error::Fenced { current: None })), "{ended:?}");
    let created = old.create_fence(&partition(0), Fence::starting_at(0)).await;
    assert!(matches!(created, Err(Error::Stop(_))), "{created:?}");
    write(&*new, &one, &OF[1..]).await.unwrap();
    assert_eq!(held(&*new).await, texts(&OF));
}

#[test]
fn what_a_cache_cannot_hold_is_refused() {
    let store = Redis::at("redis://127.0.0.1:1").unwrap();
    let refused = |change: fn(&mut millstream_core::Table)| {
        let mut table = balances();
        change(&mut table);
        match store.sink("test.function", table) {
            Err(error @ Error::Stop(_)) => error.to_string(),
            other => panic!("{:?}", other.map(drop)),
        }
    };
    assert!(refused(|table| table.columns[0].role = Role::Key).contains("aggregates"));
    assert!(refused(|table| table.columns[1].role = Role::Entity).contains("several columns"));
    assert!(refused(|table| table.columns[1].data_type = DataType::Null).contains("amount"));
    assert!(refused(|table| table.columns[1].name = "_term".into()).contains("_term"));
    assert!(refused(|table| table.name = "millstream".into()).contains("millstream:"));
    assert!(refused(|table| table.columns.retain(|column| column.name != meta::OFFSET)).contains("_offset"));
    assert!(store.how_to_reset("test.function", "balance").contains("balance:{*}"));
}

#[tokio::test]
async fn a_process_of_an_ended_term_writes_no_row() {
    let database = Database::create().await;
    let old = database.sink(&balances());
    let start = ready(&*old).await;
    adopt(&*database.sink(&balances()), "test.function").await.unwrap();
    let written = write(&*old, &start, &OF).await;
    assert!(matches!(written, Err(Error::Stop(_))), "{written:?}");
    assert_eq!(database.ask::<i64>("EXISTS", &["balance:{ann}", "balance:{bob}"]).await, 0);
}
