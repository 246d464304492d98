use std::time::Duration;

use millstream_core::{Error, Result};
use tokio_postgres::{IsolationLevel, Transaction};

use crate::{catalog::Catalog, connect::Pool, error};

/// Work in one transaction of at most `limit`, which is rolled back when it gives nothing.
pub(crate) async fn transaction<T>(
    pool: &Pool,
    what: &str,
    limit: Duration,
    work: impl AsyncFnOnce(Catalog<'_, Transaction<'_>>) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let mut client = pool.client(what).await?;
    let whole = async {
        let failed = |error: tokio_postgres::Error| error::of_postgres(pool.doing(what), &error);
        let transaction = client.build_transaction().isolation_level(IsolationLevel::ReadCommitted).start().await;
        let transaction = transaction.map_err(failed)?;
        let done = work(Catalog { client: &transaction, pool, what }).await?;
        match done.is_some() {
            true => transaction.commit().await.map_err(failed)?,
            false => transaction.rollback().await.map_err(failed)?,
        }
        Ok(done)
    };
    let outcome = pool.within(limit, what, whole).await;
    pool.settle(client, outcome).await.map_err(|error| match error {
        // No record is at fault.
        Error::Poison(cause) => Error::Stop(cause),
        other => other,
    })
}
