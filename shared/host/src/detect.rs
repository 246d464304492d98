use millstream_core::Env;

/// Where a function's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A service, in a container or on a laptop: it runs until SIGTERM.
    Stream,
    /// AWS Lambda, which hands over event after event.
    Lambda,
}

/// Where this process runs: Lambda sets `AWS_LAMBDA_RUNTIME_API`.
///
/// ```
/// use millstream_core::Env;
/// use millstream_host::{Host, detect};
///
/// let lambda = Env::of([("AWS_LAMBDA_RUNTIME_API", "127.0.0.1:9001")]);
/// assert_eq!(detect(&lambda), Host::Lambda);
/// assert_eq!(detect(&Env::default()), Host::Stream);
/// ```
pub fn detect(env: &Env) -> Host {
    match env.get("AWS_LAMBDA_RUNTIME_API") {
        Some(_) => Host::Lambda,
        None => Host::Stream,
    }
}
