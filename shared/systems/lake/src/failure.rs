use std::error::Error as StdError;

use millstream_core::Error;
use object_store::Error as StoreError;

/// What a failure of the store means to the caller: `doing` something at `place`.
pub(crate) fn store_error(doing: &str, place: impl std::fmt::Display, error: StoreError) -> Error {
    let kind = match &error {
        StoreError::PermissionDenied { .. }
        | StoreError::Unauthenticated { .. }
        | StoreError::InvalidPath { .. }
        | StoreError::NotImplemented { .. }
        | StoreError::NotSupported { .. } => Error::stop,
        _ => Error::retry,
    };
    kind(format!("lake: {doing} {place} failed")).caused_by(cause(error))
}

/// The error beneath, which says what happened; the rest of the text would repeat the kind and the place.
fn cause(error: StoreError) -> Box<dyn StdError + Send + Sync> {
    match error {
        StoreError::Generic { source, .. }
        | StoreError::NotFound { source, .. }
        | StoreError::AlreadyExists { source, .. }
        | StoreError::Precondition { source, .. }
        | StoreError::NotModified { source, .. }
        | StoreError::PermissionDenied { source, .. }
        | StoreError::Unauthenticated { source, .. } => source,
        other => Box::new(other),
    }
}

/// The answer "it exists" with no object there: S3's status 409, which is given while another write to the name is in
/// progress, or a container that is being deleted. Nothing is known of the write then, so it is made again.
pub(crate) fn not_there_after_all(place: impl std::fmt::Display) -> Error {
    Error::retry(format!(
        "lake: the store answered that {place} exists, and it is not there: another write to it may be in progress"
    ))
}
