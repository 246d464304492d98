use millstream_core::{Error, Owner, Result, Sink};

/// Lets the sink's table go on under another plan of `function`, whoever fills it now, and begins the new term.
///
/// # Errors
/// Those of [`Sink::adopt`].
pub async fn adopt(sink: &dyn Sink, function: &str) -> Result<()> {
    let record = sink.holding().await?.record;
    let owner = Owner { function: function.into(), fingerprint: "another plan".into(), declaration: "{}".into() };
    let adopted = sink.adopt(&owner, record.as_ref()).await?;
    sink.begin_term(adopted.ok_or_else(|| Error::retry("another process has claimed the table just now"))?.term);
    Ok(())
}
