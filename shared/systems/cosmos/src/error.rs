//! What the caller does next, by the service's status codes
//! (<https://learn.microsoft.com/rest/api/cosmos-db/http-status-codes-for-cosmosdb>).
//!
//! The service's own messages may quote what was sent, so they are left out.

use std::{fmt, time::Duration};

use azure_data_cosmos::CosmosError;
use millstream_core::Error;

use crate::settings::{DATABASE, KEY, MAX_RU};

/// Sub-statuses: a logical partition is full, and the container (or its database) of an item is gone.
const FULL: u16 = 1014;
const NO_CONTAINER: u16 = 1003;
/// The client's own: an answer is not of the form that is expected.
const UNREADABLE: u16 = 20020;
/// When to come again where the service takes no more and doesn't say for how long.
const PAUSE: Duration = Duration::from_millis(100);

/// A status as the service gave it, or as the client gives it where nothing came back.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Status {
    pub(crate) code: u16,
    pub(crate) sub: u16,
    pub(crate) retry_after: Option<Duration>,
}

impl Status {
    pub(crate) fn of(error: &CosmosError) -> Self {
        let status = error.status();
        let wait = error.response().and_then(|response| response.headers().retry_after_ms);
        Self {
            code: status.status_code().into(),
            sub: status.sub_status().map_or(0, |sub| sub.value()),
            retry_after: wait.map(Duration::from_millis),
        }
    }

    /// Is an item not there, while its container is?
    pub(crate) fn is_no_item(self) -> bool {
        self.code == 404 && self.sub != NO_CONTAINER
    }

    pub(crate) fn is_no_container(self) -> bool {
        self.code == 404
    }

    /// Is there an item of this name?
    pub(crate) fn is_conflict(self) -> bool {
        self.code == 409
    }

    /// Had the service no time for it (the 5 s of a batch), or did its answer come too late?
    pub(crate) fn is_late(self) -> bool {
        self.code == 408
    }

    /// Could what came back not be read? The client gives this status, and the service doesn't.
    pub(crate) fn is_unreadable(self) -> bool {
        (self.code, self.sub) == (500, UNREADABLE)
    }

    /// Has somebody else changed the item since it was read?
    pub(crate) fn is_changed(self) -> bool {
        self.code == 412
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.sub {
            0 => write!(f, "status {}", self.code),
            sub => write!(f, "status {}/{sub}", self.code),
        }
    }
}

/// `doing` says where and what: it comes first in the message.
pub(crate) fn of(doing: impl fmt::Display, error: &CosmosError) -> Error {
    of_status(doing, Status::of(error))
}

/// Of a container that is created to take up to `max_ru` request units a second.
pub(crate) fn of_creation(doing: impl fmt::Display, status: Status, max_ru: Option<u64>) -> Error {
    match (status.code, max_ru) {
        (400 | 403, Some(max_ru)) => Error::stop(format!(
            "{doing}: the service refuses it ({status}); check {MAX_RU}, which asks for up to {max_ru} request units a second: a \
             serverless account takes it for no container, and others up to a limit. Check also that {KEY} may create containers"
        )),
        _ => of_status(doing, status),
    }
}

pub(crate) fn of_status(doing: impl fmt::Display, status: Status) -> Error {
    match (status.code, status.sub) {
        // No other error says when to come again: `Pace` tells it by that.
        (429, _) => Error::retry(format!("{doing}: the service takes no more for now ({status})"))
            .not_before(status.retry_after.unwrap_or(PAUSE)),
        (403, FULL) => Error::stop(format!(
            "{doing}: 10,000 rows of a partition are more than the 20 GB that the service holds under one key ({status}): make the \
             rows smaller, and begin a table of another name"
        )),
        (401 | 403, _) => Error::stop(format!(
            "{doing}: the service refuses this key, or this computer ({status}); check {KEY}, that it may write, and the account's \
             firewall"
        )),
        (404, _) => Error::stop(format!(
            "{doing}: there is no such container or database ({status}); check {DATABASE}, which must exist. `millstream up` \
             creates the containers"
        )),
        (413, _) => Error::poison(format!("{doing}: the service refuses a row: it is too large ({status})")),
        (400, _) => Error::stop(format!("{doing}: internal: the service doesn't understand the request ({status})")),
        _ => Error::retry(format!("{doing}: {status}; the outcome is unknown")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_code(code: u16, sub: u16) -> Error {
        of_status("x", Status { code, sub, retry_after: Some(Duration::from_millis(7)) })
    }

    #[test]
    fn the_status_decides_what_to_do() {
        let throttled = of_code(429, 3200);
        assert_eq!(throttled.retry_after(), Some(Duration::from_millis(7)), "{throttled}");
        for code in [408, 410, 449, 500, 503, 409, 412] {
            let said = of_code(code, 0);
            assert!(matches!(said, Error::Retry(_)) && said.to_string().contains("outcome is unknown"), "{said}");
        }
        for (code, sub, says) in [(401, 0, KEY), (403, 5300, KEY), (403, FULL, "20 GB"), (404, 1003, "millstream up")] {
            let said = of_code(code, sub);
            assert!(matches!(said, Error::Stop(_)) && said.to_string().contains(says), "{said}");
        }
        assert!(of_status("x", Status { code: 429, sub: 3075, retry_after: None }).retry_after().is_some());
        assert!(matches!(of_code(413, 0), Error::Poison(_)));
        assert!(matches!(of_code(400, 0), Error::Stop(_)));
    }

    #[test]
    fn a_throughput_that_is_refused_names_its_variable() {
        let of = |code, max_ru| of_creation("x", Status { code, sub: 0, retry_after: None }, max_ru);
        for code in [400, 403] {
            let said = of(code, Some(4_000));
            assert!(matches!(said, Error::Stop(_)) && said.to_string().contains(MAX_RU), "{said}");
            assert!(!of(code, None).to_string().contains(MAX_RU), "none was asked for");
        }
        assert!(matches!(of(503, Some(4_000)), Error::Retry(_)));
    }
}
