use millstream_core::{Error, Limits, Log as _, LogStore as _, Topics as _, Watermarks};
use millstream_emulators::event_hubs::{EventHubsDouble, NewEvent};

use crate::support::{HUB, ROOMY, env_with, fill, open, partition, values, within_limit};

#[tokio::test]
async fn watermarks_follow_retention() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open(&double);
    let mut expected = vec![(0, 0)];
    let mut held = vec![hubs.watermarks(&partition(0)).await.unwrap()];
    fill(&double, 0, 0, 10);
    for first in [0, 4, 10] {
        double.trim(HUB, 0, first);
        held.push(hubs.watermarks(&partition(0)).await.unwrap());
        expected.push((first, 10));
    }
    fill(&double, 0, 10, 11);
    held.push(hubs.watermarks(&partition(0)).await.unwrap());
    expected.push((10, 11));
    let held: Vec<_> = held.into_iter().map(|Watermarks { low, high }| (low, high)).collect();
    assert_eq!(held, expected);
}

#[tokio::test]
async fn what_retention_has_deleted_stops() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.trim(HUB, 0, 4);
    let hubs = open(&double);
    match hubs.read(&partition(0), 3..10, ROOMY).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("3..4 were deleted by retention"), "{cause}"),
        other => panic!("must be Stop, got {other:?}"),
    }
    assert_eq!(hubs.read(&partition(0), 4..10, ROOMY).await.unwrap().range(), 4..10);
}

#[tokio::test]
async fn a_number_that_is_missing_is_never_passed_over() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.hide(HUB, 0, 5);
    let hubs = open(&double);
    assert_eq!(hubs.read(&partition(0), 3..10, ROOMY).await.unwrap().range(), 3..5);
    let read = hubs.read(&partition(0), 5..10, ROOMY).await;
    assert!(matches!(read, Err(Error::Retry(_))), "{read:?}");
    assert_eq!(hubs.read(&partition(0), 3..5, ROOMY).await.unwrap().range(), 3..5);
}

#[tokio::test]
async fn a_read_that_goes_on_takes_the_open_receiver() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 1_000);
    let hubs = open(&double);
    let mut next = 0;
    while next < 1_000 {
        let batch = hubs.read(&partition(0), next..1_000, Limits { max_records: 70, ..ROOMY }).await.unwrap();
        let expected: Vec<_> = batch.range().map(|number| Some(number.to_string().into_bytes())).collect();
        assert_eq!(values(&batch), expected);
        assert!(batch.is_stamped_by_log());
        next = batch.range().end;
    }
    assert_eq!(double.receivers(), 1);
    assert_eq!(hubs.read(&partition(0), 500..510, ROOMY).await.unwrap().range(), 500..510);
    assert_eq!(double.receivers(), 2);
    assert_eq!(double.connections(), 1, "one connection serves all");
}

#[tokio::test]
async fn many_reads_from_anywhere_need_few_receivers_at_once() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 50);
    let hubs = open(&double);
    for start in (0..50).rev() {
        let batch = within_limit(hubs.read(&partition(0), start..start + 1, ROOMY)).await.unwrap();
        assert_eq!(batch.range(), start..start + 1);
    }
}

#[tokio::test]
async fn five_receivers_may_read_a_partition() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 5);
    let all: Vec<_> = (0..6).map(|_| open(&double)).collect();
    for hubs in &all[..5] {
        hubs.read(&partition(0), 0..5, ROOMY).await.unwrap();
    }
    match all[5].read(&partition(0), 0..5, ROOMY).await {
        Err(error @ Error::Retry(_)) => assert!(error.to_string().contains("Five receivers may"), "{error}"),
        other => panic!("must be Retry, got {other:?}"),
    }
}

#[tokio::test]
async fn a_hub_or_a_group_that_is_missing_stops() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 1);
    let env = env_with(&double, &[("MILLSTREAM_EVENTHUBS_CONSUMER_GROUP", "reports")]);
    let hubs = <millstream_eventhubs::EventHubs as millstream_core::Connect>::open(&env).unwrap().unwrap();
    match hubs.read(&partition(0), 0..1, ROOMY).await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("CONSUMER_GROUP"), "{cause}"),
        other => panic!("must be Stop, got {other:?}"),
    }
    for wrong in ["missing", "a/b", ""] {
        let asked = hubs.partitions(wrong).await;
        assert!(matches!(asked, Err(Error::Stop(_))), "{wrong}: {asked:?}");
    }
    let asked = hubs.watermarks(&partition(1)).await;
    assert!(matches!(asked, Err(Error::Retry(_))), "{asked:?}");
}

#[tokio::test]
async fn event_hubs_are_created_elsewhere() {
    let double = EventHubsDouble::start();
    double.create(HUB, 2);
    let hubs = open(&double);
    hubs.create_topic(HUB, 2, &[]).await.unwrap();
    hubs.raise_partitions(HUB, 2).await.unwrap();
    assert_eq!(hubs.group_offsets("g", HUB, 1).await.unwrap(), [None, None]);
    for (refused, says) in [
        (hubs.create_topic("new", 3, &[]).await, "az eventhubs eventhub create"),
        (hubs.raise_partitions(HUB, 3).await, "Premium"),
        (hubs.topics().await.map(drop), "az eventhubs eventhub list"),
    ] {
        match refused {
            Err(Error::Stop(cause)) => assert!(cause.to_string().contains(says), "{cause}"),
            other => panic!("must be Stop with {says}, got {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_key_for_one_event_hub_is_for_no_other() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let connection = format!("{};EntityPath=Orders", double.connection_string());
    let env = env_with(&double, &[("MILLSTREAM_EVENTHUBS_CONNECTION", &connection)]);
    let hubs = <millstream_eventhubs::EventHubs as millstream_core::Connect>::open(&env).unwrap().unwrap();
    assert_eq!(hubs.partitions(HUB).await.unwrap(), 1, "names have no case");
    match hubs.partitions("payments").await {
        Err(Error::Stop(cause)) => assert!(cause.to_string().contains("EntityPath"), "{cause}"),
        other => panic!("must be Stop, got {other:?}"),
    }
}

#[tokio::test]
#[should_panic(expected = "an event of")]
async fn the_double_takes_no_event_that_is_too_large() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    double.append(HUB, 0, NewEvent::of(vec![0; (256 << 10) + 1]));
}

#[tokio::test]
async fn a_thousand_requests_are_answered() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let hubs = open(&double);
    for number in 0..1_000 {
        let asked = within_limit(hubs.watermarks(&partition(0))).await;
        assert!(asked.is_ok(), "{number}: {asked:?}");
    }
    assert_eq!(double.connections(), 1);
}

#[tokio::test]
async fn a_hub_that_is_re_created_is_not_read_by_an_old_receiver() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 20);
    let hubs = open(&double);
    assert_eq!(hubs.read(&partition(0), 0..5, ROOMY).await.unwrap().range(), 0..5);
    double.delete(HUB);
    double.create(HUB, 1);
    for number in 0..20 {
        double.append(HUB, 0, NewEvent::of(format!("new {number}")));
    }
    let batch = within_limit(hubs.read(&partition(0), 5..10, ROOMY)).await.unwrap();
    assert_eq!(values(&batch)[0], Some(b"new 5".to_vec()));
}

#[tokio::test]
async fn a_hub_that_is_re_created_while_a_receiver_is_opened_is_not_taken_for_the_one_before() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 20);
    let hubs = open(&double);
    let others = (0..20).map(|number| NewEvent::of(format!("new {number}"))).collect();
    double.replace_at_next_receiver(HUB, others);
    let read = within_limit(hubs.read(&partition(0), 5..10, ROOMY)).await;
    assert!(matches!(read, Err(Error::Retry(_))), "{read:?}");
    let batch = within_limit(hubs.read(&partition(0), 5..10, ROOMY)).await.unwrap();
    assert_eq!(values(&batch)[0], Some(b"new 5".to_vec()));
}

#[tokio::test]
async fn events_that_are_not_settled_all_come() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    double.leave_unsettled();
    fill(&double, 0, 0, 600);
    let hubs = open(&double);
    let mut next = 0;
    while next < 600 {
        let limits = Limits { max_records: 37, ..ROOMY };
        next = within_limit(hubs.read(&partition(0), next..600, limits)).await.unwrap().range().end;
    }
    assert_eq!(double.receivers(), 1);
}

#[tokio::test]
async fn what_was_read_before_a_failure_is_given() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 50);
    double.hide(HUB, 0, 20);
    let hubs = open(&double);
    assert_eq!(hubs.read(&partition(0), 3..50, ROOMY).await.unwrap().range(), 3..20);
    let read = hubs.read(&partition(0), 20..50, ROOMY).await;
    assert!(matches!(read, Err(Error::Retry(_))), "{read:?}");
}

#[tokio::test]
async fn the_largest_events_fill_the_prefetch() {
    let double = EventHubsDouble::start_standard();
    double.create(HUB, 1);
    for number in 0..400_i64 {
        let mut bytes = vec![7; 1 << 20];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        assert_eq!(double.append(HUB, 0, NewEvent::of(bytes)), number);
    }
    let hubs = open(&double);
    let mut next = 0;
    while next < 400 {
        let batch = within_limit(hubs.read(&partition(0), next..400, ROOMY)).await.unwrap();
        for (number, value) in batch.range().zip(values(&batch)) {
            let value = value.unwrap();
            assert_eq!((value.len(), &value[..8]), (1 << 20, &number.to_be_bytes()[..]));
        }
        next = batch.range().end;
    }
}
