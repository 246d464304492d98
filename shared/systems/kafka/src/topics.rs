use std::time::Duration;

use async_trait::async_trait;
use millstream_core::{Error, Result, TopicInfo, Topics};
use rdkafka::{
    Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication},
    consumer::{BaseConsumer, Consumer},
    error::{KafkaError, RDKafkaErrorCode as Code},
};

use crate::{Kafka, control::blocking, link::Link, settings::settings_error};

/// How long the cluster may take for an administrative request.
const REQUEST: Duration = Duration::from_secs(10);

/// How many times a new topic is looked for, and the pause between.
const LOOKS: usize = 100;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

#[async_trait]
impl Topics for Kafka {
    async fn create_topic(&self, name: &str, partitions: i32, config: &[(&str, &str)]) -> Result<()> {
        // Asks first: a user without the right to create topics may still use one that exists. A failed authentication
        // shows here too.
        if self.has_topic(name).await? {
            return Ok(());
        }
        let doing = format!("creating topic {name}");
        // -1: as many replicas as the brokers' own default says.
        let topic = NewTopic {
            name,
            num_partitions: partitions,
            replication: TopicReplication::Fixed(-1),
            config: config.to_vec(),
        };
        let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
        let answer = self.admin()?.create_topics([&topic], &options).await;
        match answer.map_err(|error| self.admin_failure(&doing, &error))?.pop() {
            None | Some(Ok(_) | Err((_, Code::TopicAlreadyExists))) => {}
            Some(Err((_, Code::InvalidTopic))) => {
                return Err(Error::stop(format!(
                    "`{name}` can't be the name of a topic: letters, digits, `.`, `_` and `-`, at most 249 of them"
                )));
            }
            Some(Err((_, code @ (Code::InvalidConfig | Code::InvalidPartitions | Code::PolicyViolation)))) => {
                return Err(Error::stop(format!("{doing} with {partitions} partitions and {config:?}: {code}")));
            }
            Some(Err((_, code))) => return Err(self.control.link().failure(&doing, code)),
        }
        for _ in 0..LOOKS {
            if self.has_topic(name).await? {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(Error::retry(format!("{doing}: it was created, but the brokers do not show it yet")))
    }

    async fn raise_partitions(&self, name: &str, partitions: i32) -> Result<()> {
        let held = |kafka: &Self| {
            let (control, name) = (kafka.control.clone(), name.to_owned());
            blocking(move || control.partitions(&name))
        };
        if held(self).await? >= partitions {
            return Ok(());
        }
        let doing = format!("raising the partitions of topic {name} to {partitions}");
        let wanted = NewPartitions::new(name, usize::try_from(partitions).unwrap_or_default());
        let options = AdminOptions::new().request_timeout(Some(REQUEST)).operation_timeout(Some(REQUEST));
        let answer = self.admin()?.create_partitions([&wanted], &options).await;
        match answer.map_err(|error| self.admin_failure(&doing, &error))?.pop() {
            None | Some(Ok(_)) => {}
            // Too many for the broker, unless another process has raised them meanwhile.
            Some(Err((_, Code::InvalidPartitions))) if held(self).await? >= partitions => {}
            Some(Err((_, code @ (Code::InvalidPartitions | Code::PolicyViolation)))) => {
                return Err(Error::stop(format!("{doing}: {code}")));
            }
            Some(Err((_, code))) => return Err(self.control.link().failure(&doing, code)),
        }
        for _ in 0..LOOKS {
            if held(self).await? >= partitions {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(Error::retry(format!("{doing}: it was done, but the brokers do not show it yet")))
    }

    async fn topics(&self) -> Result<Vec<TopicInfo>> {
        let control = self.control.clone();
        let mut topics: Vec<TopicInfo> = blocking(move || control.topics())
            .await?
            .into_iter()
            .filter(|(name, _)| !name.starts_with("__"))
            .map(|(name, partitions)| TopicInfo { name, partitions })
            .collect();
        topics.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(topics)
    }
}

impl Kafka {
    /// What a consumer group has committed of a topic, by partition; `None` where it has committed nothing. For display only:
    /// the fences decide.
    pub(crate) async fn committed(&self, group: &str, topic: &str) -> Result<Vec<Option<i64>>> {
        let (kafka, group, topic) = (self.clone(), group.to_owned(), topic.to_owned());
        blocking(move || {
            let partitions = kafka.control.partitions(&topic)?;
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(&topic, 0, partitions - 1);
            let mut config = kafka.settings.control();
            config.set("group.id", &group);
            let link = Link::new(&kafka.settings.brokers);
            let client: BaseConsumer<Link> = config.create_with_context(link).map_err(settings_error)?;
            let committed = client.committed_offsets(asked, REQUEST).map_err(|error| {
                let code = error.rdkafka_error_code().unwrap_or(Code::OperationTimedOut);
                client.context().failure(&format!("asking what group {group} has committed"), code)
            })?;
            let offset = |partition| match committed.find_partition(&topic, partition)?.offset() {
                Offset::Offset(offset) => Some(offset),
                _ => None,
            };
            Ok((0..partitions).map(offset).collect())
        })
        .await
    }

    /// A broker's setting of a topic, for an error message: `None` if the request fails.
    pub(crate) async fn topic_setting(&self, topic: &str, name: &str) -> Option<String> {
        let options = AdminOptions::new().request_timeout(Some(REQUEST));
        let answers = self.admin().ok()?.describe_configs([&ResourceSpecifier::Topic(topic)], &options).await.ok()?;
        answers.into_iter().next()?.ok()?.get(name)?.value.clone()
    }

    async fn has_topic(&self, name: &str) -> Result<bool> {
        let (control, name) = (self.control.clone(), name.to_owned());
        blocking(move || Ok(control.topics()?.iter().any(|(topic, _)| *topic == name))).await
    }

    fn admin(&self) -> Result<AdminClient<Link>> {
        let link = Link::new(&self.settings.brokers);
        self.settings.control().create_with_context(link).map_err(settings_error)
    }

    fn admin_failure(&self, doing: &str, error: &KafkaError) -> Error {
        match error {
            KafkaError::AdminOp(code) => self.control.link().failure(doing, *code),
            // A name or a number that librdkafka refuses to send.
            KafkaError::AdminOpCreation(reason) => Error::stop(format!("{doing}: {reason}")),
            _ => Error::retry(format!("{doing}: no answer from Kafka at {}", self.settings.brokers)),
        }
    }
}
