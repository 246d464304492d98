use std::{error::Error as _, fmt, sync::Arc};

use async_trait::async_trait;
use futures::{StreamExt as _, stream::BoxStream};
use object_store::{
    CopyOptions, Error as StoreError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as StoreResult, path::Path,
};

/// A bucket or container, whose errors say in a person's words what it answered: its name, the request, the status and the
/// error's code. A server's answer itself is not shown: it repeats ids of keys and signatures.
#[derive(Debug)]
pub(crate) struct Bucket {
    store: Arc<dyn ObjectStore>,
    name: String,
}

impl Bucket {
    /// `name` is what a person knows it by, such as `s3://bucket`.
    pub(crate) fn new(store: Arc<dyn ObjectStore>, name: String) -> Self {
        Self { store, name }
    }

    fn tell<T>(&self, result: StoreResult<T>) -> StoreResult<T> {
        result.map_err(|error| tell(&self.name, error))
    }
}

/// The codes of an access key, or a signature made with it, that a server does not take; versitygw answers the last one with
/// status 404.
const NOT_ACCEPTED: [&str; 5] = [
    "SignatureDoesNotMatch",
    "InvalidAccessKeyId",
    "AuthenticationFailed",
    "InvalidAuthenticationInfo",
    "XAdminUserNotFound",
];

/// The same error with a text that may be shown.
fn tell(name: &str, error: StoreError) -> StoreError {
    let raw = error.source().map_or_else(|| error.to_string(), ToString::to_string);
    let said = summary(&raw);
    let told = |hint: &str| Box::from(format!("{name} answered: {said}{hint}"));
    let is = |codes: &[&str]| codes.iter().any(|code| said.contains(code));
    match error {
        // Not a missing object: a person must act.
        StoreError::NotFound { path, .. } if is(&["NoSuchBucket", "ContainerNotFound"]) => {
            let source = format!("{name} does not exist ({said}): create it, or correct MILLSTREAM_LAKE_URL").into();
            StoreError::PermissionDenied { path, source }
        }
        // So a listing fails, whatever the reason.
        StoreError::Generic { .. } if is(&["NoSuchBucket", "ContainerNotFound"]) => {
            let source = format!("{name} does not exist ({said}): create it, or correct MILLSTREAM_LAKE_URL").into();
            StoreError::PermissionDenied { path: String::new(), source }
        }
        StoreError::Generic { .. }
            if is(&NOT_ACCEPTED) || ["401 Unauthorized", "403 Forbidden"].iter().any(|is| raw.contains(is)) =>
        {
            let hint = "; access is denied: the credentials must be right, and allowed to list the bucket, and to read and put objects";
            StoreError::PermissionDenied { path: String::new(), source: told(hint) }
        }
        StoreError::Generic { .. } if is(&["redirect without LOCATION", "AuthorizationHeaderMalformed"]) => {
            let source = told("; it is in another region: set AWS_REGION");
            StoreError::PermissionDenied { path: String::new(), source }
        }
        StoreError::PermissionDenied { path, .. } | StoreError::NotFound { path, .. } if is(&NOT_ACCEPTED) => {
            StoreError::PermissionDenied { path, source: told("; the credentials are not accepted") }
        }
        StoreError::PermissionDenied { path, .. } => {
            let hint = "; access is denied: the credentials must be right, and allowed to list the bucket, and to read and put objects";
            StoreError::PermissionDenied { path, source: told(hint) }
        }
        StoreError::Unauthenticated { path, .. } => {
            StoreError::Unauthenticated { path, source: told("; the credentials are not accepted") }
        }
        StoreError::NotFound { path, .. } => StoreError::NotFound { path, source: told("") },
        StoreError::AlreadyExists { path, .. } => StoreError::AlreadyExists { path, source: told("") },
        StoreError::Precondition { path, .. } => StoreError::Precondition { path, source: told("") },
        StoreError::NotModified { path, .. } => StoreError::NotModified { path, source: told("") },
        StoreError::NotSupported { .. } => StoreError::NotSupported { source: told("") },
        StoreError::Generic { store, .. } => StoreError::Generic { store, source: told("") },
        other => other,
    }
}

/// A client's text without the body of the server's answer, of which only the code stays.
fn summary(text: &str) -> String {
    for marker in ["status code: ", "error response: "] {
        let Some((before, after)) = text.split_once(marker) else { continue };
        let (status, body) = after.split_once(": ").unwrap_or((after, ""));
        let (status, body) = if marker.starts_with("error") { ("", after) } else { (status, body) };
        let code = body.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>"));
        let code = code.map(|(code, _)| code).filter(|code| code.chars().all(|c| c.is_ascii_alphanumeric()));
        return match (status, code) {
            ("", code) => format!("{before}{marker}{}", code.unwrap_or("no code")),
            (status, Some(code)) => format!("{before}{marker}{} ({code})", status.trim_end_matches([':', ' '])),
            (status, None) => format!("{before}{marker}{}", status.trim_end_matches([':', ' '])),
        };
    }
    text.to_owned()
}

impl fmt::Display for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[async_trait]
impl ObjectStore for Bucket {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> StoreResult<PutResult> {
        self.tell(self.store.put_opts(location, payload, options).await)
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> StoreResult<Box<dyn MultipartUpload>> {
        self.tell(self.store.put_multipart_opts(location, options).await)
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> StoreResult<GetResult> {
        self.tell(self.store.get_opts(location, options).await)
    }

    fn delete_stream(&self, locations: BoxStream<'static, StoreResult<Path>>) -> BoxStream<'static, StoreResult<Path>> {
        let name = self.name.clone();
        self.store.delete_stream(locations).map(move |done| done.map_err(|error| tell(&name, error))).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, StoreResult<ObjectMeta>> {
        let name = self.name.clone();
        self.store.list(prefix).map(move |object| object.map_err(|error| tell(&name, error))).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> StoreResult<ListResult> {
        self.tell(self.store.list_with_delimiter(prefix).await)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> StoreResult<()> {
        self.tell(self.store.copy_opts(from, to, options).await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REFUSED: &str = "Error performing PUT http://h/b/k in 2ms - Server returned non-2xx status code: 403 Forbidden: \
                           <?xml version=\"1.0\"?>\n<Error><Code>SignatureDoesNotMatch</Code><AWSAccessKeyId>AKIASECRET\
                           </AWSAccessKeyId></Error>";

    #[test]
    fn an_answer_is_told_by_its_status_and_code() {
        let put = "Error performing PUT http://h/b/k in 2ms - Server returned";
        assert_eq!(summary(REFUSED), format!("{put} non-2xx status code: 403 Forbidden (SignatureDoesNotMatch)"));
        let empty = format!("{put} non-2xx status code: 404 Not Found: ");
        assert_eq!(summary(&empty), format!("{put} non-2xx status code: 404 Not Found"));
        let ok = format!("{put} error response: <Error><Code>InternalError</Code><Key>secret</Key></Error>");
        assert_eq!(summary(&ok), format!("{put} error response: InternalError"));
        let odd = format!("{put} non-2xx status code: 400 Bad Request: {{\"token\": \"secret\"}}");
        assert_eq!(summary(&odd), format!("{put} non-2xx status code: 400 Bad Request"));
        assert_eq!(summary("connection refused"), "connection refused");
    }

    #[test]
    fn a_missing_bucket_and_denied_access_are_plain() {
        let gone = REFUSED.replace("SignatureDoesNotMatch", "NoSuchBucket").replace("403 Forbidden", "404 Not Found");
        let missing = tell("s3://b", StoreError::NotFound { path: "k".into(), source: gone.into() });
        let StoreError::PermissionDenied { source, .. } = missing else { panic!("{missing:?}") };
        assert!(source.to_string().starts_with("s3://b does not exist ("), "{source}");
        for (code, hint) in [("SignatureDoesNotMatch", "are not accepted"), ("AccessDenied", "access is denied")] {
            let source = REFUSED.replace("SignatureDoesNotMatch", code).into();
            let denied = tell("s3://b", StoreError::PermissionDenied { path: "k".into(), source }).to_string();
            assert!(denied.contains(hint) && !denied.contains("AKIASECRET"), "{denied}");
        }
        let object = tell("s3://b", StoreError::NotFound { path: "k".into(), source: "404 Not Found".into() });
        assert!(matches!(object, StoreError::NotFound { .. }), "{object:?}");
    }

    #[test]
    fn a_refused_listing_is_denied_access_and_no_outage() {
        let list = |status: &str, code: &str| {
            let source = REFUSED.replace("403 Forbidden", status).replace("SignatureDoesNotMatch", code).into();
            tell("s3://b", StoreError::Generic { store: "S3", source })
        };
        for (status, code, hint) in [
            ("403 Forbidden", "AccessDenied", "allowed to list the bucket"),
            ("401 Unauthorized", "NoAuthenticationInformation", "allowed to list the bucket"),
            ("404 Not Found", "NoSuchBucket", "s3://b does not exist"),
            ("400 Bad Request", "AuthorizationHeaderMalformed", "set AWS_REGION"),
        ] {
            let told = list(status, code);
            assert!(matches!(told, StoreError::PermissionDenied { .. }), "{told:?}");
            assert!(told.to_string().contains(hint) && !told.to_string().contains("AKIASECRET"), "{told}");
        }
        assert!(matches!(list("503 Slow Down", "SlowDown"), StoreError::Generic { .. }));
    }
}
