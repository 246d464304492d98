//! The clients of object stores, from the clouds' own variables.

use std::{sync::Arc, time::Duration};

use millstream_core::{Env, Error, Result};
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};

use crate::place::Account;

/// How long one request may take: the largest file goes through a slow line in this time.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// How a request is repeated that a server refused for now (5xx, 429) or that never reached it. What is left after that is
/// an error that the caller retries, by its own policy.
fn retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(5),
            base: 2.0,
        },
        max_retries: 6,
        retry_timeout: Duration::from_secs(30),
    }
}

fn options() -> ClientOptions {
    ClientOptions::new().with_timeout(REQUEST_LIMIT).with_connect_timeout(CONNECT_LIMIT)
}

/// The variables that begin with `prefix`, in lower case as the client knows them. An empty one counts as not set, as the
/// clouds' own tools take it.
fn settings(env: &Env, prefix: &str) -> Vec<(String, String)> {
    let value = |name: &str| env.get(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty());
    let named = env.names().filter(|name| name.starts_with(prefix));
    named.filter_map(|name| Some((name.to_ascii_lowercase(), value(name)?))).collect()
}

/// Is the endpoint plain HTTP? It is allowed only where the endpoint itself says so.
fn is_http(endpoint: Option<&str>, variable: &str) -> Result<bool> {
    match endpoint.and_then(|endpoint| endpoint.split_once("://")) {
        // The client's errors show the address.
        Some((_, rest)) if rest.contains(['@', '?', '#']) => {
            Err(Error::stop(format!("{variable} may hold only https://HOST or http://HOST, without user or query")))
        }
        Some((scheme, _)) => Ok(scheme.eq_ignore_ascii_case("http")),
        None if endpoint.is_some() => Err(Error::stop(format!("{variable} must begin with https:// or http://"))),
        None => Ok(false),
    }
}

/// What can't be made of the settings. No error of the builder shows a key.
#[cfg(any(feature = "s3", feature = "azure"))]
fn unusable(cloud: &str, hint: &str, error: object_store::Error) -> Error {
    Error::stop(format!("lake: the settings for {cloud} can't be used ({hint})")).caused_by(error)
}

/// A bucket of S3, or of a store that speaks its protocol (`AWS_ENDPOINT_URL`).
#[cfg(feature = "s3")]
pub(crate) fn s3(env: &Env, bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key};
    let mut builder = AmazonS3Builder::new().with_client_options(options()).with_retry(retries());
    for (name, value) in settings(env, "AWS_") {
        if let Ok(key) = name.parse::<Key>() {
            builder = builder.with_config(key, value);
        }
    }
    let endpoint = builder.get_config_value(&Key::S3Endpoint).or_else(|| builder.get_config_value(&Key::Endpoint));
    if is_http(endpoint.as_deref(), "AWS_ENDPOINT_URL")? {
        builder = builder.with_allow_http(true);
    }
    let is_hosted = builder.get_config_value(&Key::VirtualHostedStyleRequest).as_deref() == Some("true");
    let host = endpoint.as_deref().and_then(|endpoint| endpoint.split_once("://")).map(|(_, host)| host);
    if is_hosted && host.is_some_and(|host| !host.starts_with(&format!("{bucket}."))) {
        return Err(Error::stop(format!(
            "lake: with AWS_VIRTUAL_HOSTED_STYLE_REQUEST, AWS_ENDPOINT_URL must begin with the bucket of MILLSTREAM_LAKE_URL \
             (https://{bucket}.…): objects would go elsewhere. Leave out one of them, or correct the endpoint"
        )));
    }
    let built = builder.with_bucket_name(bucket).build();
    Ok(Arc::new(built.map_err(|error| unusable("S3", "AWS_REGION, AWS_ACCESS_KEY_ID and so on", error))?))
}

/// A container of Azure Blob Storage or ADLS Gen2.
#[cfg(feature = "azure")]
pub(crate) fn azure(env: &Env, container: &str, account: Option<&Account>) -> Result<Arc<dyn ObjectStore>> {
    use object_store::azure::{AzureConfigKey as Key, MicrosoftAzureBuilder};
    let mut builder = MicrosoftAzureBuilder::new().with_client_options(options()).with_retry(retries());
    if let Some(account) = account {
        builder = builder.with_config(Key::Endpoint, &account.endpoint);
    }
    for (name, value) in settings(env, "AZURE_") {
        if let Ok(key) = name.parse::<Key>() {
            builder = builder.with_config(key, value);
        }
    }
    // Azure's functions and container apps say with it where a managed identity gets its token.
    if let Some(identity) = env.get("IDENTITY_ENDPOINT").filter(|identity| !identity.is_empty()) {
        builder = builder.with_msi_endpoint(identity);
    }
    if let Some(account) = account {
        builder = builder.with_account(&account.name);
    }
    if is_http(builder.get_config_value(&Key::Endpoint).as_deref(), "AZURE_STORAGE_ENDPOINT")? {
        builder = builder.with_allow_http(true);
    }
    let hint = "AZURE_STORAGE_ACCOUNT_NAME, or abfss://CONTAINER@ACCOUNT.dfs.core.windows.net/PREFIX; \
                AZURE_STORAGE_ACCOUNT_KEY and so on";
    let built = builder.with_container_name(container).build();
    Ok(Arc::new(built.map_err(|error| unusable("Azure", hint, error))?))
}

#[cfg(not(feature = "s3"))]
pub(crate) fn s3(_env: &Env, _bucket: &str) -> Result<Arc<dyn ObjectStore>> {
    Err(not_built("s3"))
}

#[cfg(not(feature = "azure"))]
pub(crate) fn azure(_env: &Env, _container: &str, _account: Option<&Account>) -> Result<Arc<dyn ObjectStore>> {
    Err(not_built("azure"))
}

#[cfg(not(all(feature = "s3", feature = "azure")))]
fn not_built(feature: &str) -> Error {
    Error::stop(format!("lake: this program was built without the cargo feature `{feature}` of millstream-lake"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_is_used_only_where_the_endpoint_says_so() {
        let is = |endpoint| is_http(endpoint, "AWS_ENDPOINT_URL").map_err(|error| error.to_string());
        assert_eq!((is(None), is(Some("https://s3.example"))), (Ok(false), Ok(false)));
        assert_eq!(is(Some("http://127.0.0.1:9000")), Ok(true));
        for wrong in ["http://key:secret@host", "https://host/?sig=secret", "secret.example"] {
            let said = is(Some(wrong)).unwrap_err();
            assert!(said.starts_with("AWS_ENDPOINT_URL ") && !said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn empty_settings_count_as_not_set() {
        let env = Env::of([("AWS_REGION", " eu-west-1\n"), ("AWS_SESSION_TOKEN", ""), ("AZURE_X", "y")]);
        assert_eq!(settings(&env, "AWS_"), [("aws_region".to_owned(), "eu-west-1".to_owned())]);
    }

    #[cfg(feature = "s3")]
    #[test]
    fn half_a_key_is_an_error_that_does_not_show_it() {
        let said = s3(&Env::of([("AWS_SECRET_ACCESS_KEY", "hunter2")]), "bucket").unwrap_err().to_string();
        assert!(said.contains("AWS_ACCESS_KEY_ID") && !said.contains("hunter2"), "{said}");
        s3(&Env::default(), "bucket").unwrap();
    }

    #[cfg(feature = "s3")]
    #[test]
    fn a_virtual_hosted_endpoint_must_begin_with_the_bucket() {
        let open = |endpoint| {
            let hosted = [("AWS_VIRTUAL_HOSTED_STYLE_REQUEST", "true"), ("AWS_ENDPOINT_URL", endpoint)];
            s3(&Env::of(hosted), "bucket").map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(open("https://bucket.s3.example"), Ok(()));
        for wrong in ["https://s3.example", "https://bucketeer.s3.example"] {
            assert!(open(wrong).unwrap_err().contains("must begin with the bucket"), "{wrong}");
        }
    }

    #[cfg(feature = "azure")]
    #[test]
    fn an_account_is_needed_and_a_wrong_key_is_not_shown() {
        let said = |env: &[(&str, &str)]| azure(&Env::of(env.iter().copied()), "box", None).unwrap_err().to_string();
        assert!(said(&[]).contains("AZURE_STORAGE_ACCOUNT_NAME"), "{}", said(&[]));
        let told = said(&[("AZURE_STORAGE_ACCOUNT_NAME", "a"), ("AZURE_STORAGE_ACCOUNT_KEY", "hunter2!")]);
        assert!(told.starts_with("lake: the settings for Azure can't be used") && !told.contains("hunter2"), "{told}");
    }
}
