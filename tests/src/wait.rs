use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The limit of every wait, for a slow machine that runs everything at once.
pub const PATIENCE: Duration = Duration::from_secs(120);
const POLL: Duration = Duration::from_millis(50);

/// Calls `ask` until it succeeds; panics with its last error after `limit`.
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
