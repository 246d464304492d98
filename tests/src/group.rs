use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use rdkafka::{ClientConfig, consumer::BaseConsumer, consumer::Consumer};

const LIMIT: Duration = Duration::from_secs(10);

/// Removes a consumer group's dead members, so that a test that has killed them doesn't wait for their session timeout.
/// It only saves time: exactly-once doesn't depend on the group.
pub async fn say_goodbye(brokers: &str, group: &str) {
    let (brokers, group) = (brokers.to_owned(), group.to_owned());
    tokio::task::spawn_blocking(move || {
        let client: BaseConsumer = ClientConfig::new().set("bootstrap.servers", &brokers).create().unwrap();
        let Ok(groups) = client.fetch_group_list(Some(&group), LIMIT) else { return };
        for found in groups.groups() {
            for member in found.members() {
                leave(&brokers, &group, member.id());
            }
        }
    })
    .await
    .unwrap();
}

/// `LeaveGroup`, version 1, as in the Kafka protocol guide. The tests have one broker, which coordinates every group.
fn leave(brokers: &str, group: &str, member: &str) {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let (key, version, correlation) = (13_i16.to_be_bytes(), 1_i16.to_be_bytes(), 7_i32.to_be_bytes());
    let request = [&key[..], &version, &correlation, &text("tests"), &text(group), &text(member)].concat();
    let mut broker = TcpStream::connect(brokers).unwrap();
    broker.set_read_timeout(Some(LIMIT)).unwrap();
    broker.write_all(&[&(request.len() as i32).to_be_bytes()[..], &request].concat()).unwrap();
    // Length, correlation, throttle time, error.
    let mut answer = [0; 14];
    broker.read_exact(&mut answer).unwrap();
    let error = i16::from_be_bytes([answer[12], answer[13]]);
    // 25: it is no longer a member.
    assert!([0, 25].contains(&error), "the broker answered {error} to LeaveGroup of group {group}");
}
