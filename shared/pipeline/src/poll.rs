use std::path::PathBuf;

use crate::shape::{Field, Form, Mapping, Presence, Shape};

mod read;

pub(crate) use read::read_poll;

/// How an HTTP API is polled: a source of `ingest`.
#[derive(Clone, Debug, PartialEq)]
pub struct Poll {
    /// The address that is asked.
    pub url: Given,
    /// Milliseconds from one question to the next.
    pub every_ms: u64,
    /// How many milliseconds an answer may take, to its last byte.
    pub timeout_ms: u64,
    /// Headers of each request, names in lower case.
    pub headers: Vec<(String, Given)>,
    /// Does it ask only for what has changed (`If-None-Match`)?
    pub etag: bool,
    /// Where in the answer the list of records is, name by name from the outside; empty when the answer itself is the list.
    /// None when the answer is one record.
    pub records: Option<Vec<String>>,
    /// The largest answer in bytes.
    pub max_bytes: usize,
    /// May the address be a private one?
    pub allow_private: bool,
    /// What `millstream dev` polls when no address is given to it: a file of answers, relative to the pipeline file.
    pub stand_in: Option<PathBuf>,
}

/// A text of the file, or the name of the environment variable that holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// The text itself.
    Text(String),
    /// The variable's name, which begins with [`SECRET_PREFIX`].
    Env(String),
}

/// What the names of variables begin with that a pipeline file may name. So a file can't send out any other secret of its
/// process.
pub const SECRET_PREFIX: &str = "MILLSTREAM_SECRET_";

const SECOND_MS: i64 = 1_000;
const DAY_MS: i64 = 24 * 60 * 60 * SECOND_MS;
/// A faster poll is an attack, and not what an API is for.
const MIN_EVERY_MS: i64 = 100;
/// Lambda and Azure end an invocation after minutes.
const MAX_TIMEOUT_MS: i64 = 5 * 60 * SECOND_MS;
pub(crate) const DEFAULT_TIMEOUT_MS: i64 = 10 * SECOND_MS;
pub(crate) const DEFAULT_MAX_BYTES: i64 = 1 << 20;
/// As large as a record can be that is decoded.
pub(crate) const MAX_BYTES: i64 = 8 << 20;
const MAX_PATH: usize = 32;

pub(crate) static POLL: Mapping = Mapping {
    name: "Poll",
    doc: "An HTTP API whose answers become records. Each answer is one record, byte for byte; with `records`, each item of a list in it. An answer that is not 200 and JSON is a failed poll: it is counted and logged, and nothing of it is sent. After a failure, the pause grows from 1 s to a minute; `Retry-After` is obeyed, and after a 429 or 503 without it the pause is at least `every`.",
    fields: &[
        Field {
            name: "url",
            shape: GIVEN,
            presence: Presence::Required,
            doc: "The address, `https://…` or `http://…`. At most 3 redirects are followed, never from https to http, and with `headers` never to another host. Addresses of a link alone (169.254.0.0/16, fe80::/10: a cloud's metadata) are never asked.",
        },
        Field {
            name: "every",
            shape: Shape::Duration(MIN_EVERY_MS..=DAY_MS),
            presence: Presence::Required,
            doc: "The time from one poll to the next. Polls are at whole multiples of it since 1970, each at most once; one that comes too late is left out.",
        },
        Field {
            name: "timeout",
            shape: Shape::Duration(MIN_EVERY_MS..=MAX_TIMEOUT_MS),
            presence: Presence::Default("10s"),
            doc: "How long an answer may take, to its last byte.",
        },
        Field {
            name: "headers",
            shape: Shape::Named(&GIVEN),
            presence: Presence::Optional,
            doc: "Headers of each request. One that holds a secret (`authorization`, `cookie`, or a name with `key`, `token` or `secret`) must be `{ env: MILLSTREAM_SECRET_… }`.",
        },
        Field {
            name: "etag",
            shape: Shape::Boolean,
            presence: Presence::Default("false"),
            doc: "Send back the `ETag` of the last answer whose records are in the topic, so that an unchanged answer (304) gives no record.",
        },
        Field {
            name: "records",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "Where the list of records is in the answer, such as `data.items`; `.` if the answer itself is the list.",
        },
        Field {
            name: "max_bytes",
            shape: Shape::Bytes(1024..=MAX_BYTES),
            presence: Presence::Default("1MiB"),
            doc: "The largest answer; a larger one is a failed poll.",
        },
        Field {
            name: "allow_private",
            shape: Shape::Boolean,
            presence: Presence::Default("false"),
            doc: "May the address be a private one (10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, fc00::/7)? Loopback is asked only if `url` itself names it.",
        },
        Field {
            name: "stand_in",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "A file of answers for `millstream dev` without `--url`, *.jsonl: it answers with one line after the other, from a port of its own, instead of `url`. In a line, `\"$now_s\"` and `\"$now_ms\"` stand for the time.",
        },
    ],
    form: Form::Fields,
};

const GIVEN: Shape = Shape::Either(&[Shape::Text, Shape::Mapping(&FROM_ENV)]);

pub(crate) static FROM_ENV: Mapping = Mapping {
    name: "FromEnv",
    doc: "A value that is not in the file: a secret, or what differs between deployments.",
    fields: &[Field {
        name: "env",
        shape: Shape::Pattern(|| "^MILLSTREAM_SECRET_[A-Z0-9_]+$".to_owned(), "MILLSTREAM_SECRET_…"),
        presence: Presence::Required,
        doc: "The environment variable that holds it, or `file://PATH` of a file that does.",
    }],
    form: Form::Fields,
};
