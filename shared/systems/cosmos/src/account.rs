//! Is the account one whose readers can rely on the fences?

use azure_core::{
    credentials::Secret as AccountKey,
    hmac::hmac_sha256,
    http::{HttpClient, Method, Request, Url},
};
use chrono::DateTime;
use millstream_core::{Clock, Error, Result, Secret, SystemClock};
use serde::Deserialize;

use crate::error::{self, Status};

/// The version of the REST API that the account is asked in.
const API_VERSION: &str = "2020-07-15";

/// What the service says of an account.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Account {
    #[serde(default)]
    enable_multiple_write_locations: bool,
    #[serde(default)]
    readable_locations: Vec<serde::de::IgnoredAny>,
    user_consistency_policy: Consistency,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Consistency {
    default_consistency_level: String,
}

impl Account {
    /// Why a reader could see a fence and not the rows below it, or lose them: for a person.
    fn objection(&self) -> Option<String> {
        let (level, regions) =
            (self.user_consistency_policy.default_consistency_level.as_str(), self.readable_locations.len());
        if self.enable_multiple_write_locations {
            return Some("it has several write regions, and a fence is one order of one region alone: turn multi-region writes off".to_owned());
        }
        match level {
            "Strong" => None,
            "BoundedStaleness" if regions <= 1 => None,
            "BoundedStaleness" => Some(format!(
                "it has {regions} regions and the consistency BoundedStaleness: after a failover, rows below a fence may be missing. \
                 Set its default consistency to Strong, or leave it one region"
            )),
            other => Some(format!(
                "its default consistency is {other}: another process could see a fence and not yet the rows below it. Set it to \
                 Strong (or BoundedStaleness, with one region)"
            )),
        }
    }
}

/// Asks the service what the account is like.
///
/// # Errors
/// `Stop` for an account that can't be used, with what to change; those of the service.
pub(crate) async fn check(http: &dyn HttpClient, endpoint: &Url, key: &Secret, doing: &str) -> Result<()> {
    let now = DateTime::from_timestamp_micros(SystemClock.now_us()).unwrap_or_default();
    let date = now.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    let mut request = Request::new(endpoint.clone(), Method::Get);
    request.insert_header("authorization", authorization(key, "get", "", "", &date)?);
    request.insert_header("x-ms-date", date);
    request.insert_header("x-ms-version", API_VERSION);
    let unreachable = |error: azure_core::Error| Error::retry(format!("{doing}: no answer")).caused_by(error);
    let answer = http.execute_request(&request).await.map_err(unreachable)?;
    let answer = answer.try_into_raw_response().await.map_err(unreachable)?;
    if !answer.status().is_success() {
        return Err(error::of_status(doing, Status { code: answer.status().into(), sub: 0, retry_after: None }));
    }
    let account: Account = serde_json::from_slice(answer.body()).map_err(|error| {
        Error::stop(format!("{doing}: what the service says of the account can't be read")).caused_by(error)
    })?;
    match account.objection() {
        None => Ok(()),
        Some(objection) => Err(Error::stop(format!("{doing}: the account can't hold event stores: {objection}"))),
    }
}

/// The header that shows the key
/// (<https://learn.microsoft.com/rest/api/cosmos-db/access-control-on-cosmosdb-resources>).
fn authorization(key: &Secret, verb: &str, kind: &str, link: &str, date: &str) -> Result<String> {
    let text = format!("{verb}\n{kind}\n{link}\n{}\n\n", date.to_ascii_lowercase());
    // Its error may hold the key.
    let signature = hmac_sha256(&text, &AccountKey::new(key.expose().to_owned()))
        .map_err(|_| Error::stop("Cosmos: internal: nothing can be signed with the key"))?;
    let token = format!("type=master&ver=1.0&sig={signature}");
    Ok(token.replace('=', "%3d").replace('&', "%26").replace('+', "%2b").replace('/', "%2f"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_signed_as_the_service_documents() {
        let key =
            Secret::new("dsZQi3KtZmCv1ljt3VNWNm7sQUF1y5rJfC6kv5JiwvW0EndXdDku/dkKBp8/ufDToSxLzR4y+O/0H/t4bQtVNw==");
        let header = authorization(&key, "get", "dbs", "dbs/ToDoList", "Thu, 27 Apr 2017 00:51:12 GMT").unwrap();
        assert_eq!(header, "type%3dmaster%26ver%3d1.0%26sig%3dc09PEVJrgp2uQRkr934kFbTqhByc7TVr3OHyqlu%2bc%2bc%3d");
    }

    #[test]
    fn an_account_whose_readers_may_lag_is_refused() {
        let objection = |level: &str, regions: usize, multiple: bool| {
            let regions: Vec<_> = (0..regions).map(|at| serde_json::json!({"name": at})).collect();
            let account = serde_json::json!({
                "userConsistencyPolicy": {"defaultConsistencyLevel": level}, "readableLocations": regions,
                "enableMultipleWriteLocations": multiple,
            });
            serde_json::from_value::<Account>(account).unwrap().objection()
        };
        for (level, regions) in [("Strong", 1), ("Strong", 3), ("BoundedStaleness", 1)] {
            assert_eq!(objection(level, regions, false), None);
            assert!(objection(level, regions, true).is_some_and(|said| said.contains("multi-region writes off")));
        }
        for (level, regions) in [("BoundedStaleness", 2), ("Session", 1), ("ConsistentPrefix", 1), ("Eventual", 1)] {
            assert!(
                objection(level, regions, false).is_some_and(|said| said.contains("Strong") && said.contains(level))
            );
        }
    }
}
