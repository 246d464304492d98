use std::{sync::Arc, time::Duration};

use millstream_core::{Connect as _, Error, Limits, Log as _};
use millstream_emulators::event_hubs::EventHubsDouble;
use millstream_eventhubs::EventHubs;

use crate::support::{
    HUB, ROOMY, Sink, consume, env, env_with, fill, open, open_with_patience_of, open_with_tokens_of, partition,
    within_limit,
};

#[tokio::test]
async fn a_connection_that_is_cut_loses_and_doubles_nothing() {
    let double = EventHubsDouble::start();
    double.create(HUB, 3);
    (0..3).for_each(|partition| fill(&double, partition, 0, 500));
    double.cut_after(137, 6);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double), &sink, Limits { max_records: 20, ..ROOMY });
    within_limit(sink.until(1_500)).await;
    assert!(double.connections() > 5, "{} connections", double.connections());
    double.cut();
    (0..3).for_each(|partition| fill(&double, partition, 500, 510));
    within_limit(sink.until(1_530)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    (0..3).for_each(|partition| sink.check(partition, 0, 510));
}

#[tokio::test]
async fn reads_go_on_after_a_cut() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 300);
    let hubs = open(&double);
    let (mut next, mut failed) = (0, 0);
    while next < 300 {
        if next == 150 {
            double.cut();
        }
        match within_limit(hubs.read(&partition(0), next..300, Limits { max_records: 50, ..ROOMY })).await {
            Ok(batch) => next = batch.range().end,
            Err(error) => {
                assert!(error.is_retry(), "{error}");
                failed += 1;
                assert!(failed < 5, "{error}");
            }
        }
    }
}

#[tokio::test]
async fn a_busy_service_is_given_time() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 10);
    double.throttle(1);
    let error = open(&double).watermarks(&partition(0)).await.unwrap_err();
    assert!(error.is_retry() && error.retry_after() == Some(Duration::from_secs(4)), "{error}");
    double.throttle(2);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double), &sink, ROOMY);
    within_limit(sink.until(10)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(0, 0, 10);
}

#[tokio::test]
async fn tokens_are_renewed_before_they_end() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let sink = Arc::new(Sink::default());
    let task = consume(open_with_tokens_of(&double, Duration::from_secs(3)), &sink, ROOMY);
    for round in 0..6 {
        fill(&double, 0, round, round + 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    within_limit(sink.until(6)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(0, 0, 6);
    assert!((3..=8).contains(&double.tokens()), "{} tokens", double.tokens());
    assert_eq!((double.connections(), double.receivers()), (1, 1), "no receiver was closed for its token");
}

#[tokio::test]
async fn a_token_that_has_ended_is_replaced() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    fill(&double, 0, 0, 1);
    let sink = Arc::new(Sink::default());
    let task = consume(open_with_tokens_of(&double, Duration::from_secs(2)), &sink, ROOMY);
    within_limit(sink.until(1)).await;
    // No token can be renewed for a while: the service closes the receiver.
    double.delay(Duration::from_millis(2_500));
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    double.delay(Duration::ZERO);
    fill(&double, 0, 1, 5);
    within_limit(sink.until(5)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(0, 0, 5);
}

#[tokio::test]
async fn a_key_that_is_refused_stops() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let wrong = format!("{}x", double.connection_string());
    let wrong = EventHubs::open(&env_with(&double, &[("MILLSTREAM_EVENTHUBS_CONNECTION", &wrong)])).unwrap().unwrap();
    double.refuse_tokens(true);
    let refused = open(&double);
    for hubs in [wrong, refused] {
        match hubs.partitions(HUB).await {
            Err(error @ Error::Stop(_)) => {
                let text = error.to_string();
                assert!(
                    text.contains("InvalidSignature") && text.contains("MILLSTREAM_EVENTHUBS_CONNECTION"),
                    "{text}"
                );
                assert_no_secret(&text, &double);
            }
            other => panic!("must be Stop, got {other:?}"),
        }
        assert_no_secret(&format!("{hubs:?}"), &double);
    }
    double.refuse_tokens(false);
    assert_no_secret(&format!("{:?}", open(&double)), &double);
}

fn assert_no_secret(text: &str, double: &EventHubsDouble) {
    let connection = double.connection_string();
    let key = connection.rsplit("SharedAccessKey=").next().unwrap();
    assert!(!text.contains(key) && !text.contains("sig="), "{text}");
}

#[tokio::test]
async fn nobody_there_is_worth_another_try() {
    let double = EventHubsDouble::start();
    let env = env(&double);
    drop(double);
    let hubs = EventHubs::open(&env).unwrap().unwrap();
    match within_limit(hubs.partitions(HUB)).await {
        Err(error @ Error::Retry(_)) => {
            assert!(error.to_string().contains("connecting to amqp://127.0.0.1"), "{error}")
        }
        other => panic!("must be Retry, got {other:?}"),
    }
}

#[tokio::test]
async fn the_namespace_is_spoken_to_in_tls_from_the_first_byte() {
    let double = EventHubsDouble::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("amqps://localhost:{}", listener.local_addr().unwrap().port());
    let env = env_with(&double, &[("MILLSTREAM_EVENTHUBS_ENDPOINT", &endpoint)]);
    let hubs = EventHubs::open(&env).unwrap().unwrap();
    let heard = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut hello = [0; 512];
        let length = tokio::io::AsyncReadExt::read(&mut stream, &mut hello).await.unwrap();
        hello[..length].to_vec()
    };
    let (asked, hello) = within_limit(async { tokio::join!(hubs.partitions(HUB), heard) }).await;
    assert!(asked.is_err_and(|error| error.is_retry()));
    assert_eq!(hello[..2], [0x16, 3], "a handshake record of TLS, and no header of AMQP");
    assert!(hello.windows(9).any(|bytes| bytes == b"localhost"), "it says which host it wants");
}

/// Whatever happens in weeks, one closed receiver after the other is no reason to stop; one after the other at once is.
#[tokio::test]
async fn receivers_that_are_closed_now_and_then_are_opened_again() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double).looking_every(Duration::from_millis(50)), &sink, ROOMY);
    for round in 1..=8 {
        within_limit(async {
            while double.receivers() < round {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        })
        .await;
        // Longer than it takes to be believed healthy.
        tokio::time::sleep(Duration::from_millis(200)).await;
        double.close_receivers("amqp:not-allowed");
    }
    fill(&double, 0, 0, 3);
    within_limit(sink.until(3)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    let task = consume(open(&double), &Arc::new(Sink::at([(0, 3)])), ROOMY);
    let ended = within_limit(async {
        while !task.is_finished() {
            double.close_receivers("amqp:not-allowed");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        task.await.unwrap()
    })
    .await;
    assert!(matches!(ended, Err(Error::Stop(_))), "{ended:?}");
}

#[tokio::test]
async fn a_receiver_that_the_service_has_forgotten_is_opened_again() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    let sink = Arc::new(Sink::default());
    let task = consume(open(&double).looking_every(Duration::from_millis(300)), &sink, ROOMY);
    fill(&double, 0, 0, 3);
    within_limit(sink.until(3)).await;
    double.fall_silent(true);
    fill(&double, 0, 3, 6);
    within_limit(async {
        while double.receivers() < 2 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    double.fall_silent(false);
    within_limit(sink.until(6)).await;
    sink.stop();
    within_limit(task).await.unwrap().unwrap();
    sink.check(0, 0, 6);
}

/// A service that takes the connection and says nothing.
#[tokio::test]
async fn a_stop_waits_for_no_answer_and_all_share_one_attempt() {
    let double = EventHubsDouble::start();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("amqp://{}", listener.local_addr().unwrap());
    let hubs = EventHubs::open(&env_with(&double, &[("MILLSTREAM_EVENTHUBS_ENDPOINT", &endpoint)])).unwrap().unwrap();
    let sink = Arc::new(Sink::default());
    let tasks = [consume(hubs.clone(), &sink, ROOMY), consume(hubs.clone(), &sink, ROOMY)];
    let (held, _) = within_limit(listener.accept()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(200)).await;
    sink.stop();
    let begun = tokio::time::Instant::now();
    for task in tasks {
        within_limit(task).await.unwrap().unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    let more = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(more.is_err(), "one connection is opened for all");
    let asking = [hubs.partitions(HUB), hubs.partitions(HUB), hubs.partitions(HUB)];
    drop(held);
    for asked in within_limit(futures::future::join_all(asking)).await {
        assert!(asked.is_err_and(|error| error.is_retry()));
    }
}

#[tokio::test]
async fn many_that_ask_a_slow_service_wait_for_their_turn() {
    let double = EventHubsDouble::start();
    double.create(HUB, 1);
    double.delay(Duration::from_millis(150));
    let hubs = open_with_patience_of(&double, Duration::from_secs(1));
    let partition = partition(0);
    let asked = within_limit(futures::future::join_all((0..40).map(|_| hubs.watermarks(&partition)))).await;
    assert!(asked.iter().all(Result::is_ok), "{asked:?}");
    assert_eq!(double.connections(), 1);
}

#[tokio::test]
async fn a_session_that_is_not_begun_holds_no_other_partition_up() {
    let double = EventHubsDouble::start();
    double.create(HUB, 4);
    (0..4).for_each(|partition| fill(&double, partition, 0, 1));
    double.ignore_sessions();
    let hubs = open_with_patience_of(&double, Duration::from_secs(1));
    let partitions: Vec<_> = (0..4).map(partition).collect();
    let begun = tokio::time::Instant::now();
    let reads = partitions.iter().map(|partition| hubs.read(partition, 0..1, ROOMY));
    for read in within_limit(futures::future::join_all(reads)).await {
        assert!(read.is_err_and(|error| error.is_retry()));
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
}
