use std::{collections::HashMap, convert::Infallible, sync::Arc, thread, time::Duration};

use async_trait::async_trait;
use millstream_core::{Error, Handler, Result, Source, Subscription};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tokio::sync::oneshot;

use crate::{
    Kafka,
    control::blocking,
    group::{GRACE, Group, LEAVING},
    member::Member,
    settings::settings_error,
};

/// How often it is checked whether the member must stop.
const TICK: Duration = Duration::from_millis(50);

/// How often the topics' ids are checked.
const CHECK_TOPICS: Duration = Duration::from_secs(10);

#[async_trait]
impl Source for Kafka {
    async fn consume(&self, subscription: Subscription, handler: Arc<dyn Handler>) -> Result<()> {
        let member = Arc::new(Member::new(&self.settings.brokers, self.control.clone(), &subscription, handler));
        let _guard = EndWhenDropped(member.clone());
        let topics: Vec<String> = subscription.topics.iter().map(|(topic, _)| topic.clone()).collect();
        let Some(partitions) = count_partitions(&member, &topics).await? else { return Ok(()) };
        let config = self.settings.member(&subscription.group, partitions);
        let group = Group::new(member.clone());
        let consumer: BaseConsumer<Group> = config.create_with_context(group).map_err(settings_error)?;
        let consumer = Arc::new(consumer);
        consumer.context().set_consumer(&consumer);
        let names: Vec<&str> = topics.iter().map(String::as_str).collect();
        consumer.subscribe(&names).map_err(|error| {
            Error::stop(format!("these topics can't be read: {}", topics.join(", "))).caused_by(error)
        })?;
        // An idempotent producer takes half a second to connect: the first dead letter should not wait for that.
        self.sender.connect()?;
        let (served, left) = serve_on_a_thread(consumer)?;
        tokio::select! {
            never = watch_topics(&member, &topics) => match never {},
            _ = served => {}
            () = until_overdue(&member) => tracing::warn!("the partitions were not given back in time"),
        }
        let outcome = member.outcome();
        // Leaving the group is bounded as well: a broker that is gone must not keep a process alive.
        if tokio::time::timeout(LEAVING, left).await.is_err() {
            tracing::warn!("the consumer group was not left within {LEAVING:?}; its session will time out");
        }
        outcome
    }
}

/// Serves the group on a thread. The two signals say that the partitions are given back, and that the group is left.
fn serve_on_a_thread(consumer: Arc<BaseConsumer<Group>>) -> Result<(oneshot::Receiver<()>, oneshot::Receiver<()>)> {
    let (serving, served) = oneshot::channel::<()>();
    let (leaving, left) = oneshot::channel::<()>();
    let body = move || {
        consumer.context().serve(&consumer);
        drop(serving);
        drop(consumer);
        drop(leaving);
    };
    thread::Builder::new()
        .name("consumer-group".into())
        .spawn(body)
        .map_err(|error| Error::retry("the system gives no more threads").caused_by(error))?;
    Ok((served, left))
}

/// How many partitions the topics have. Asks until the brokers answer; `None` when the member must stop before they do. A
/// missing topic is found here: librdkafka would wait for it forever.
async fn count_partitions(member: &Member, topics: &[String]) -> Result<Option<usize>> {
    let mut count = 0;
    for topic in topics {
        loop {
            let (control, name) = (member.control().clone(), topic.clone());
            let asked = tokio::select! {
                asked = blocking(move || control.partitions(&name)) => asked,
                () = until_stopping(member) => return Ok(None),
            };
            match asked {
                Ok(partitions) => break count += partitions as usize,
                // The call has waited for some seconds, and its client has logged the outage.
                Err(error) if error.is_retry() => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Some(count))
}

/// librdkafka doesn't notice when a topic is deleted and re-created while it is read: it goes on at the same offset. So this
/// asks for the topics' ids now and then. When one has changed, the partitions restart, and their start judges the topic.
async fn watch_topics(member: &Member, topics: &[String]) -> Infallible {
    let mut known: HashMap<&String, String> = HashMap::new();
    loop {
        for topic in topics {
            let (control, name) = (member.control().clone(), topic.clone());
            // A topic that can't be asked about now is asked about the next time.
            let Ok(Some(id)) = blocking(move || Ok(control.topic_id_now(&name))).await else { continue };
            if known.insert(topic, id.clone()).is_some_and(|known| known != id) {
                member.ask_restart(&Error::retry(format!("topic {topic} has another id: it was re-created")));
            }
        }
        tokio::time::sleep(CHECK_TOPICS).await;
    }
}

/// Returns when the member must stop.
async fn until_stopping(member: &Member) {
    while !member.is_stopping() {
        tokio::time::sleep(TICK).await;
    }
}

/// Returns when the member should have stopped long ago: calls into librdkafka that wait for a broker have no limit.
async fn until_overdue(member: &Member) {
    until_stopping(member).await;
    tokio::time::sleep(GRACE + LEAVING + LEAVING).await;
}

/// Ends the member's threads when the future of `consume` is dropped.
struct EndWhenDropped(Arc<Member>);

impl Drop for EndWhenDropped {
    fn drop(&mut self) {
        self.0.end();
    }
}
