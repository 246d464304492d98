//! What the service refuses, and answers that are lost: at each step of a write.

use std::{sync::Arc, time::Duration};

use azure_core::http::StatusCode;
use azure_data_cosmos::fault_injection::{
    CustomResponseBuilder, FaultInjectionConditionBuilder, FaultInjectionErrorType, FaultInjectionResultBuilder,
    FaultInjectionRule, FaultInjectionRuleBuilder, FaultOperationType,
};
use azure_data_cosmos_driver::in_memory_emulator::ConsistencyLevel;
use millstream_core::{Claim, Error, Fence, Owner, Sink, TableStore as _};
use millstream_testkit::rows::texts;

use crate::support::{Account, FUNCTION, logins, partition, rows, rule, write};

const FENCES: &str = "millstream_fences";

/// The steps of a write of two rows, after there are newest rows.
const STEPS: [(FaultOperationType, &str); 5] = [
    (FaultOperationType::ReadItem, FENCES),
    (FaultOperationType::BatchItem, "logins"),
    (FaultOperationType::ReadItem, "logins_newest"),
    (FaultOperationType::ReplaceItem, "logins_newest"),
    (FaultOperationType::ReplaceItem, FENCES),
];

fn once(step: (FaultOperationType, &str), fault: FaultInjectionErrorType) -> Arc<FaultInjectionRule> {
    Arc::new(rule(Some(step.0), Some(step.1), fault).with_hit_limit(1).build())
}

async fn prepared(account: &Account) -> (Arc<dyn Sink>, Fence) {
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let fence = write(sink.as_ref(), &partition(0), 0, 2, rows(&[("ann", None, 0, 1), ("bo", None, 1, 1)])).await;
    (sink, fence)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fault_at_any_step_is_retried_and_leaves_what_one_write_does() {
    let account = Account::create();
    let (sink, mut fence) = prepared(&account).await;
    let mut expected = texts(&sink.snapshot().await.unwrap().rows);
    for fault in [
        FaultInjectionErrorType::ServiceUnavailable,
        FaultInjectionErrorType::Timeout,
        FaultInjectionErrorType::InternalServerError,
        FaultInjectionErrorType::PartitionIsGone,
        FaultInjectionErrorType::RetryWith,
        FaultInjectionErrorType::ConnectionError,
    ] {
        for step in STEPS {
            let at = fence.next_offset;
            let batch = rows(&[("ann", Some("a"), at, at), ("bo", Some("b"), at + 1, at)]);
            let to = Fence { next_offset: at + 2, ..fence.clone() };
            let rule = once(step, fault);
            let faulty = account.store_with(vec![Arc::clone(&rule)]).await.sink(FUNCTION, logins()).unwrap();
            let failed = faulty.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await;
            assert_eq!(rule.hit_count(), 1, "{fault:?} at {step:?}");
            // What the service asks to try once more (449), what has only moved (410), and what was not sent, the client itself
            // tries once more.
            let is_tried_again = [
                FaultInjectionErrorType::RetryWith,
                FaultInjectionErrorType::PartitionIsGone,
                FaultInjectionErrorType::ConnectionError,
            ]
            .contains(&fault);
            // A batch that the service had no time for is sent as smaller ones.
            let is_tried_again =
                is_tried_again || (fault, step.0) == (FaultInjectionErrorType::Timeout, FaultOperationType::BatchItem);
            assert!(
                matches!(failed, Err(Error::Retry(_))) || is_tried_again && failed.is_ok(),
                "{fault:?} at {step:?}: {failed:?}"
            );
            if failed.is_err() {
                assert_eq!(faulty.fence(&partition(0)).await.unwrap().unwrap(), fence, "{fault:?} at {step:?}");
                assert_eq!(texts(&sink.snapshot().await.unwrap().rows), expected, "nothing above the fence is shown");
                faulty.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await.unwrap();
            }
            expected.extend(texts(&[batch]));
            expected.sort();
            assert_eq!(texts(&sink.snapshot().await.unwrap().rows), expected, "{fault:?} at {step:?}");
            fence = to;
        }
    }
    assert_eq!(account.items("logins_newest").await.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_lost_after_the_service_did_it_is_found_out() {
    let account = Account::create();
    let (sink, mut fence) = prepared(&account).await;
    // The client asks once more when the first answer is lost; or the answers to all that is done are lost.
    let mut unknown = 0;
    for (step, answers) in STEPS.into_iter().flat_map(|step| [(step, 1), (step, 100)]) {
        let at = fence.next_offset;
        let batch = rows(&[("ann", Some("a"), at, at), ("bo", Some("b"), at + 1, at)]);
        let to = Fence { next_offset: at + 2, ..fence.clone() };
        let loses = rule(Some(step.0), Some(step.1), FaultInjectionErrorType::ResponseTimeoutAfterService);
        let loses = Arc::new(loses.with_hit_limit(answers).build());
        let faulty = account.store_with(vec![Arc::clone(&loses)]).await.sink(FUNCTION, logins()).unwrap();
        let lost = faulty.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await;
        assert!(loses.hit_count() > 0, "{step:?}");
        loses.disable();
        let is_fence = step == (FaultOperationType::ReplaceItem, FENCES);
        match &lost {
            Ok(()) => assert!(!is_fence, "{step:?}"),
            Err(Error::Fenced { current }) => {
                assert!(is_fence && *current == Some(to.next_offset), "{step:?}: {lost:?}");
            }
            Err(Error::Retry(cause)) => {
                assert!(cause.to_string().contains("outcome is unknown"), "{step:?}: {cause}");
                unknown += 1;
            }
            other => panic!("{step:?}: {other:?}"),
        }
        // The runner reads the fence before it does anything else.
        let there = sink.fence(&partition(0)).await.unwrap().unwrap();
        assert_eq!(there, if is_fence || lost.is_ok() { to.clone() } else { fence.clone() }, "{step:?}");
        let again = faulty.write(&partition(0), &fence, &to, &[batch]).await;
        if there == to {
            assert!(matches!(again, Err(Error::Fenced { current: Some(at) }) if at == to.next_offset), "{again:?}");
        } else {
            again.unwrap();
        }
        fence = to;
    }
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows).len(), 22);
    assert!(unknown > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_throttled_is_sent_again_within_the_write() {
    let account = Account::create();
    let (sink, mut fence) = prepared(&account).await;
    // A minute is longer than a write waits.
    for ((of, container), pause) in STEPS.into_iter().flat_map(|step| [(step, "7"), (step, "60000")]) {
        let answer = CustomResponseBuilder::new(StatusCode::TooManyRequests);
        let answer = answer.with_sub_status(3200).with_header("x-ms-retry-after-ms", pause).build();
        let answer = FaultInjectionResultBuilder::new().with_custom_response(answer).build();
        let at = FaultInjectionConditionBuilder::new().with_operation_type(of).with_container_id(container).build();
        let throttles =
            FaultInjectionRuleBuilder::new("throttled", answer).with_condition(at).with_hit_limit(1).build();
        let throttled = account.store_with(vec![Arc::new(throttles)]).await.sink(FUNCTION, logins()).unwrap();
        let at = fence.next_offset;
        let batch = rows(&[("ann", Some("a"), at, at), ("bo", Some("b"), at + 1, at)]);
        let to = Fence { next_offset: at + 2, ..fence.clone() };
        let refused = throttled.write(&partition(0), &fence, &to, std::slice::from_ref(&batch)).await;
        let is_first = (of, container) == STEPS[0];
        match refused {
            Ok(()) => assert!(pause == "7" && !is_first, "{of:?}"),
            // Before anything is paid for, the runner may come again.
            Err(refused) => {
                assert_eq!(matches!(refused, Error::TooLarge(_)), !is_first, "{of:?}: {refused}");
                assert!(is_first || pause == "60000", "{of:?}: {refused}");
                assert_eq!(refused.retry_after(), Some(Duration::from_millis(pause.parse().unwrap())), "{refused}");
                throttled.write(&partition(0), &fence, &to, &[batch]).await.unwrap();
            }
        }
        fence = to;
    }
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows).len(), 22);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_scan_that_is_throttled_goes_on_where_it_was() {
    let account = Account::create();
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let all: Vec<_> = (0..5_500).map(|offset| ("ann", None, offset, 1)).collect();
    write(sink.as_ref(), &partition(0), 0, 5_500, rows(&all)).await;
    let throttles = |number| {
        let answer = CustomResponseBuilder::new(StatusCode::TooManyRequests).with_sub_status(3200);
        let answer = answer.with_header("x-ms-retry-after-ms", "7").build();
        let answer = FaultInjectionResultBuilder::new().with_custom_response(answer).build();
        let at = FaultInjectionConditionBuilder::new().with_operation_type(FaultOperationType::QueryItem).build();
        let rule = FaultInjectionRuleBuilder::new(format!("throttled {number}"), answer).with_condition(at);
        Arc::new(rule.with_hit_limit(1).build())
    };
    // Of three requests, one is refused.
    let rules: Vec<_> = (0..10).map(throttles).collect();
    let throttled = account.interrupted_store(2, rules.clone()).await.sink(FUNCTION, logins()).unwrap();
    assert_eq!(texts(&throttled.snapshot().await.unwrap().rows).len(), 5_500);
    let refused: u32 = rules.iter().map(|rule| rule.hit_count()).sum();
    // Those of the fences, and six of the rows.
    assert_eq!((account.pages(), refused), ((7, 2), 3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_of_many_seconds_of_throughput_ends() {
    let account = Account::like(ConsistencyLevel::BoundedStaleness, 1, |config| config.with_throttling_enabled(true));
    // A batch of 100 rows costs 670 of them.
    account.provision("logins", 2_000);
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let from = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let all: Vec<_> = (0..3_000).map(|offset| ("ann", None, offset, 1)).collect();
    let to = Fence { next_offset: 3_000, ..from.clone() };
    sink.write(&partition(0), &from, &to, &[rows(&all)]).await.unwrap();
    assert_eq!(account.items("logins_newest").await.len(), 1);
    assert_eq!(sink.fence(&partition(0)).await.unwrap(), Some(to));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn newest_rows_over_the_throughput_are_written_in_the_end() {
    let account = Account::like(ConsistencyLevel::BoundedStaleness, 1, |config| config.with_throttling_enabled(true));
    account.provision("logins_newest", 400);
    let sink = account.sink(&logins()).await;
    sink.prepare(true).await.unwrap();
    let mut fence = sink.create_fence(&partition(0), Fence::starting_at(0)).await.unwrap();
    let began = tokio::time::Instant::now();
    let users: Vec<_> = (0..100).map(|user| format!("user {user}")).collect();
    for at in [0, 100, 200] {
        let all: Vec<_> = users.iter().zip(at..).map(|(user, offset)| (user.as_str(), None, offset, 1)).collect();
        let to = Fence { next_offset: at + 100, ..fence.clone() };
        sink.write(&partition(0), &fence, &to, &[rows(&all)]).await.unwrap();
        fence = to;
    }
    assert!(began.elapsed() > Duration::from_secs(3), "{:?}", began.elapsed());
    assert_eq!(texts(&account.sink(&logins()).await.snapshot().await.unwrap().rows).len(), 300);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_row_that_is_too_large_is_poison_before_anything_is_written() {
    let account = Account::create();
    let (sink, fence) = prepared(&account).await;
    let to = Fence { next_offset: 4, ..fence.clone() };
    let (long, longest) = ("x".repeat(2_000_001), "x".repeat(1_999_800));
    let refused =
        sink.write(&partition(0), &fence, &to, &[rows(&[("ann", None, 2, 1), ("bo", Some(&long), 3, 1)])]).await;
    assert!(matches!(refused, Err(Error::Poison(_))), "{refused:?}");
    assert_eq!(account.items("logins").await.len(), 2);
    // The largest ones are taken, beside others.
    let large = rows(&[("ann", Some(&longest), 2, 1), ("bo", Some(&longest), 3, 1)]);
    sink.write(&partition(0), &fence, &to, &[large]).await.unwrap();
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_may_refuse_a_row_for_its_size_too() {
    let account = Account::create();
    let (_, fence) = prepared(&account).await;
    let answer = CustomResponseBuilder::new(StatusCode::PayloadTooLarge).with_body("hunter2").build();
    let answer = FaultInjectionResultBuilder::new().with_custom_response(answer).build();
    let at = FaultInjectionConditionBuilder::new().with_operation_type(FaultOperationType::UpsertItem).build();
    let rule = FaultInjectionRuleBuilder::new("large", answer).with_condition(at).build();
    let sink = account.store_with(vec![Arc::new(rule)]).await.sink(FUNCTION, logins()).unwrap();
    let to = Fence { next_offset: 3, ..fence.clone() };
    let refused = sink.write(&partition(0), &fence, &to, &[rows(&[("ann", None, 2, 1)])]).await.unwrap_err();
    assert!(matches!(refused, Error::Poison(_)) && !format!("{refused:?}").contains("hunter2"), "{refused:?}");
}

/// A process that moves its fence late.
async fn slow(account: &Account) -> Arc<dyn Sink> {
    let late = FaultInjectionResultBuilder::new().with_delay(Duration::from_secs(1)).build();
    let at = FaultInjectionConditionBuilder::new().with_operation_type(FaultOperationType::ReplaceItem);
    let rule =
        FaultInjectionRuleBuilder::new("late", late).with_condition(at.with_container_id(FENCES).build()).build();
    account.store_with(vec![Arc::new(rule)]).await.sink(FUNCTION, logins()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_writers_at_one_fence_the_later_one_is_fenced() {
    let account = Account::create();
    let (sink, fence) = prepared(&account).await;
    let (batch, to) = (rows(&[("ann", Some("a"), 2, 1)]), Fence { next_offset: 3, ..fence.clone() });
    let late = {
        let (late, from, to, batch) = (slow(&account).await, fence.clone(), to.clone(), batch.clone());
        tokio::spawn(async move { late.write(&partition(0), &from, &to, &[batch]).await })
    };
    tokio::time::sleep(Duration::from_millis(300)).await;
    sink.write(&partition(0), &fence, &to, &[batch]).await.unwrap();
    let late = late.await.unwrap();
    assert!(matches!(late, Err(Error::Fenced { current: Some(3) })), "{late:?}");
    assert_eq!(texts(&sink.snapshot().await.unwrap().rows).len(), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_zombie_whose_term_ends_while_it_writes_moves_nothing() {
    let account = Account::create();
    let (first, fence) = prepared(&account).await;
    let owner = |plan: &str| Owner { function: FUNCTION.into(), fingerprint: plan.into(), declaration: "{}".into() };
    let record = first.claim(&owner("1"), &Claim::First).await.unwrap().unwrap();
    let zombie = slow(&account).await;
    zombie.begin_term(record.term);
    let (from, to) = (fence.clone(), Fence { next_offset: 3, ..fence.clone() });
    let late = tokio::spawn(async move { zombie.write(&partition(0), &from, &to, &[]).await });
    tokio::time::sleep(Duration::from_millis(300)).await;
    let second = account.sink(&logins()).await;
    let adopted = second.adopt(&owner("2"), Some(&record)).await.unwrap().unwrap();
    let late = late.await.unwrap();
    assert!(matches!(&late, Err(Error::Stop(cause)) if cause.to_string().contains("rebuilt or adopted")), "{late:?}");
    second.begin_term(adopted.term);
    assert_eq!(second.fence(&partition(0)).await.unwrap().unwrap().next_offset, 2);
    second.write(&partition(0), &fence, &Fence { next_offset: 3, ..fence.clone() }, &[]).await.unwrap();
}
