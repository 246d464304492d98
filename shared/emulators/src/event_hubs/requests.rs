//! `$cbs` and `$management`.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp::{
    Receiver, Sender,
    types::{
        messaging::{AmqpValue, ApplicationProperties, Body, Message, Properties},
        primitives::{Array, OrderedMap, SimpleValue, Timestamp, Value},
    },
};
use millstream_core::{Clock as _, SystemClock};
use tokio::sync::mpsc;

use super::{
    server::{Client, Reply},
    token,
};

/// Status, text and body of a reply.
type Answer = (i32, String, Value);

pub(super) async fn reply(mut sender: Sender, name: String, client: Arc<Client>) {
    let (queue, mut replies) = mpsc::unbounded_channel::<Reply>();
    client.replies.lock().unwrap().insert(name, queue);
    while let Some(reply) = replies.recv().await {
        if sender.send(reply).await.is_err() {
            return;
        }
    }
}

pub(super) async fn serve(mut receiver: Receiver, node: String, client: Arc<Client>) {
    while let Ok(delivery) = receiver.recv::<Body<Value>>().await {
        if receiver.accept(&delivery).await.is_err() {
            return;
        }
        let request = delivery.into_message();
        let delay = client.namespace.look(|state| state.delay);
        tokio::time::sleep(delay.max(Duration::from_micros(1))).await;
        let asked = request.application_properties.clone().unwrap_or_else(|| ApplicationProperties(OrderedMap::new()));
        let (code, text, body) =
            if node == "$cbs" { put_token(&asked, &request.body, &client) } else { read(&asked, &client) };
        let properties = request.properties.unwrap();
        let mut told: OrderedMap<String, SimpleValue> = OrderedMap::new();
        told.insert("status-code".to_owned(), SimpleValue::Int(code));
        told.insert("status-description".to_owned(), SimpleValue::String(text));
        let reply = Message::builder()
            .properties(Properties::builder().correlation_id(properties.message_id.unwrap()).build())
            .application_properties(ApplicationProperties(told))
            .body(AmqpValue(body))
            .build();
        let to = client.replies.lock().unwrap().get(&properties.reply_to.unwrap()).cloned();
        to.expect("a request names the address of an attached receiver").send(reply).ok();
    }
}

fn text(asked: &ApplicationProperties, name: &str) -> String {
    match asked.0.get(name) {
        Some(SimpleValue::String(text)) => text.clone(),
        _ => String::new(),
    }
}

fn put_token(asked: &ApplicationProperties, body: &Body<Value>, client: &Client) -> Answer {
    if text(asked, "operation") != "put-token" {
        return (400, "the operation is unknown".to_owned(), Value::Null);
    }
    if client.namespace.look(|state| state.refuses_tokens) {
        return (401, "InvalidSignature: the key was changed".to_owned(), Value::Null);
    }
    let Body::Value(AmqpValue(Value::String(token))) = body else {
        return (400, "the token is no text".to_owned(), Value::Null);
    };
    match token::check(&text(asked, "type"), &text(asked, "name"), token) {
        Ok((hub, token)) => {
            client.tokens.lock().unwrap().insert(hub, token);
            client.namespace.change(|state| state.tokens_taken += 1);
            (202, "Accepted".to_owned(), Value::Null)
        }
        Err(why) => (401, why, Value::Null),
    }
}

fn read(asked: &ApplicationProperties, client: &Client) -> Answer {
    let name = text(asked, "name");
    if text(asked, "operation") != "READ" || text(asked, "security_token").is_empty() {
        return (400, "the request is malformed".to_owned(), Value::Null);
    }
    if !client.may_read(&name) {
        return (
            401,
            "Unauthorized access. 'Listen' claim(s) are required to perform this operation".to_owned(),
            Value::Null,
        );
    }
    if client.namespace.is_busy() {
        return (503, "The request was terminated because the namespace is being throttled".to_owned(), Value::Null);
    }
    client.namespace.look(|state| {
        let missing = || (404, format!("The messaging entity '{name}' could not be found"), Value::Null);
        let Some(hub) = state.hubs.get(&name) else { return missing() };
        let mut told: OrderedMap<Value, Value> = OrderedMap::new();
        let mut tell = |name: &str, value| drop(told.insert(Value::String(name.to_owned()), value));
        tell("name", Value::String(name.clone()));
        let kind = text(asked, "type");
        match kind.as_str() {
            "com.microsoft:eventhub" => {
                let ids = (0..hub.partitions.len()).map(|id| Value::String(id.to_string()));
                tell("created_at", Value::Timestamp(Timestamp::from_milliseconds(hub.created_ms)));
                tell("partition_count", Value::Int(hub.partitions.len() as i32));
                tell("partition_ids", Value::Array(Array(ids.collect())));
            }
            "com.microsoft:partition" => {
                let id = text(asked, "partition");
                let number = id.parse::<usize>().ok().filter(|number| number.to_string() == id);
                let Some(partition) = number.and_then(|number| hub.partitions.get(number)) else {
                    return (400, format!("The specified partition '{id}' is invalid"), Value::Null);
                };
                let last = partition.last();
                tell("partition", Value::String(id));
                tell("begin_sequence_number", Value::Long(if last < 0 { -1 } else { partition.first }));
                tell("last_enqueued_sequence_number", Value::Long(last));
                tell("last_enqueued_offset", Value::String((last * 100).to_string()));
                tell("last_enqueued_time_utc", Value::Timestamp(Timestamp::from_milliseconds(0)));
                tell("is_partition_empty", Value::Bool(partition.events.is_empty()));
            }
            _ => return (400, format!("the type `{kind}` is unknown"), Value::Null),
        }
        tell("type", Value::String(kind));
        (200, "OK".to_owned(), Value::Map(told))
    })
}

impl Client {
    /// Has it a token for an event hub that has not ended?
    pub fn may_read(&self, hub: &str) -> bool {
        let now_s = SystemClock.now_ms() / 1_000;
        self.tokens.lock().unwrap().get(&hub.to_lowercase()).is_some_and(|token| token.ends_s > now_s)
    }

    /// Has it one that allows to send?
    pub fn may_send(&self, hub: &str) -> bool {
        self.may_read(hub) && self.tokens.lock().unwrap().get(&hub.to_lowercase()).is_some_and(|token| token.may_send)
    }
}
