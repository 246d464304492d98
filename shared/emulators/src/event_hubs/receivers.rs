//! Receivers of partitions.

use std::{sync::Arc, time::Duration};

use fe2o3_amqp::{
    Sender,
    link::delivery::Sendable,
    types::{
        definitions,
        messaging::{AmqpValue, Source},
    },
};
use tokio::time::timeout;

use super::{HOST, filter::find_start, namespace::State, server::Client, server::refusal};

/// How many receivers of one partition a consumer group may have.
const MOST: usize = 5;

/// How often a receiver without events looks whether its token has ended.
const LOOK: Duration = Duration::from_millis(50);

/// The partition that an address names.
struct Address {
    hub: String,
    group: String,
    partition: usize,
}

pub(super) async fn serve(sender: Sender, source: Source, client: Arc<Client>) {
    let address = source.address.clone().unwrap_or_default();
    match begin(&address, &source, &client) {
        Ok((address, start, created_ms)) => {
            let key = format!("{}/{}/{}", address.hub, address.group, address.partition);
            let _open = Open(key, client.clone());
            send(sender, &address, start, created_ms, &client).await;
        }
        Err(refused) => drop(sender.close_with_error(refused).await),
    }
}

/// Where the receiver begins, and when its event hub was created; or why it is refused.
fn begin(address: &str, source: &Source, client: &Client) -> Result<(Address, i64, i64), definitions::Error> {
    let not_found = || refusal("amqp:not-found", format!("The messaging entity '{address}' could not be found."));
    let path = address.strip_prefix(&format!("amqps://{HOST}/")).ok_or_else(not_found)?;
    let parts: Vec<&str> = path.split('/').collect();
    let [hub, "ConsumerGroups", group, "Partitions", id] = parts[..] else { return Err(not_found()) };
    if !client.may_read(hub) {
        let text = "Unauthorized access. 'Listen' claim(s) are required to perform this operation.";
        return Err(refusal("amqp:unauthorized-access", text));
    }
    if client.namespace.is_busy() {
        return Err(refusal("com.microsoft:server-busy", "The namespace is being throttled."));
    }
    client.namespace.change(|state: &mut State| {
        state.attaching(hub);
        let held =
            state.hubs.get(hub).filter(|held| held.groups.contains(&group.to_lowercase())).ok_or_else(not_found)?;
        let number = id.parse::<usize>().ok().filter(|number| number.to_string() == id);
        let partition = number.and_then(|number| held.partitions.get(number)).ok_or_else(|| {
            refusal("com.microsoft:argument-out-of-range", format!("The specified partition '{id}' is invalid."))
        })?;
        let start = find_start(source, partition).map_err(|(condition, text)| refusal(condition, text))?;
        let address =
            Address { hub: hub.to_owned(), group: group.to_lowercase(), partition: number.unwrap_or_default() };
        let created_ms = held.created_ms;
        let open = state.open.entry(format!("{hub}/{}/{id}", address.group)).or_default();
        if *open >= MOST {
            let text = "Exceeded the maximum number of allowed receivers per partition in a consumer group which is 5.";
            return Err(refusal("amqp:resource-limit-exceeded", text));
        }
        *open += 1;
        state.receivers_opened += 1;
        Ok((address, start, created_ms))
    })
}

async fn send(mut sender: Sender, address: &Address, start: i64, created_ms: i64, client: &Client) {
    let mut changes = client.namespace.changes();
    let closings = client.namespace.look(|state| state.closing.0);
    let mut next = start;
    loop {
        changes.mark_unchanged();
        if !client.may_read(&address.hub) {
            let refused = refusal("amqp:unauthorized-access", "ExpiredToken: The token is expired.");
            return drop(sender.close_with_error(refused).await);
        }
        let (closing, is_unsettled, is_silent) =
            client.namespace.look(|state| (state.closing.clone(), state.is_unsettled, state.is_silent));
        if closing.0 > closings {
            return drop(sender.close_with_error(refusal(&closing.1, "The receiver is closed.")).await);
        }
        let found = client.namespace.look(|state| {
            let hub = state.hubs.get(&address.hub).filter(|hub| hub.created_ms == created_ms)?;
            let partition = &hub.partitions[address.partition];
            // Retention may have overtaken the receiver.
            let mut at = next.max(partition.first);
            while partition.hidden.contains(&at) {
                at += 1;
            }
            Some((at, partition.message(at)))
        });
        match found {
            None => {
                let refused = refusal("amqp:not-found", "The messaging entity was deleted.");
                return drop(sender.close_with_error(refused).await);
            }
            Some((at, Some((message, raw)))) if !is_silent => {
                next = at + 1;
                let sent = match raw {
                    Some(raw) => {
                        let message = message.map_body(|_| AmqpValue(raw));
                        sender.send(Sendable::builder().message(message).settled(!is_unsettled).build()).await
                    }
                    None => sender.send(Sendable::builder().message(message).settled(!is_unsettled).build()).await,
                };
                if !sent.is_ok_and(|outcome| outcome.is_accepted()) {
                    return;
                }
                client.namespace.sent();
            }
            Some((at, waiting)) => {
                if waiting.is_none() {
                    next = at.max(next);
                }
                tokio::select! {
                    _ = timeout(LOOK, changes.changed()) => {}
                    _ = sender.on_detach() => return,
                }
            }
        }
    }
}

/// A receiver that is open.
struct Open(String, Arc<Client>);

impl Drop for Open {
    fn drop(&mut self) {
        self.1.namespace.change(|state| *state.open.entry(self.0.clone()).or_insert(1) -= 1);
    }
}
