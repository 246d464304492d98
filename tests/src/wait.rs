use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The longest that anything may take on a slow machine that does everything at once.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Asks until there is an answer; panics with what the last refusal said when `limit` is over.
pub async fn until<T>(limit: Duration, what: &str, mut ask: impl AsyncFnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        match ask().await {
            Ok(answer) => return answer,
            Err(why) if Instant::now() >= deadline => panic!("{what}: not within {limit:?}: {why}"),
            Err(_) => sleep(POLL).await,
        }
    }
}
