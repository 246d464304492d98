use std::{sync::Arc, time::Duration};

use millstream_core::{Connect as _, Error, Limits, Log as _};
use millstream_emulators::event_hubs::EventHubsDouble;
use millstream_eventhubs::EventHubs;

use crate::support::{
    HUB, ROOMY, Sink, consume, env, env_with, fill, open, open_with_tokens_of, partition, within_limit,
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
