//! The newest row of each entity.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{DataType, Field, Schema},
};
use millstream_core::{Error, FIRST_REDRIVE, Fence, Owner, Role, TableStore as _, TopicPartition};
use scylla::value::{CqlValue, Row};

use crate::{
    stand_in::Service,
    support::{FUNCTION, Keyspace, logins, partition, rows, wait_for_my_turn, write},
};

/// User, note, partition and offset of all newest rows, by user.
async fn newest(keyspace: &Keyspace) -> Vec<(String, Option<String>, i32, i64)> {
    let found = keyspace.query("SELECT \"user\", note, \"_partition\", \"_offset\" FROM $.logins_newest").await;
    let one = |Row { columns }: Row| {
        let mut columns = columns.into_iter();
        let user = columns.next().unwrap().unwrap().into_string().unwrap();
        let note = columns.next().unwrap().and_then(CqlValue::into_string);
        let partition = columns.next().unwrap().unwrap().as_int().unwrap();
        (user, note, partition, columns.next().unwrap().unwrap().as_bigint().unwrap())
    };
    let mut found: Vec<_> = found.into_iter().map(one).collect();
    found.sort();
    found
}

fn row(user: &str, note: Option<&str>, partition: i32, offset: i64) -> (String, Option<String>, i32, i64) {
    (user.to_owned(), note.map(str::to_owned), partition, offset)
}

async fn the_newest_row_stays(service: Service) {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(service).await;
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    // In no order, two of one user in a write, and a null in the place of a value.
    let first = rows(&[("ann", None, 5, 1), ("ann", Some("old"), 3, 1), ("bo", Some("b"), 4, 1)]);
    let fence = write(sink.as_ref(), &partition(0), 0, 10, first).await;
    assert_eq!(newest(&keyspace).await, [row("ann", None, 0, 5), row("bo", Some("b"), 0, 4)]);
    // A row of another partition at a lower offset is older; one at a higher offset is newer.
    write(sink.as_ref(), &partition(1), 0, 3, rows(&[("ann", Some("older"), 2, 9)])).await;
    let to = Fence { next_offset: 20, ..fence.clone() };
    sink.write(&partition(0), &fence, &to, &[rows(&[("bo", None, 12, 2), ("cy", Some("c"), 11, 2)])]).await.unwrap();
    let expected = [row("ann", None, 0, 5), row("bo", None, 0, 12), row("cy", Some("c"), 0, 11)];
    assert_eq!(newest(&keyspace).await, expected, "a whole row is replaced, with its nulls");
    // The first offset of another generation is newer than any before.
    let again = TopicPartition::new("login", 2, 0);
    write(sink.as_ref(), &again, 0, 1, rows(&[("ann", Some("new"), 0, 3)])).await;
    assert_eq!(newest(&keyspace).await[0], row("ann", Some("new"), 0, 0));
    // Redriven: older than what is there, for it stands at its offset of the topic; and new where nothing is.
    let redriven = TopicPartition::new("login", FIRST_REDRIVE + 1, 0);
    let late = rows(&[("ann", Some("late"), 0, 1), ("di", Some("d"), 7, 1)]);
    write(sink.as_ref(), &redriven, 0, 8, late).await;
    assert_eq!(newest(&keyspace).await[3], row("di", Some("d"), 0, 7));
    write(sink.as_ref(), &again, 0, 9, rows(&[("di", Some("after"), 8, 1)])).await;
    assert_eq!(newest(&keyspace).await[3], row("di", Some("after"), 0, 8));
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_row_stays_on_cassandra() {
    the_newest_row_stays(Service::Cassandra).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_row_stays_like_on_cosmos() {
    the_newest_row_stays(Service::Cosmos).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_row_stays_like_on_keyspaces() {
    the_newest_row_stays(Service::Keyspaces).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_partitions_that_write_one_entity_leave_one_row_and_no_mixture() {
    let _turn = wait_for_my_turn().await;
    for service in [Service::Cassandra, Service::Keyspaces] {
        let keyspace = Keyspace::create(service).await;
        let sink = keyspace.sink(&logins());
        sink.prepare(true).await.unwrap();
        // Of one offset, the higher partition counts, for both orders of the writes.
        for (offset, order) in [(1, [0, 1]), (2, [1, 0])] {
            let topic = |number| TopicPartition::new(format!("login{offset}"), 1, number);
            for number in order {
                let note = if number == 0 { None } else { Some("of 1") };
                let time = 9 - i64::from(number);
                write(sink.as_ref(), &topic(number), offset, offset + 1, rows(&[("ann", note, offset, time)])).await;
            }
            assert_eq!(newest(&keyspace).await, [row("ann", Some("of 1"), 1, offset)]);
        }
        keyspace.drop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_comes_with_a_new_table_only() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let mut plain = logins();
    plain.columns[0].role = Role::Value;
    let sink = keyspace.sink(&plain);
    sink.prepare(true).await.unwrap();
    let with_entity = keyspace.sink(&logins());
    assert_eq!(with_entity.misfits().await.unwrap(), [""; 0], "it is empty");
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let misfits = with_entity.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("logins_newest"), "{misfits:?}");
    assert!(with_entity.prepare(true).await.is_err());
    assert!(keyspace.store().how_to_reset(FUNCTION, "logins").contains("logins_newest"));
    keyspace.drop().await;
}

/// It would go stale, lookups would answer from it, and a plan that takes the key up again would go on with it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_is_dropped_together_with_its_newest_rows_only() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;

    let owner = Owner { function: FUNCTION.into(), fingerprint: "2".into(), declaration: "{}".into() };
    let mut plain = logins();
    plain.columns[0].role = Role::Value;
    let without = keyspace.sink(&plain);
    let misfits = without.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("drop that table"), "{misfits:?}");
    let adopted = without.adopt(&owner, None).await;
    assert!(matches!(adopted, Err(Error::Stop(_))), "{adopted:?}");
    assert!(without.prepare(false).await.is_err());

    keyspace.query("DROP TABLE $.logins_newest").await;
    assert_eq!(without.misfits().await.unwrap(), [""; 0]);
    write(without.as_ref(), &partition(1), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let misfits = keyspace.sink(&logins()).misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("logins_newest"), "{misfits:?}");
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_rows_of_a_table_that_is_gone_are_not_used() {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(Service::Cassandra).await;
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    keyspace.query("DROP TABLE $.logins").await;

    let mut plain = logins();
    plain.columns[0].role = Role::Value;
    for table in [plain, logins()] {
        let misfits = keyspace.sink(&table).misfits().await.unwrap();
        assert!(misfits.len() == 1 && misfits[0].contains("logins_newest"), "{misfits:?}");
        assert!(keyspace.sink(&table).prepare(true).await.is_err());
    }
    let user = Arc::new(Schema::new(vec![Field::new("user", DataType::Utf8, true)]));
    let asked: ArrayRef = Arc::new(StringArray::from(vec!["ann"]));
    let refused = keyspace.store().read_by_key("logins", &user, "user", &asked).await;
    assert!(matches!(refused, Err(Error::Stop(_))), "{refused:?}");
    keyspace.drop().await;
}

/// What a plan doesn't name would stay as it was, beside the values of another event.
async fn a_newest_row_has_nothing_of_the_row_before(service: Service) {
    let _turn = wait_for_my_turn().await;
    let keyspace = Keyspace::create(service).await;
    let sink = keyspace.sink(&logins());
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", Some("old"), 0, 1)])).await;

    let mut without = logins();
    let note = without.columns.iter().position(|column| column.name == "note").unwrap();
    without.columns.remove(note);
    let sink = keyspace.sink(&without);
    assert_eq!(sink.misfits().await.unwrap(), [""; 0]);
    sink.prepare(true).await.unwrap();
    let mut batch = rows(&[("ann", None, 1, 1)]);
    batch.remove_column(note);
    write(sink.as_ref(), &partition(1), 0, 2, batch).await;
    assert_eq!(newest(&keyspace).await, [row("ann", None, 1, 1)]);
    keyspace.drop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newest_row_has_nothing_of_the_row_before_on_cassandra() {
    a_newest_row_has_nothing_of_the_row_before(Service::Cassandra).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newest_row_has_nothing_of_the_row_before_like_on_keyspaces() {
    a_newest_row_has_nothing_of_the_row_before(Service::Keyspaces).await;
}
