//! Against a real Kafka: `MILLSTREAM_TEST_KAFKA=host:port`, and `MILLSTREAM_TEST_KAFKA_SASL=host:port` for a listener with
//! SASL PLAIN (user `$ConnectionString`, password `secret`) and SCRAM-SHA-512 (user `millstream`, the same password); both
//! again with TLS as `…_TLS`, with a certificate for 127.0.0.1 by the CA in the file `MILLSTREAM_TEST_CA`.

#![expect(clippy::unwrap_used, reason = "a test ends at the first thing that fails")]

mod authentication;
mod conformance;
mod corrupt;
mod gaps;
mod gzip;
mod handed_out_twice;
mod headers;
mod holes;
mod members;
mod recreated;
mod stops;
mod support;
mod table;
mod tls;
