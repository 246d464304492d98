use millstream_core::{Error, Result};
use millstream_pipeline::{Pipeline, Reading};

use crate::{
    Connections,
    open::{Linked, StandIn, find_log, find_store},
    used::{joined_by, store_of, written_by},
};

/// Refuses to run a function on embedded systems that nobody has asked for: its log, its store, and those of the references
/// that it joins. An address that was left out in a deployment would otherwise put its rows and fences into a folder that
/// may be gone with the next one.
///
/// # Errors
/// `Stop`, with the variable that is not set.
pub fn require_said(connections: &Connections, pipeline: &Pipeline, name: &str) -> Result<()> {
    let Some(declared) = pipeline.functions.get(name) else { return Ok(()) };
    let require = Require { connections, name };
    let does = match declared.reading() {
        None => format!("writes to {}", declared.into),
        Some(reading) => format!("reads {}", reading.topics().cloned().collect::<Vec<_>>().join(", ")),
    };
    require.address(&find_log(&connections.env)?, &does)?;
    if let Some(system) = written_by(declared) {
        require.address(&find_store(system)?, &format!("writes to {}", declared.into))?;
    }
    for feed in declared.reading().into_iter().flat_map(Reading::topics) {
        let keeper = pipeline.topics.get(feed).and_then(|topic| pipeline.functions.get(topic.feed_of.as_ref()?));
        if let Some(keeper) = keeper {
            require.address(&find_store(keeper.into.system)?, &format!("reads {feed}"))?;
        }
    }
    for (reference, declared) in joined_by(pipeline, declared) {
        if let Some((system, _)) = store_of(&declared.from) {
            require.address(&find_store(system)?, &format!("joins the reference `{reference}` from there"))?;
        }
    }
    Ok(())
}

/// What is looked at, and for which function.
struct Require<'a> {
    connections: &'a Connections,
    name: &'a str,
}

impl Require<'_> {
    fn address<S: ?Sized>(&self, system: &Linked<S>, does: &str) -> Result<()> {
        let Linked { address, stand_in, .. } = system;
        if self.connections.env.is_set(address.variable) {
            return Ok(());
        }
        let place = match stand_in {
            StandIn::Database => "a SQLite file",
            StandIn::Folder => "the folder `lake`",
        };
        Err(Error::stop(format!(
            "{} is not set, and function `{}` {does}: set it to {}, or to `embedded` for {place} in the data folder \
             (MILLSTREAM_DATA_DIR, now {})",
            address.variable,
            self.name,
            address.example,
            self.connections.data_dir.display()
        )))
    }
}

#[cfg(test)]
mod tests {
    use millstream_core::Env;

    use super::*;

    const KAFKA: (&str, &str) = ("KAFKA_BROKERS", "k:9092");
    const POSTGRES: (&str, &str) = ("POSTGRES_URL", "postgres://db/x");

    fn said(name: &str, settings: &[(&str, &str)]) -> Result<(), String> {
        let text = "name: p\ntopics: { t: { partitions: 1, schema: { a: bigint } } }\n\
                    references:\n  r: { from: postgres.r, schema: { a: bigint, b: string } }\nfunctions:\n  \
                    sums: { uses: aggregate, from: t, sql: SELECT sum(a) AS a FROM t, into: postgres.sums }\n  \
                    files: { uses: archive, from: t, into: lake.files }\n  \
                    joined: { uses: archive, from: t, sql: 'SELECT t.a, b FROM t JOIN R ON t.a = R.a', into: lake.joined }\n";
        let pipeline = Pipeline::parse(text, "p.yaml".as_ref()).unwrap();
        let env = Env::of(settings.iter().map(|(name, value)| (format!("MILLSTREAM_{name}"), *value)));
        let connections = Connections::read(&env).unwrap();
        require_said(&connections, &pipeline, name).map_err(|error| {
            assert!(matches!(error, Error::Stop(_)), "{error:?}");
            error.to_string()
        })
    }

    #[test]
    fn a_function_in_production_is_embedded_only_on_request() {
        for (name, settings, variable) in [
            ("sums", vec![], "MILLSTREAM_KAFKA_BROKERS is not set, and function `sums` reads t"),
            ("sums", vec![KAFKA], "MILLSTREAM_POSTGRES_URL is not set, and function `sums` writes to postgres.sums"),
            ("sums", vec![KAFKA, ("LAKE_URL", "/lake")], "MILLSTREAM_POSTGRES_URL is not set"),
            ("files", vec![KAFKA, POSTGRES], "MILLSTREAM_LAKE_URL is not set"),
            (
                "joined",
                vec![KAFKA, ("LAKE_URL", "/lake")],
                "MILLSTREAM_POSTGRES_URL is not set, and function `joined` joins the reference `r` from there",
            ),
        ] {
            let error = said(name, &settings).unwrap_err();
            assert!(error.starts_with(variable) && error.contains("`embedded`"), "{error}");
        }
        said("sums", &[KAFKA, POSTGRES]).unwrap();
        said("files", &[KAFKA, ("LAKE_URL", "/lake")]).unwrap();
        let embedded = [("KAFKA_BROKERS", "embedded"), ("POSTGRES_URL", "embedded"), ("LAKE_URL", "embedded")];
        for name in ["sums", "files", "joined"] {
            said(name, &embedded).unwrap();
        }
    }
}
