/// Where a function's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Host {
    /// A service, in a container or on a laptop: it runs until SIGTERM.
    Stream,
    /// AWS Lambda, which hands over event after event.
    Lambda,
}

/// Where this process runs. `get` looks up an environment variable: Lambda sets `AWS_LAMBDA_RUNTIME_API`.
///
/// ```
/// use millstream_host::{Host, detect};
///
/// let lambda = |name: &str| (name == "AWS_LAMBDA_RUNTIME_API").then(|| "127.0.0.1:9001".to_owned());
/// assert_eq!(detect(&lambda), Host::Lambda);
/// assert_eq!(detect(&|_| None), Host::Stream);
/// ```
pub fn detect(get: &dyn Fn(&str) -> Option<String>) -> Host {
    match get("AWS_LAMBDA_RUNTIME_API") {
        Some(_) => Host::Lambda,
        None => Host::Stream,
    }
}
