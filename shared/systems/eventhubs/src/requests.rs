//! Requests to a node of the service, each with its reply: `$cbs` takes tokens, `$management` tells of event hubs.

use fe2o3_amqp::{
    Receiver, Sender,
    session::SessionHandle,
    types::{
        messaging::{
            AmqpValue, ApplicationProperties, Body, Message, MessageId, Properties, message::DecodeIntoMessage as _,
        },
        primitives::{OrderedMap, SimpleValue, Value},
    },
};
use serde_amqp::read::SliceReader;
use tokio::time::timeout;

use crate::{connection::PATIENCE, failure::Failure, frames::unwrapped};

/// A link to the node and a link back.
pub(crate) struct Requests {
    to: Sender,
    back: Receiver,
    /// Where replies go: the name of this end of the link back.
    reply_to: String,
    sent: u64,
}

impl Requests {
    pub async fn attach(session: &mut SessionHandle<()>, node: &str) -> Result<Self, Failure> {
        let reply_to = format!("millstream-{}", node.trim_start_matches('$'));
        let to = Sender::attach(session, format!("{reply_to}-requests"), node).await?;
        let back = Receiver::builder()
            .name(format!("{reply_to}-replies"))
            .source(node)
            .target(reply_to.clone())
            .auto_accept(true)
            .attach(session)
            .await;
        match back {
            Ok(back) => Ok(Self { to, back, reply_to, sent: 0 }),
            Err(refused) => {
                // The service's answer would end the session if it came to a sender that is gone. What else fails is the session.
                let _ = timeout(PATIENCE, to.close()).await;
                Err(refused.into())
            }
        }
    }

    /// Sends one request and waits for its reply. The caller limits the time; a reply that comes after that is passed over.
    pub async fn call(
        &mut self,
        properties: impl IntoIterator<Item = (&'static str, SimpleValue)>,
        body: Value,
    ) -> Result<Value, Failure> {
        self.sent += 1;
        let id = format!("{}-{}", self.reply_to, self.sent);
        let properties = properties.into_iter().map(|(name, value)| (name.to_owned(), value));
        let request = Message::builder()
            .properties(Properties::builder().message_id(id.clone()).reply_to(self.reply_to.clone()).build())
            .application_properties(ApplicationProperties(properties.collect::<OrderedMap<_, _>>()))
            .body(AmqpValue(body))
            .build();
        let sent = self.to.send_batchable(request).await?;
        // Nothing wakes who waits for the outcome when only the link or its session ends.
        let outcome = tokio::select! {
            biased;
            outcome = sent => outcome?,
            detached = self.to.on_detach() => return Err(detached.into()),
        };
        if !outcome.is_accepted() {
            return Err(Failure::lost("the service did not accept a request"));
        }
        loop {
            let reply = unwrapped(self.back.recv().await?.into_body());
            let reply = Body::<Value>::decode_message_from_reader(SliceReader::new(&reply)).map_err(Failure::lost)?;
            let answers = reply.properties.as_ref().and_then(|properties| properties.correlation_id.as_ref());
            if answers != Some(&MessageId::String(id.clone())) {
                continue;
            }
            let told = reply.application_properties.as_ref();
            let find = |names: [&str; 2]| told.and_then(|told| names.iter().find_map(|name| told.0.get(*name)));
            let text = match find(["status-description", "statusDescription"]) {
                Some(SimpleValue::String(text)) => text.clone(),
                _ => String::new(),
            };
            return match find(["status-code", "statusCode"]) {
                Some(SimpleValue::Int(200..=299)) => Ok(match reply.body {
                    Body::Value(AmqpValue(value)) => value,
                    _ => Value::Null,
                }),
                Some(SimpleValue::Int(code)) => Err(Failure::Status { code: *code, text }),
                _ => Err(Failure::lost("a reply of the service has no status")),
            };
        }
    }
}
