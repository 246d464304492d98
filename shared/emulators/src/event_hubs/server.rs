use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use fe2o3_amqp::{
    acceptor::{
        ConnectionAcceptor, LinkAcceptor, LinkEndpoint, ListenerSessionHandle, SaslAnonymousMechanism, SessionAcceptor,
        SupportedSenderSettleModes,
    },
    types::{
        definitions::{self, ErrorCondition, Role, SenderSettleMode},
        messaging::{AmqpValue, Message, TargetArchetype},
        performatives::Attach,
        primitives::{Symbol, Value},
    },
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, oneshot},
};

use super::{namespace::Namespace, receivers, requests, senders, token::Token};

/// What a client has on one connection.
pub(super) struct Client {
    pub namespace: Arc<Namespace>,
    /// The token for each event hub.
    pub tokens: Mutex<HashMap<String, Token>>,
    /// Where replies go, by the name that requests give.
    pub replies: Mutex<HashMap<String, mpsc::UnboundedSender<Reply>>>,
}

pub(super) type Reply = Message<AmqpValue<Value>>;

/// Serves on a thread of its own, until what it returns is dropped. One thread, because a sender of fe2o3-amqp 0.14 may wait for
/// ever for a credit that it is given by another thread at the same moment (`SenderFlowState::consume`).
pub(super) fn serve(namespace: Arc<Namespace>) -> (SocketAddr, oneshot::Sender<()>) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    let (alive, ended) = oneshot::channel();
    let accepting = async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_connection(stream, namespace.clone()));
        }
    };
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            tokio::select! {
                () = accepting => {}
                _ = ended => {}
            }
        });
    });
    (address, alive)
}

async fn serve_connection(stream: TcpStream, namespace: Arc<Namespace>) {
    stream.set_nodelay(true).unwrap();
    let stream = stream.into_std().unwrap();
    namespace.connected(stream.try_clone().unwrap());
    let stream = TcpStream::from_std(stream).unwrap();
    let acceptor =
        ConnectionAcceptor::builder().container_id("double").sasl_acceptor(SaslAnonymousMechanism::new()).build();
    let Ok(mut connection) = acceptor.accept(stream).await else { return };
    let client = Arc::new(Client { namespace, tokens: Mutex::default(), replies: Mutex::default() });
    let mut is_first = true;
    while let Some(begun) = connection.next_incoming_session().await {
        if !std::mem::take(&mut is_first) && client.namespace.look(|state| state.ignores_sessions) {
            continue;
        }
        let Ok(session) = SessionAcceptor::new().accept_incoming_session(begun, &mut connection).await else { return };
        tokio::spawn(serve_session(session, client.clone()));
    }
}

async fn serve_session(mut session: ListenerSessionHandle, client: Arc<Client>) {
    while let Some(attach) = session.next_incoming_attach().await {
        let node = address_of(&attach);
        let reply_to = match attach.target.as_deref() {
            Some(TargetArchetype::Target(target)) => target.address.clone().unwrap_or_default(),
            _ => String::new(),
        };
        let source = attach.source.as_deref().cloned().unwrap_or_default();
        let client = client.clone();
        // What may be sent to the double; what it sends itself was measured when it came.
        let most = if attach.role == Role::Sender { client.namespace.max_bytes as u64 } else { 0 };
        let acceptor = LinkAcceptor::builder().max_message_size(most);
        let acceptor = if client.namespace.look(|state| state.is_unsettled) {
            acceptor
                .supported_sender_settle_modes(SupportedSenderSettleModes::Unsettled)
                .fallback_sender_settle_mode(SenderSettleMode::Unsettled)
        } else {
            acceptor
        };
        let Ok(link) = acceptor.build().accept_incoming_attach(attach, &mut session).await else { continue };
        match link {
            LinkEndpoint::Receiver(receiver) if node == "$cbs" || node == "$management" => {
                tokio::spawn(requests::serve(receiver, node, client));
            }
            LinkEndpoint::Receiver(receiver) => {
                tokio::spawn(senders::serve(receiver, node, client));
            }
            LinkEndpoint::Sender(sender) if node == "$cbs" || node == "$management" => {
                tokio::spawn(requests::reply(sender, reply_to, client));
            }
            LinkEndpoint::Sender(sender) => {
                tokio::spawn(receivers::serve(sender, source, client));
            }
        }
    }
}

/// The node of the service that a link is attached to.
fn address_of(attach: &Attach) -> String {
    let address = match attach.role {
        Role::Receiver => attach.source.as_deref().and_then(|source| source.address.clone()),
        Role::Sender => match attach.target.as_deref() {
            Some(TargetArchetype::Target(target)) => target.address.clone(),
            _ => None,
        },
    };
    address.unwrap_or_default()
}

pub(super) fn refusal(condition: &str, text: impl Into<String>) -> definitions::Error {
    let text = format!("{} TrackingId:0_G0, SystemTracker:double, Timestamp:2026", text.into());
    definitions::Error::new(ErrorCondition::Custom(Symbol::from(condition)), Some(text), None)
}
