use std::{error::Error as StdError, fmt, time::Duration};

/// What went wrong, by what the caller does next: one kind for each thing to do.
///
/// A message names what happened, where, and what to do; it never holds a secret (adapters strip passwords before they
/// build one) and never the value of a record.
#[derive(Debug)]
pub enum Error {
    /// Transient: the host redelivers or retries later with the same input, by the policy of [`crate::Retries`]. The outcome
    /// of the failed call may be unknown, so the caller that retries reads the fence first.
    Retry(Cause),
    /// This input can't be processed, now or ever. The runner narrows it down to single records and dead-letters them.
    Poison(Cause),
    /// More than can be done at once within the memory or the time available; fewer records may succeed. The outcome of the
    /// failed call may be unknown. The runner reads the fence again and tries half as many; one record alone is retried like
    /// [`Error::Retry`], and never becomes a dead letter.
    TooLarge(Cause),
    /// Another writer moved the fence, or this write had already been made: read the fence again and go on from there.
    /// The call that returns this changed nothing.
    Fenced {
        /// The sink's next offset, where the call could tell.
        current: Option<i64>,
    },
    /// A person must act; the message says what. The function stops and moves nothing.
    Stop(Cause),
}

/// The result of every call of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What an [`Error`] carries: a message for a person, the error beneath it where there is one, and how long to wait before
/// the next attempt where the system that failed has said so.
///
/// It prints as its message, followed by the messages of the errors beneath.
#[derive(Debug)]
pub struct Cause {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
    after: Option<Duration>,
}

impl Cause {
    fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), source: None, after: None }
    }
}

impl Error {
    /// Something transient; see [`Error::Retry`].
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(Cause::new(message))
    }

    /// Bad input; see [`Error::Poison`].
    pub fn poison(message: impl Into<String>) -> Self {
        Self::Poison(Cause::new(message))
    }

    /// More than can be done at once; see [`Error::TooLarge`].
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::TooLarge(Cause::new(message))
    }

    /// A person must act; see [`Error::Stop`].
    pub fn stop(message: impl Into<String>) -> Self {
        Self::Stop(Cause::new(message))
    }

    /// Says that the next attempt must not be made before `pause` has passed: what a service that limits its callers tells
    /// them (HTTP status 429 with `Retry-After`). [`crate::Retries::pause`] waits at least that long. Without meaning for
    /// errors that are not retried.
    #[must_use]
    pub fn not_before(mut self, pause: Duration) -> Self {
        if let Some(cause) = self.cause_mut() {
            cause.after = Some(pause);
        }
        self
    }

    /// How long to wait at least before the next attempt, where the system that failed has said so.
    pub fn retry_after(&self) -> Option<Duration> {
        self.cause().filter(|_| self.is_retry()).and_then(|cause| cause.after)
    }

    /// Keeps the error beneath this one, for the log. Its text is printed after this one's.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        if let Some(cause) = self.cause_mut() {
            cause.source = Some(source.into());
        }
        self
    }

    /// Puts where it happened in front of the message, and keeps the kind.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        if let Some(cause) = self.cause_mut() {
            cause.message = format!("{place}: {}", cause.message);
        }
        self
    }

    /// Is a later call with the same input worth making?
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::TooLarge(_) | Self::Fenced { .. })
    }

    fn cause(&self) -> Option<&Cause> {
        match self {
            Self::Retry(cause) | Self::Poison(cause) | Self::TooLarge(cause) | Self::Stop(cause) => Some(cause),
            Self::Fenced { .. } => None,
        }
    }

    fn cause_mut(&mut self) -> Option<&mut Cause> {
        match self {
            Self::Retry(cause) | Self::Poison(cause) | Self::TooLarge(cause) | Self::Stop(cause) => Some(cause),
            Self::Fenced { .. } => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(cause) | Self::Poison(cause) | Self::TooLarge(cause) | Self::Stop(cause) => {
                fmt::Display::fmt(cause, f)
            }
            Self::Fenced { current: Some(current) } => write!(f, "fenced: the sink is at offset {current} already"),
            Self::Fenced { current: None } => write!(f, "fenced: the sink's fence has moved"),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut below = self.source.as_deref().map(|error| error as &dyn StdError);
        while let Some(error) = below {
            let text = error.to_string();
            // Many libraries print the error beneath theirs themselves: say it once.
            if !self.message.contains(&text) {
                write!(f, ": {text}")?;
            }
            below = error.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.cause()?.source.as_deref().map(|error| error as &(dyn StdError + 'static))
    }
}
