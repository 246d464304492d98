//! Which accounts are taken, and what is said of a set-up that is wrong.

use std::sync::Arc;

use async_trait::async_trait;
use azure_core::http::{AsyncRawResponse, HttpClient, Request};
use azure_data_cosmos::{
    fault_injection::{
        CustomResponseBuilder, FaultInjectionConditionBuilder, FaultInjectionResultBuilder, FaultInjectionRuleBuilder,
        FaultOperationType,
    },
    models::ContainerProperties,
};
use azure_data_cosmos_driver::in_memory_emulator::{ConsistencyLevel, WriteMode};
use millstream_core::{Error, Fence, TableStore as _};

use crate::support::{Account, DATABASE, FUNCTION, KEY, logins, partition, rows, write};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_whose_readers_may_lag_is_refused_before_anything_is_asked() {
    for (consistency, regions, says) in [
        (ConsistencyLevel::Session, 1, "consistency is Session"),
        (ConsistencyLevel::Eventual, 1, "consistency is Eventual"),
        (ConsistencyLevel::BoundedStaleness, 2, "2 regions"),
    ] {
        let account = Account::like(consistency, regions, |config| config);
        let refused = account.sink(&logins()).await.prepare(true).await.unwrap_err();
        assert!(matches!(&refused, Error::Stop(_)) && refused.to_string().contains(says), "{refused}");
    }
    let several = |config: azure_data_cosmos_driver::in_memory_emulator::VirtualAccountConfig| {
        config.with_write_mode(WriteMode::Multi)
    };
    let account = Account::like(ConsistencyLevel::BoundedStaleness, 2, several);
    let refused = account.sink(&logins()).await.fence(&partition(0)).await.unwrap_err();
    assert!(matches!(&refused, Error::Stop(_)) && refused.to_string().contains("several write regions"), "{refused}");
    let account = Account::like(ConsistencyLevel::Strong, 2, |config| config);
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_set_up_that_is_wrong_says_what_to_do() {
    let account = Account::create();
    let missing = account.sink(&logins()).await;
    for said in [missing.prepare(false).await.unwrap_err(), missing.fence(&partition(0)).await.unwrap_err()] {
        assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("run `millstream up`"), "{said}");
    }
    let nowhere = account.env_with(&[("MILLSTREAM_COSMOS_DATABASE", "nowhere")]);
    let said =
        account.open(&nowhere, Vec::new()).await.sink(FUNCTION, logins()).unwrap().prepare(true).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("MILLSTREAM_COSMOS_DATABASE"), "{said}");
    assert!(!format!("{said} {said:?}").contains(KEY));
    // Nothing answers there: it may come back.
    let env = account.env_with(&[("MILLSTREAM_COSMOS_ENDPOINT", "https://away.emulator.local")]);
    let away = account.open(&env, Vec::new()).await.sink(FUNCTION, logins()).unwrap().prepare(true).await.unwrap_err();
    assert!(matches!(away, Error::Retry(_)) && !format!("{away} {away:?}").contains(KEY), "{away:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_scale_up_to_what_is_asked_for() {
    let account = Account::create();
    account.sink(&logins()).await.prepare(true).await.unwrap();
    assert_eq!(account.autoscaled(), [""; 0], "a serverless account takes no such thing");
    let account = Account::create();
    let env = account.env_with(&[("MILLSTREAM_COSMOS_MAX_RU", "4000")]);
    account.open(&env, Vec::new()).await.sink(FUNCTION, logins()).unwrap().prepare(true).await.unwrap();
    let asked = account.autoscaled();
    assert!(asked.len() == 4 && asked.iter().all(|asked| asked.contains("4000")), "{asked:?}");
}

/// Takes requests, and never answers.
#[derive(Debug)]
struct Silent;

#[async_trait]
impl HttpClient for Silent {
    async fn execute_request(&self, _request: &Request) -> azure_core::Result<AsyncRawResponse> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn callers_that_wait_for_an_account_wait_no_longer_than_one() {
    let account = Account::create();
    let store = account.open_on(&account.env(), Vec::new(), Arc::new(Silent)).await;
    tokio::time::pause();
    let began = tokio::time::Instant::now();
    let sink = store.sink(FUNCTION, logins()).unwrap();
    let (first, second) = (partition(0), partition(1));
    let (first, second, third) = tokio::join!(sink.fence(&first), sink.fence(&second), sink.misfits());
    assert!(matches!(first, Err(Error::Retry(_))) && matches!(second, Err(Error::Retry(_))), "{first:?}");
    assert!(third.is_err_and(|error| error.to_string().contains("no answer within 20 s")));
    assert!(began.elapsed() < std::time::Duration::from_secs(21), "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn containers_of_others_are_left_alone() {
    let account = Account::create();
    let database = account.by_hand().await;
    database.create_container(ContainerProperties::new("logins", "/user".into()), None).await.unwrap();
    let said = account.sink(&logins()).await.prepare(true).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("partitioned by /user"), "{said}");
    let other = millstream_core::Table { name: "other".into(), ..logins() };
    database.create_container(ContainerProperties::new("other", "/pk".into()), None).await.unwrap();
    let sink = account.sink(&other).await;
    assert_eq!(sink.misfits().await.unwrap(), [""; 0], "an empty one, with a throughput of one's own, is taken");
    let container = database.container_client("other", None).await.unwrap();
    container.create_item("a", "a", serde_json::json!({"id": "a", "pk": "a"}), None).await.unwrap();
    let misfits = sink.misfits().await.unwrap();
    assert!(misfits.len() == 1 && misfits[0].contains("no function has written"), "{misfits:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_is_refused_is_named_and_not_shown() {
    let account = Account::create();
    account.sink(&logins()).await.prepare(true).await.unwrap();
    for (code, sub) in [(401, 0), (403, 5300)] {
        let answer = CustomResponseBuilder::new(azure_core::http::StatusCode::from(code)).with_sub_status(sub);
        let answer = FaultInjectionResultBuilder::new().with_custom_response(answer.with_body(KEY).build()).build();
        let at = FaultInjectionConditionBuilder::new().with_operation_type(FaultOperationType::ReadItem).build();
        let refused = FaultInjectionRuleBuilder::new("key", answer).with_condition(at).build();
        let store = account.store_with(vec![Arc::new(refused)]).await;
        let said = store.sink(FUNCTION, logins()).unwrap().fence(&partition(0)).await.unwrap_err();
        assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("MILLSTREAM_COSMOS_KEY"), "{said}");
        assert!(!format!("{said} {said:?} {store:?}").contains(KEY), "{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_container_that_is_deleted_under_a_process_stops_it() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let from = write(sink.as_ref(), &partition(0), 0, 1, rows(&[("ann", None, 0, 1)])).await;
    let container = account.by_hand().await.container_client("logins", None).await.unwrap();
    container.delete(None).await.unwrap();
    let to = Fence { next_offset: 2, ..from.clone() };
    let said = sink.write(&partition(0), &from, &to, &[rows(&[("bo", None, 1, 1)])]).await.unwrap_err();
    assert!(matches!(&said, Error::Stop(_)) && said.to_string().contains("millstream up"), "{said}");
    assert_eq!(sink.fence(&partition(0)).await.unwrap().unwrap(), from);
    assert!(account.by_hand().await.name().is_some_and(|name| name == DATABASE));
}
