use crate::{
    Topic,
    diagnostic::{Report, list_allowed},
    fields::Fields,
    node::Node,
    poll::{DEFAULT_MAX_BYTES, MAX_BYTES},
    shape::{Field, Form, Mapping, Presence, Shape},
};

/// How records are taken over HTTP: a source of `ingest`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Webhook {
    /// The field whose value is a record's id.
    pub id: Option<String>,
    /// The largest body in bytes.
    pub max_bytes: usize,
    /// How many requests are worked on at once.
    pub max_in_flight: usize,
}

const DEFAULT_IN_FLIGHT: usize = 64;

pub(crate) static WEBHOOK: Mapping = Mapping {
    name: "Webhook",
    doc: "An HTTP server: records come by POST to `/` or `/FUNCTION`, one JSON object, a list of them, or NDJSON. It answers 202 once all records of a request are in the topic; if one of them doesn't fit the topic's schema, nothing is sent and the answer (400) says which.",
    fields: &[
        Field {
            name: "id",
            shape: Shape::Text,
            presence: Presence::Optional,
            doc: "The field whose value is a record's id. Without it, the request's `Idempotency-Key` is, if there is one. The id is the header `millstream-id` of the record, and its key if the function has no `key`.",
        },
        Field {
            name: "max_bytes",
            shape: Shape::Bytes(1024..=MAX_BYTES),
            presence: Presence::Default("1MiB"),
            doc: "The largest body of a request; a larger one is refused (413).",
        },
        Field {
            name: "max_in_flight",
            shape: Shape::Integer(1..=10_000),
            presence: Presence::Default("64"),
            doc: "How many requests are worked on at once; further ones are refused for a second (429). Each holds its body in memory.",
        },
    ],
    form: Form::Fields,
};

/// Reads `webhook:` of a function that writes to `topic` (none when that is wrong and reported).
pub(crate) fn read_webhook(
    node: &Node,
    function: &Fields<'_>,
    topic: Option<&Topic>,
    report: &mut Report,
) -> Option<Webhook> {
    let mark = function.entry("webhook").map_or(node.mark, |entry| entry.mark);
    let fields = Fields::open(node, mark, function.label("webhook"), &WEBHOOK, report)?;
    let id = fields.text("id", report);
    if let (Some(name), Some(topic), Some(node)) = (&id, topic, fields.get("id"))
        && topic.schema.field_with_name(name).is_err()
    {
        let allowed = list_allowed(name, topic.schema.fields().iter().map(|field| field.name().as_str()));
        let label = fields.label("id");
        report.at(node.mark, format!("{label} is `{name}`, which is not a field of its topic{allowed}"));
    }
    let max_bytes = fields.bytes("max_bytes", report).unwrap_or(DEFAULT_MAX_BYTES);
    let in_flight = fields.integer("max_in_flight", report);
    Some(Webhook {
        id,
        max_bytes: usize::try_from(max_bytes).ok()?,
        max_in_flight: in_flight.and_then(|number| usize::try_from(number).ok()).unwrap_or(DEFAULT_IN_FLIGHT),
    })
}
