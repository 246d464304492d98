use millstream_core::{DeadLetter, DeadLetters, Result};

/// The newest letters of these functions (`pipeline.function`), newest first, by the time at which they were stored.
///
/// All functions' letters are in one store, which is read once and not once per function. Other pipelines may have
/// written there too, so this asks for more letters until there are enough, up to the limit of the store's listing.
pub(crate) async fn newest(
    store: &dyn DeadLetters,
    is_ours: impl Fn(&str) -> bool,
    limit: usize,
) -> Result<Vec<DeadLetter>> {
    let mut asked = limit;
    loop {
        let mut letters = store.list(None, asked).await?;
        let all = letters.len() < asked;
        letters.retain(|letter| is_ours(&letter.function));
        if all || letters.len() >= limit {
            letters.truncate(limit);
            return Ok(letters);
        }
        asked = asked.saturating_mul(16);
    }
}
