use arrow::datatypes::DataType;
use millstream_core::{Result, Table, quote_identifier};

use crate::Pool;

/// The rows of a function's table with the latest times, latest first, as text for a person: the names of the columns, then
/// at most `limit` rows. A null is shown as `null`.
///
/// The time is the window among the keys, whose index makes this cheap where it is the first of them; else the first
/// column of time. Without one nothing says what is newest, and there are no rows.
///
/// # Errors
/// `Stop` when there is no such table; `Retry` as for every call.
pub async fn newest_rows(pool: &Pool, table: &Table, limit: usize) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let name = table.public_name();
    let columns = columns(table);
    let names: Vec<String> = columns.iter().map(|(name, _)| (*name).to_owned()).collect();
    let is_key = |name: &str| table.keys().any(|key| key.name == name);
    let times = || columns.iter().filter(|(_, data_type)| matches!(data_type, DataType::Timestamp(..)));
    let Some((time, _)) = times().find(|(name, _)| is_key(name)).or_else(|| times().next()) else {
        return Ok((names, Vec::new()));
    };
    let texts: Vec<_> =
        names.iter().map(|name| format!("coalesce({}::text, 'null')", quote_identifier(name))).collect();
    let sql = format!(
        "SELECT {} FROM {} ORDER BY {} DESC LIMIT {limit}",
        texts.join(", "),
        quote_identifier(name),
        quote_identifier(time)
    );
    let rows = pool.query(&format!("looking at table {name}"), &sql, &[]).await?;
    let text = |row: &tokio_postgres::Row, index| row.try_get::<_, String>(index).unwrap_or_default();
    let rows = rows.iter().map(|row| (0..names.len()).map(|index| text(row, index)).collect()).collect();
    Ok((names, rows))
}

/// What readers look at, with their types: the columns of the view where there is one.
fn columns(table: &Table) -> Vec<(&str, &DataType)> {
    match &table.view {
        Some(view) => view.columns.iter().map(|(name, data_type)| (name.as_str(), data_type)).collect(),
        None => table.columns.iter().map(|column| (column.name.as_str(), &column.data_type)).collect(),
    }
}
