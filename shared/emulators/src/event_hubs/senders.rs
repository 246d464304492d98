//! Senders to partitions.

use std::sync::Arc;

use fe2o3_amqp::{
    Receiver,
    types::{
        definitions,
        messaging::{Body, Message, message::__private::Serializable},
        primitives::Value,
    },
};

use super::{HOST, NewEvent, server::Client, server::refusal};

pub(super) async fn serve(mut receiver: Receiver, address: String, client: Arc<Client>) {
    let (hub, partition) = match begin(&address, &client) {
        Ok(place) => place,
        Err(refused) => return drop(receiver.close_with_error(refused).await),
    };
    let mut changes = client.namespace.changes();
    let closed = client.namespace.change(|state| {
        state.senders_opened += 1;
        state.senders_closed
    });
    loop {
        changes.mark_unchanged();
        if client.namespace.look(|state| state.senders_closed > closed) {
            return drop(receiver.close().await);
        }
        let delivery = tokio::select! {
            received = receiver.recv::<Body<Value>>() => received,
            _ = changes.changed() => continue,
        };
        let Ok(delivery) = delivery else { return };
        if client.namespace.is_rejected() {
            if receiver.reject(&delivery, busy()).await.is_err() {
                return;
            }
            continue;
        }
        if let Err(refused) = take(delivery.message().clone(), &hub, partition, &client) {
            return drop(receiver.close_with_error(refused).await);
        }
        if receiver.accept(&delivery).await.is_err() {
            return;
        }
    }
}

fn busy() -> definitions::Error {
    refusal("com.microsoft:server-busy", "The namespace is being throttled.")
}

/// The event hub and the partition; or why the sender is refused.
fn begin(address: &str, client: &Client) -> Result<(String, i32), definitions::Error> {
    let not_found = || refusal("amqp:not-found", format!("The messaging entity '{address}' could not be found."));
    let path = address.strip_prefix(&format!("amqps://{HOST}/")).ok_or_else(not_found)?;
    let parts: Vec<&str> = path.split('/').collect();
    let [hub, "Partitions", id] = parts[..] else { return Err(not_found()) };
    check(hub, client)?;
    if client.namespace.is_busy() {
        return Err(busy());
    }
    let count = client.namespace.look(|state| state.hubs.get(hub).map(|hub| hub.partitions.len()));
    let number = id.parse::<usize>().ok().filter(|number| number.to_string() == id);
    match (count, number) {
        (None, _) => Err(not_found()),
        (Some(count), Some(number)) if number < count => Ok((hub.to_owned(), number as i32)),
        _ => Err(refusal("com.microsoft:argument-out-of-range", format!("The specified partition '{id}' is invalid."))),
    }
}

fn check(hub: &str, client: &Client) -> Result<(), definitions::Error> {
    if client.may_send(hub) {
        return Ok(());
    }
    let text = "Unauthorized access. 'Send' claim(s) are required to perform this operation.";
    Err(refusal("amqp:unauthorized-access", text))
}

fn take(message: Message<Body<Value>>, hub: &str, partition: i32, client: &Client) -> Result<(), definitions::Error> {
    check(hub, client)?;
    let (bytes, most) = (serde_amqp::to_vec(&Serializable(&message)).unwrap().len(), client.namespace.max_bytes);
    if bytes > most {
        let text = format!("The received message (size:{bytes} bytes) exceeds the limit ({most} bytes).");
        return Err(refusal("amqp:link:message-size-exceeded", text));
    }
    let event = NewEvent {
        key: None,
        raw: None,
        body: message.body,
        properties: message.application_properties.map(|all| all.0.into_iter().collect()).unwrap_or_default(),
        enqueued_ms: None,
    };
    client
        .namespace
        .append(hub, partition, event)
        .map(drop)
        .map_err(|error| refusal("amqp:link:message-size-exceeded", error.to_string()))
}
