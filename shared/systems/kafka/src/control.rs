use std::{sync::Arc, time::Duration};

use millstream_core::{Error, Result, TopicPartition, Watermarks};
use rdkafka::{
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, KafkaResult, RDKafkaErrorCode as Code},
    topic_partition_list::{Offset, TopicPartitionList},
};

use crate::{
    link::Link,
    settings::{KafkaSettings, settings_error},
    topic_id::topic_id,
};

/// How many attempts a request has, and how long each: ten seconds in all, in slices so that a failed authentication is
/// noticed early.
const ATTEMPTS: usize = 5;
const ATTEMPT: Duration = Duration::from_secs(2);

/// How many queued events to read, after a failed request, to find its cause: `poll` also returns nothing for a line of
/// librdkafka's log, and those lines come before the errors that give the cause.
const POLLS_FOR_A_CAUSE: usize = 100;

/// The client for requests: metadata and watermarks. Its calls block, for at most ten seconds.
#[derive(Clone)]
pub(crate) struct Control(Arc<BaseConsumer<Link>>);

impl Control {
    pub(crate) fn new(settings: &KafkaSettings) -> Result<Self> {
        let link = Link::new(&settings.brokers);
        settings.control().create_with_context(link).map(|consumer| Self(Arc::new(consumer))).map_err(settings_error)
    }

    pub(crate) fn link(&self) -> &Link {
        self.0.context()
    }

    /// How many partitions a topic has; `Stop` when there is no such topic.
    pub(crate) fn partitions(&self, topic: &str) -> Result<i32> {
        let doing = format!("looking up topic {topic}");
        let metadata = self.ask(&doing, |client| client.fetch_metadata(Some(topic), ATTEMPT))?;
        let found = metadata.topics().iter().find(|found| found.name() == topic);
        match found.map(|found| (found.error().map(Code::from), found.partitions().len())) {
            Some((None, partitions)) if partitions > 0 => Ok(partitions as i32),
            None | Some((None | Some(Code::UnknownTopicOrPartition | Code::UnknownTopic), _)) => {
                Err(self.link().missing_topic(topic))
            }
            Some((Some(Code::InvalidTopic), _)) => Err(Error::stop(format!(
                "`{topic}` can't be the name of a topic: letters, digits, `.`, `_` and `-`, at most 249 of them"
            ))),
            Some((Some(code), _)) => Err(self.link().failure(&doing, code)),
        }
    }

    /// The id that the brokers gave a topic; `None` where they have no ids, or don't show them.
    pub(crate) fn topic_id(&self, topic: &str) -> Result<Option<String>> {
        let doing = format!("looking up the id of topic {topic}");
        self.ask(&doing, |client| match topic_id(client, topic, ATTEMPT) {
            // A broker that is too old for this request, or doesn't answer it, at all or to this user.
            Err(
                Code::UnsupportedFeature
                | Code::UnsupportedVersion
                | Code::InvalidRequest
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed,
            ) => Ok(None),
            Err(code) => Err(KafkaError::MetadataFetch(code)),
            Ok(id) => Ok(id),
        })
    }

    /// The same, asked once: also `None` when there is no answer within three seconds.
    pub(crate) fn topic_id_now(&self, topic: &str) -> Option<String> {
        topic_id(&self.0, topic, ATTEMPT).ok().flatten()
    }

    /// The offsets held now, up to the last stable one.
    pub(crate) fn watermarks(&self, partition: &TopicPartition) -> Result<Watermarks> {
        let TopicPartition { topic, partition, .. } = partition;
        let doing = format!("asking for the offsets of topic {topic}, partition {partition}");
        let (low, high) = self.ask(&doing, |client| client.fetch_watermarks(topic, *partition, ATTEMPT))?;
        Ok(Watermarks { low, high })
    }

    /// The offset of the first record that is not older than this. The broker looks through its records, with the largest
    /// timestamps of its segments as an index: the order of the timestamps doesn't matter.
    pub(crate) fn first_since(&self, partition: &TopicPartition, timestamp_ms: i64) -> Result<Option<i64>> {
        if timestamp_ms < 0 {
            // Negative times mean something else in this request. No record has one but -1, which says that it has none.
            let Watermarks { low, high } = self.watermarks(partition)?;
            return Ok((low < high).then_some(low));
        }
        let TopicPartition { topic, partition, .. } = partition;
        let doing = format!("asking for the first offset of a time in topic {topic}, partition {partition}");
        let mut wanted = TopicPartitionList::new();
        wanted
            .add_partition_offset(topic, *partition, Offset::Offset(timestamp_ms))
            .map_err(|error| Error::stop(format!("{doing}: {timestamp_ms} can't be asked for")).caused_by(error))?;
        self.ask(&doing, |client| {
            let found = client.offsets_for_times(wanted.clone(), ATTEMPT)?;
            let [found] = &found.elements()[..] else { return Err(KafkaError::OffsetFetch(Code::Fail)) };
            found.error()?;
            match found.offset() {
                Offset::Offset(offset) => Ok(Some(offset)),
                Offset::End => Ok(None),
                _ => Err(KafkaError::OffsetFetch(Code::Fail)),
            }
        })
    }

    /// All topics and their numbers of partitions.
    pub(crate) fn topics(&self) -> Result<Vec<(String, i32)>> {
        let metadata = self.ask("listing topics", |client| client.fetch_metadata(None, ATTEMPT))?;
        Ok(metadata.topics().iter().map(|topic| (topic.name().to_owned(), topic.partitions().len() as i32)).collect())
    }

    fn ask<T>(&self, doing: &str, request: impl Fn(&BaseConsumer<Link>) -> KafkaResult<T>) -> Result<T> {
        let mut last = Code::OperationTimedOut;
        for _ in 0..ATTEMPTS {
            let code = match request(&self.0) {
                Ok(answer) => {
                    self.link().mark_reachable();
                    return Ok(answer);
                }
                Err(KafkaError::MetadataFetch(code) | KafkaError::OffsetFetch(code)) => code,
                Err(_) => Code::OperationTimedOut,
            };
            // What else the client has to report waits in its queue.
            for _ in 0..POLLS_FOR_A_CAUSE {
                let _ = self.0.poll(Duration::ZERO);
            }
            if let Some(refusal) = self.link().refusal() {
                return Err(refusal.context(doing));
            }
            last = code;
            match code {
                Code::UnknownTopicOrPartition | Code::UnknownTopic | Code::UnknownPartition => {
                    return Err(Error::stop(format!(
                        "{doing}: it does not exist on {}; `millstream up` creates topics",
                        self.link().brokers()
                    )));
                }
                Code::BrokerTransportFailure
                | Code::SSL
                | Code::OperationTimedOut
                | Code::AllBrokersDown
                | Code::Resolve => {}
                code => return Err(self.link().failure(doing, code)),
            }
        }
        Err(self.link().failure(doing, last))
    }
}

/// Runs blocking work on a thread that may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(Error::retry("a call to Kafka was cut short").caused_by(error)),
    }
}
