use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicBool, Ordering},
};

use millstream_core::Error;
use rdkafka::{
    client::ClientContext,
    config::RDKafkaLogLevel,
    consumer::ConsumerContext,
    error::{KafkaError, RDKafkaErrorCode as Code},
};

/// What OpenSSL says of a certificate that it does not accept: no trusted authority has signed it, it is for another host, or
/// it has expired. It does not say which. librdkafka reports `SSL` or, early in a connection, a transport failure.
const NOT_TRUSTED: &str = "certificate verify failed";

/// The state of one client's connection to its brokers: outages, and failed authentication.
pub(crate) struct Link {
    brokers: String,
    outage: AtomicBool,
    last_reason: Mutex<Option<String>>,
    /// What follows "Kafka at …" in the error.
    refusal: Mutex<Option<String>>,
}

impl Link {
    pub(crate) fn new(brokers: &str) -> Self {
        Self {
            brokers: brokers.to_owned(),
            outage: AtomicBool::new(false),
            last_reason: Mutex::new(None),
            refusal: Mutex::new(None),
        }
    }

    /// The addresses as they were set.
    pub(crate) fn brokers(&self) -> &str {
        &self.brokers
    }

    /// Notes an answer from the brokers: the next outage is logged again, and a refusal is over.
    pub(crate) fn mark_reachable(&self) {
        if self.outage.swap(false, Ordering::Relaxed) {
            *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = None;
            tracing::info!(brokers = self.brokers, "Kafka answers again");
        }
    }

    /// The brokers refused this client, or this client refused the brokers: only other settings or certificates help.
    pub(crate) fn refusal(&self) -> Option<Error> {
        let refusal = self.refusal.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        Some(Error::stop(format!("Kafka at {} {refusal}", self.brokers)))
    }

    fn refuse(&self, refusal: String) {
        *self.refusal.lock().unwrap_or_else(PoisonError::into_inner) = Some(refusal);
        self.outage.store(true, Ordering::Relaxed);
    }

    /// What a failed call means: `doing` says what was tried, as in `reading topic t`.
    pub(crate) fn failure(&self, doing: &str, code: Code) -> Error {
        if let Some(refusal) = self.refusal() {
            return refusal.context(doing);
        }
        let brokers = &self.brokers;
        match code {
            Code::Authentication | Code::SaslAuthenticationFailed | Code::IllegalSASLState => Error::stop(format!(
                "{doing}: Kafka at {brokers} refused the authentication: check the security protocol, the SASL mechanism, the \
                 user name and the password"
            )),
            Code::TopicAuthorizationFailed | Code::GroupAuthorizationFailed | Code::ClusterAuthorizationFailed => {
                Error::stop(format!("{doing}: {code} on {brokers}: give this user the right to do it"))
            }
            Code::BrokerTransportFailure
            | Code::SSL
            | Code::AllBrokersDown
            | Code::OperationTimedOut
            | Code::Resolve => {
                let last = self.last_reason.lock().unwrap_or_else(PoisonError::into_inner);
                let reason =
                    last.as_deref().unwrap_or("no answer in time; check the address and MILLSTREAM_KAFKA_SECURITY");
                // The client says so itself only if it reads the answer before the connection is closed.
                let closed = reason.contains("SSL_HANDSHAKE") && !reason.contains("PLAINTEXT");
                let hint = if closed { " (a PLAINTEXT broker listener? See MILLSTREAM_KAFKA_SECURITY)" } else { "" };
                Error::retry(format!("{doing}: Kafka at {brokers} can't be reached: {reason}{hint}"))
            }
            code => Error::retry(format!("{doing}: {code} (Kafka at {brokers})")),
        }
    }

    /// The error for a topic that the cluster does not have.
    pub(crate) fn missing_topic(&self, topic: &str) -> Error {
        Error::stop(format!("topic {topic} does not exist on {}; `millstream up` creates it", self.brokers))
    }
}

impl ClientContext for Link {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        // What matters comes as an error as well, and is logged there.
        tracing::debug!(facility, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => self.refuse(format!(
                "refused the authentication ({reason}): check the security protocol, the SASL mechanism, the user name and the \
                 password"
            )),
            Some(Code::SSL | Code::BrokerTransportFailure) if reason.contains(NOT_TRUSTED) => self.refuse(format!(
                "showed a certificate that is not trusted ({reason}): check that it is for this host name and has not \
                 expired, and that MILLSTREAM_KAFKA_CA (ssl.ca.location) names the authority that signed it"
            )),
            Some(
                Code::BrokerTransportFailure
                | Code::SSL
                | Code::AllBrokersDown
                | Code::Resolve
                | Code::OperationTimedOut,
            ) => {
                if error.rdkafka_error_code() != Some(Code::AllBrokersDown) {
                    *self.last_reason.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
                }
                if !self.outage.swap(true, Ordering::Relaxed) {
                    tracing::warn!(brokers = self.brokers, "Kafka can't be reached, retrying: {reason}");
                }
            }
            _ => tracing::debug!("librdkafka: {error}: {reason}"),
        }
    }
}

impl ConsumerContext for Link {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_transient_and_a_refusal_is_not() {
        let link = Link::new("broker:9092");
        link.error(KafkaError::Global(Code::BrokerTransportFailure), "broker:9092: Connection refused");
        let error = link.failure("reading topic t", Code::OperationTimedOut);
        assert!(error.is_retry() && error.to_string().contains("broker:9092: Connection refused"), "{error}");
        link.error(KafkaError::Global(Code::Authentication), "Invalid username or password");
        assert!(matches!(link.failure("reading topic t", Code::OperationTimedOut), Error::Stop(_)));
        link.mark_reachable();
        assert!(link.refusal().is_none());
    }

    #[test]
    fn a_certificate_that_is_not_trusted_stops_and_other_trouble_with_tls_is_transient() {
        let untrusted = "ssl://broker:9093/bootstrap: error:0A000086:SSL routines::certificate verify failed";
        for code in [Code::SSL, Code::BrokerTransportFailure] {
            let link = Link::new("broker:9093");
            link.error(KafkaError::Global(code), "ssl://broker:9093/bootstrap: SSL transport error: Broken pipe");
            let error = link.failure("reading topic t", Code::SSL);
            assert!(error.is_retry() && error.to_string().contains("Broken pipe"), "{error}");
            link.error(KafkaError::Global(code), untrusted);
            let error = link.failure("reading topic t", Code::OperationTimedOut);
            assert!(matches!(&error, Error::Stop(_)) && error.to_string().contains("MILLSTREAM_KAFKA_CA"), "{error}");
        }
    }
}
