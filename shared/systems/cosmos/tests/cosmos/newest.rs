//! The newest row of each entity.

use std::sync::Arc;

use arrow::{
    array::{ArrayRef, StringArray},
    datatypes::{DataType, Field, Schema},
};
use azure_data_cosmos::models::ContainerProperties;
use millstream_core::{Claim, Error, FIRST_REDRIVE, Fence, Owner, Role, TableStore as _, TopicPartition};

use crate::support::{Account, FUNCTION, logins, partition, rows, write};

/// User, note, partition and offset of all newest rows, by user.
async fn newest(account: &Account) -> Vec<(String, Option<String>, i64, i64)> {
    let one = |item: &serde_json::Value| {
        let text = |name: &str| item["row"][name].as_str().map(str::to_owned);
        (
            text("user").unwrap(),
            text("note"),
            item["partition"].as_i64().unwrap(),
            item["row"]["_offset"].as_i64().unwrap(),
        )
    };
    let mut found: Vec<_> = account.items("logins_newest").await.iter().map(one).collect();
    found.sort();
    found
}

fn row(user: &str, note: Option<&str>, partition: i64, offset: i64) -> (String, Option<String>, i64, i64) {
    (user.to_owned(), note.map(str::to_owned), partition, offset)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_row_stays() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    // In no order, two of one user in a write, and a null in the place of a value.
    let first = rows(&[("ann", None, 5, 1), ("ann", Some("old"), 3, 1), ("bo", Some("b"), 4, 1)]);
    let fence = write(sink.as_ref(), &partition(0), 0, 10, first).await;
    assert_eq!(newest(&account).await, [row("ann", None, 0, 5), row("bo", Some("b"), 0, 4)]);
    // A row of another partition at a lower offset is older; one at a higher offset is newer.
    write(sink.as_ref(), &partition(1), 0, 3, rows(&[("ann", Some("older"), 2, 9)])).await;
    let to = Fence { next_offset: 20, ..fence.clone() };
    sink.write(&partition(0), &fence, &to, &[rows(&[("bo", None, 12, 2), ("cy", Some("c"), 11, 2)])]).await.unwrap();
    let expected = [row("ann", None, 0, 5), row("bo", None, 0, 12), row("cy", Some("c"), 0, 11)];
    assert_eq!(newest(&account).await, expected, "a whole row is replaced, with its nulls");
    // The first offset of another generation is newer than any before.
    let again = TopicPartition::new("login", 2, 0);
    write(sink.as_ref(), &again, 0, 1, rows(&[("ann", Some("new"), 0, 3)])).await;
    assert_eq!(newest(&account).await[0], row("ann", Some("new"), 0, 0));
    // Redriven: older than what is there, for it stands at its offset of the topic; and new where nothing is.
    let redriven = TopicPartition::new("login", FIRST_REDRIVE + 1, 0);
    let late = rows(&[("ann", Some("late"), 0, 1), ("di", Some("d"), 7, 1)]);
    write(sink.as_ref(), &redriven, 0, 8, late).await;
    assert_eq!(newest(&account).await[3], row("di", Some("d"), 0, 7));
    write(sink.as_ref(), &again, 0, 9, rows(&[("di", Some("after"), 8, 1)])).await;
    assert_eq!(newest(&account).await[3], row("di", Some("after"), 0, 8));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn partitions_that_write_one_entity_at_once_leave_the_newest_row() {
    let account = Account::create();
    account.sink(&logins()).await.prepare(true).await.unwrap();
    let mut writers = Vec::new();
    for number in 0..8 {
        let sink = account.sink(&logins()).await;
        writers.push(tokio::spawn(async move {
            let mut fence = sink.create_fence(&partition(number), Fence::starting_at(0)).await.unwrap();
            for offset in 0..5 {
                let note = format!("{offset} of {number}");
                let to = Fence { next_offset: offset + 1, ..fence.clone() };
                let batch = rows(&[("ann", Some(&note), offset, 1)]);
                // Others write the newest row all the time: that is retried as the runner does.
                let mut tries = 0;
                while let Err(error) = sink.write(&partition(number), &fence, &to, std::slice::from_ref(&batch)).await {
                    assert!(error.is_retry() && tries < 20, "{error}");
                    tries += 1;
                }
                fence = to;
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    assert_eq!(newest(&account).await, [row("ann", Some("4 of 7"), 7, 4)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_of_any_text_has_one_newest_row() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let long = "x".repeat(5_000);
    let users = ["ann", "a/b", "a\\b?#", "Zürich", "", " ", "100 %", "sha256:ab", ".", "..", "_columns", &*long];
    let batch = |from: i64| {
        let all: Vec<_> = users.iter().zip(from..).map(|(user, offset)| (*user, None, offset, 1)).collect();
        rows(&all)
    };
    let fence = write(sink.as_ref(), &partition(0), 0, 12, batch(0)).await;
    sink.write(&partition(0), &fence, &Fence { next_offset: 24, ..fence.clone() }, &[batch(12)]).await.unwrap();
    let mut expected: Vec<_> = users.iter().zip(12..).map(|(user, offset)| row(user, None, 0, offset)).collect();
    expected.sort();
    assert_eq!(newest(&account).await, expected);
    let found = account.items("logins_newest").await;
    assert!(found.iter().any(|item| item["id"] == "ann" && item["pk"] == "ann"), "a reader finds it by its text");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entity_comes_with_a_new_table_only() {
    let account = Account::create();
    let mut plain = logins();
    plain.columns[0].role = Role::Value;
    let sink = account.sink(&plain).await;
    sink.prepare(true).await.unwrap();
    let with_entity = account.sink(&logins()).await;
    assert_eq!(with_entity.misfits().await.unwrap(), [""; 0], "it is empty");
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let misfits = with_entity.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("logins_newest"), "{misfits:?}");
    assert!(with_entity.prepare(true).await.is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_rows_that_a_plan_without_an_entity_has_left_behind_are_not_used() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let owner = |plan: &str| Owner { function: FUNCTION.into(), fingerprint: plan.into(), declaration: "{}".into() };
    let record = sink.claim(&owner("1"), &Claim::First).await.unwrap().unwrap();
    sink.begin_term(record.term);
    let fence = write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;

    let mut plain = logins();
    plain.columns[0].role = Role::Value;
    let without = account.sink(&plain).await;
    let adopted = without.adopt(&owner("2"), Some(&record)).await.unwrap().unwrap();
    without.begin_term(adopted.term);
    let user = Arc::new(Schema::new(vec![Field::new("user", DataType::Utf8, true)]));
    let asked: ArrayRef = Arc::new(StringArray::from(vec!["ann"]));
    let store = account.store().await;
    assert_eq!(sink.misfits().await.unwrap(), [""; 0], "nothing was written without the entity yet");
    store.read_by_key("logins", &user, "user", &asked).await.unwrap();

    without.settle(&partition(0)).await.unwrap();
    let to = Fence { next_offset: 2, ..fence.clone() };
    without.write(&partition(0), &fence, &to, &[rows(&[("ann", None, 1, 1)])]).await.unwrap();
    let misfits = account.sink(&logins()).await.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("without the key user"), "{misfits:?}");
    assert!(account.sink(&logins()).await.prepare(true).await.is_err());
    for name in ["logins", "logins_newest"] {
        let refused = store.read_by_key(name, &user, "user", &asked).await;
        assert!(matches!(refused, Err(Error::Stop(_))), "{name}: {refused:?}");
    }
    assert_eq!(account.sink(&plain).await.misfits().await.unwrap(), [""; 0], "it may go on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_of_newest_rows_that_is_anothers_is_left_alone() {
    let account = Account::create();
    let (sink, database) = (account.sink(&logins()).await, account.by_hand().await);
    database.create_container(ContainerProperties::new("logins_newest", "/pk".into()), None).await.unwrap();
    let container = database.container_client("logins_newest", None).await.unwrap();
    // Whatever the key is.
    container.create_item(7, "a", serde_json::json!({"id": "a", "pk": 7}), None).await.unwrap();
    let misfits = sink.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("logins_newest has items that no function"), "{misfits:?}");
    let said = sink.prepare(true).await.unwrap_err();
    assert!(matches!(said, Error::Stop(_)), "{said:?}");

    // One that somebody has made anew is empty, and the entities of before would be missing in it.
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    assert_eq!(sink.misfits().await.unwrap(), [""; 0]);
    let container = account.by_hand().await.container_client("logins_newest", None).await.unwrap();
    for id in ["_columns", "ann"] {
        container.delete_item(id, id, None).await.unwrap();
    }
    let misfits = sink.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("those entities only"), "{misfits:?}");
}
