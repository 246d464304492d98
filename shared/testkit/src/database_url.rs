/// The URL of a PostgreSQL server with another database; its parameters stay. `None` if the URL names no database.
pub fn database_url(url: &str, database: &str) -> Option<String> {
    let (address, parameters) = url.find('?').map_or((url, ""), |at| url.split_at(at));
    let (server, _) = address.rsplit_once('/')?;
    Some(format!("{server}/{database}{parameters}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_stay() {
        let url = database_url("postgres://u:p@h:5432/postgres?sslmode=require", "mine");
        assert_eq!(url.as_deref(), Some("postgres://u:p@h:5432/mine?sslmode=require"));
        assert_eq!(database_url("h", "mine"), None);
    }
}
