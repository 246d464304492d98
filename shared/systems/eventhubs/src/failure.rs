//! What the service or the network answered, and the error that it is to the caller.

use std::{error::Error as StdError, sync::Arc, time::Duration};

use fe2o3_amqp::{
    connection::OpenError,
    link::{DetachError, LinkStateError, ReceiverAttachError, RecvError, SendError, SenderAttachError},
    session::BeginError,
    types::{
        definitions::{self, ErrorCondition},
        primitives::Symbol,
    },
};
use millstream_core::Error;

/// How long a caller waits after "server busy": what Microsoft's clients wait (`ServerBusyBaseSleepTimeInSecs` of the one for .NET).
const BUSY: Duration = Duration::from_secs(4);

/// A service's text is cut to this: it may be long, with identifiers for Microsoft's support at its end.
const MAX_TEXT: usize = 300;

/// Why a call failed.
#[derive(Clone, Debug)]
pub(crate) enum Failure {
    /// The service refused it, by an AMQP condition such as `amqp:not-found`.
    Refused { condition: String, text: String },
    /// A reply of `$cbs` or `$management` has a status other than success.
    Status { code: i32, text: String },
    /// The connection, or a part of it, is gone; or no answer came.
    Lost(Arc<dyn StdError + Send + Sync>),
}

impl Failure {
    pub fn lost(why: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        Self::Lost(why.into().into())
    }

    pub fn refused(error: &definitions::Error) -> Self {
        let condition = match &error.condition {
            ErrorCondition::AmqpError(condition) => Symbol::from(condition),
            ErrorCondition::ConnectionError(condition) => Symbol::from(condition),
            ErrorCondition::SessionError(condition) => Symbol::from(condition),
            ErrorCondition::LinkError(condition) => Symbol::from(condition),
            ErrorCondition::Custom(condition) => condition.clone(),
        };
        let condition = condition.0;
        Self::Refused { condition, text: error.description.clone().unwrap_or_default() }
    }

    /// The service did not accept an event, for no reason that it gives.
    pub fn not_accepted(outcome: &str) -> Self {
        Self::Refused { condition: outcome.to_owned(), text: format!("the service did not accept an event: {outcome}") }
    }

    /// Must the connection be opened anew?
    pub fn is_lost(&self) -> bool {
        matches!(self, Self::Lost(_))
    }

    /// Does the service take no more for now?
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Refused { condition, .. } if condition.ends_with(":server-busy"))
    }

    /// Did the service want another token?
    pub fn is_unauthorized(&self) -> bool {
        match self {
            Self::Refused { condition, .. } => condition == "amqp:unauthorized-access",
            Self::Status { code, .. } => matches!(code, 401 | 403),
            Self::Lost(_) => false,
        }
    }

    /// The error for the caller. `doing` says what was tried, and with which event hub.
    pub fn into_error(self, doing: &str) -> Error {
        match self {
            Self::Lost(why) => Error::retry(format!("{doing}: the connection to Event Hubs was lost"))
                .caused_by(Box::new(why) as Box<dyn StdError + Send + Sync>),
            Self::Status { code, text } => status(code, format!("{doing}: {}", cut(&text, &format!("status {code}")))),
            Self::Refused { condition, text } => {
                let name = condition.rsplit(':').next().unwrap_or_default().to_owned();
                refusal(&name, format!("{doing}: {}", cut(&text, &condition)))
            }
        }
    }
}

/// The error of an AMQP condition, by the last part of its name.
fn refusal(condition: &str, what: String) -> Error {
    match condition {
        "not-found" | "entity-disabled" => Error::stop(format!(
            "{what}. Create the event hub in the portal, or by `az eventhubs eventhub create`, and look at \
             MILLSTREAM_EVENTHUBS_CONSUMER_GROUP"
        )),
        "unauthorized-access" => {
            let clock = if what.contains("Expired") {
                ". A token begins and ends by this machine's clock: look whether it is right"
            } else {
                ""
            };
            Error::stop(format!(
                "{what}. The policy in MILLSTREAM_EVENTHUBS_CONNECTION needs the right `Listen`, and `Send` for an event hub that \
                 dead letters go to{clock}"
            ))
        }
        "not-allowed" | "not-implemented" => Error::stop(what),
        "stolen" => Error::retry(format!(
            "{what}. Another reader of this partition has claimed it with an owner level, as Azure Functions and \
             EventProcessorClient do, and the service closes all readers without one. Give millstream a consumer group of its own \
             (MILLSTREAM_EVENTHUBS_CONSUMER_GROUP), or end the other reader: the Basic tier has only one group"
        )),
        "message-size-exceeded" => Error::poison(what),
        "server-busy" => Error::retry(what).not_before(BUSY),
        "resource-limit-exceeded" if what.contains("receiver") => Error::retry(format!(
            "{what}. Five receivers may read one partition in one consumer group: end the others if there are more"
        ))
        .not_before(BUSY),
        "resource-limit-exceeded" => Error::retry(what).not_before(BUSY),
        _ => Error::retry(what),
    }
}

fn status(code: i32, what: String) -> Error {
    match code {
        401 | 403 => refusal("unauthorized-access", what),
        404 | 410 => refusal("not-found", what),
        429 | 503 => refusal("server-busy", what),
        _ => Error::retry(what),
    }
}

/// The service's text up to its identifiers, or `other` if there is none.
fn cut(text: &str, other: &str) -> String {
    let text = text.split("TrackingId:").next().unwrap_or_default().trim();
    let text = text.split(" Reference:").next().unwrap_or_default().trim_end_matches(['.', ' ']);
    match text {
        "" => other.to_owned(),
        text => text[..text.floor_char_boundary(MAX_TEXT)].to_owned(),
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        match &error {
            OpenError::RemoteClosedWithError(refused) => Self::refused(refused),
            _ => Self::lost(error),
        }
    }
}

impl From<BeginError> for Failure {
    fn from(error: BeginError) -> Self {
        Self::lost(error)
    }
}

impl From<ReceiverAttachError> for Failure {
    fn from(error: ReceiverAttachError) -> Self {
        match &error {
            ReceiverAttachError::RemoteClosedWithError(refused) => Self::refused(refused),
            _ => Self::lost(error),
        }
    }
}

impl From<SenderAttachError> for Failure {
    fn from(error: SenderAttachError) -> Self {
        match &error {
            SenderAttachError::RemoteClosedWithError(refused) => Self::refused(refused),
            _ => Self::lost(error),
        }
    }
}

impl From<LinkStateError> for Failure {
    fn from(error: LinkStateError) -> Self {
        match &error {
            LinkStateError::RemoteClosedWithError(refused) | LinkStateError::RemoteDetachedWithError(refused) => {
                Self::refused(refused)
            }
            _ => Self::lost(error),
        }
    }
}

impl From<RecvError> for Failure {
    fn from(error: RecvError) -> Self {
        match error {
            RecvError::LinkStateError(state) => state.into(),
            error => Self::lost(error),
        }
    }
}

impl From<DetachError> for Failure {
    fn from(error: DetachError) -> Self {
        match &error {
            DetachError::RemoteClosedWithError(refused) | DetachError::RemoteDetachedWithError(refused) => {
                Self::refused(refused)
            }
            _ => Self::lost(error),
        }
    }
}

impl From<SendError> for Failure {
    fn from(error: SendError) -> Self {
        match error {
            SendError::LinkStateError(state) => state.into(),
            SendError::Detached(detached) => detached.into(),
            error => Self::lost(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(condition: &str) -> Error {
        let text = "The messaging entity could not be found. TrackingId:3a_G1, SystemTracker:gateway".to_owned();
        Failure::Refused { condition: condition.to_owned(), text }.into_error("reading orders")
    }

    #[test]
    fn each_condition_has_its_kind() {
        for stop in ["amqp:not-found", "amqp:unauthorized-access", "amqp:not-allowed", "com.microsoft:entity-disabled"]
        {
            assert!(matches!(refused(stop), Error::Stop(_)), "{stop}");
        }
        for retry in
            ["amqp:internal-error", "com.microsoft:timeout", "amqp:connection:forced", "amqp:link:detach-forced", "new"]
        {
            assert!(refused(retry).is_retry(), "{retry}");
            assert_eq!(refused(retry).retry_after(), None, "{retry}");
        }
        assert_eq!(refused("com.microsoft:server-busy").retry_after(), Some(BUSY));
        assert!(matches!(refused("amqp:link:message-size-exceeded"), Error::Poison(_)));
        let stolen = refused("amqp:link:stolen");
        assert!(stolen.is_retry() && stolen.to_string().contains("owner level"), "{stolen}");
        let ended =
            Failure::Status { code: 401, text: "ExpiredToken: The token is expired".to_owned() }.into_error("x");
        assert!(matches!(ended, Error::Stop(_)) && ended.to_string().contains("clock"), "{ended}");
        let text = refused("amqp:not-found").to_string();
        assert!(text.starts_with("reading orders: The messaging entity could not be found. Create"), "{text}");
    }
}
