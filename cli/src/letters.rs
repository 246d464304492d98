use millstream_core::{DeadLetter, DeadLetters, Result};

/// The newest letters of these functions (`pipeline.function`), in the order in which they were kept, the newest first.
///
/// All functions' letters stand in one place: they are read once, and not once for each function. Others may have written
/// there too: until there are enough, more is asked for, as far as the place lists at all.
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
