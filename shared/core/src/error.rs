use std::{error::Error as StdError, fmt};

/// What went wrong, by what the caller does next. There are no more kinds than there are different things to do.
///
/// A message names what happened, where, and what to do; it never holds a secret (adapters strip passwords before they
/// build one) and never the value of a record.
#[derive(Debug)]
pub enum Error {
    /// Passing: the host redelivers, or calls again later with the same input. The outcome of the failed call may be
    /// unknown, so whoever retries reads the fence first.
    Retry(Fault),
    /// This input can't be processed, now or ever. The runner narrows it down to single records and dead-letters them.
    Poison(Fault),
    /// More than can be done at once, within the memory or the time that there is; fewer records may well be. The outcome of
    /// the failed call may be unknown. The runner reads the fence again and tries half as many; one record alone is
    /// retried like [`Error::Retry`], and never becomes a dead letter.
    TooLarge(Fault),
    /// Somebody else moved the fence, or this write had already been made: read the fence again and go on from there.
    /// Nothing was changed by the call that says so.
    Fenced {
        /// The sink's next offset, where the call could tell.
        current: Option<i64>,
    },
    /// A person must act; the message says what. The function stops and moves nothing.
    Stop(Fault),
}

/// The result of every call of the contract.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A message for a person, and the error beneath it where there is one.
#[derive(Debug)]
pub struct Fault {
    message: String,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// Something passing; see [`Error::Retry`].
    pub fn retry(message: impl Into<String>) -> Self {
        Self::Retry(Fault { message: message.into(), source: None })
    }

    /// Bad input; see [`Error::Poison`].
    pub fn poison(message: impl Into<String>) -> Self {
        Self::Poison(Fault { message: message.into(), source: None })
    }

    /// More than can be done at once; see [`Error::TooLarge`].
    pub fn too_large(message: impl Into<String>) -> Self {
        Self::TooLarge(Fault { message: message.into(), source: None })
    }

    /// A person must act; see [`Error::Stop`].
    pub fn stop(message: impl Into<String>) -> Self {
        Self::Stop(Fault { message: message.into(), source: None })
    }

    /// Keeps the error beneath this one, for the log. Its text is printed after this one's.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        if let Self::Retry(fault) | Self::Poison(fault) | Self::TooLarge(fault) | Self::Stop(fault) = &mut self {
            fault.source = Some(source.into());
        }
        self
    }

    /// Puts where it happened in front of the message, and keeps the kind.
    #[must_use]
    pub fn context(mut self, place: impl fmt::Display) -> Self {
        if let Self::Retry(fault) | Self::Poison(fault) | Self::TooLarge(fault) | Self::Stop(fault) = &mut self {
            fault.message = format!("{place}: {}", fault.message);
        }
        self
    }

    /// Is a later call with the same input worth making?
    pub fn is_retry(&self) -> bool {
        matches!(self, Self::Retry(_) | Self::TooLarge(_) | Self::Fenced { .. })
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Retry(fault) | Self::Poison(fault) | Self::TooLarge(fault) | Self::Stop(fault) => {
                write!(f, "{fault}")
            }
            Self::Fenced { current: Some(current) } => write!(f, "fenced: the sink is at offset {current} already"),
            Self::Fenced { current: None } => write!(f, "fenced: the sink's fence has moved"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut below = self.source.as_deref().map(|error| error as &dyn StdError);
        while let Some(error) = below {
            let text = error.to_string();
            // Many libraries print their cause themselves: say it once.
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
        match self {
            Self::Retry(fault) | Self::Poison(fault) | Self::TooLarge(fault) | Self::Stop(fault) => {
                fault.source.as_deref().map(|error| error as &(dyn StdError + 'static))
            }
            Self::Fenced { .. } => None,
        }
    }
}
