use std::collections::HashMap;

use millstream_core::{Error, Fence, PartitionBy, Result};
use object_store::path::Path;
use serde::{Deserialize, Serialize};

use crate::names::period_of;

/// Where the chain of a partition's files stands. Together `date` and the fence's next offset name the one object that
/// can follow.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Chain {
    /// What the files so far hold.
    pub(crate) fence: Fence,
    /// The day that files go to, or the hour (`2026-11-21T05`); `None` before the first.
    pub(crate) date: Option<String>,
    /// Did the last step turn to this date? Then the next must be a file, whatever its own date.
    pub(crate) turned: bool,
}

impl Chain {
    /// A chain with no object yet.
    pub(crate) fn starting_at(fence: Fence) -> Self {
        Self { fence, date: None, turned: false }
    }

    /// The state after the next step towards `to`: a turn if the date has changed (`turned` says so), else the file.
    ///
    /// The batch's last record decides the date: writers whose batches end elsewhere may disagree, and then the first to
    /// turn decides for both.
    pub(crate) fn step_to(&self, to: &Fence, by: PartitionBy) -> Self {
        let date = to.last_timestamp_ms.map(|timestamp_ms| period_of(timestamp_ms, by)).or_else(|| self.date.clone());
        // A record without a timestamp (Kafka says -1) is of the first day.
        let date = date.unwrap_or_else(|| period_of(0, by));
        if self.turned || self.date.as_ref() == Some(&date) {
            Self { fence: to.clone(), date: self.date.clone(), turned: false }
        } else {
            Self { fence: self.fence.clone(), date: Some(date), turned: true }
        }
    }

    /// Can `self` be the state right after `before`? Each step moves forward, so a walk along a chain ends.
    fn follows(&self, before: &Self) -> bool {
        let (next, was) = (self.fence.next_offset, before.fence.next_offset);
        self.date.is_some() && (next > was || (next == was && self.turned && !before.turned))
    }

    /// What a footer says of the chain.
    pub(crate) fn to_marks(&self, function: &str) -> Result<Vec<(&'static str, String)>> {
        let fence = serde_json::to_string(&self.fence)
            .map_err(|error| Error::stop("lake: internal: a fence has no JSON form").caused_by(error))?;
        Ok(vec![
            (FUNCTION, function.to_owned()),
            ("millstream.end", self.fence.next_offset.to_string()),
            (FENCE, fence),
            (DATE, self.date.clone().unwrap_or_default()),
            (TURNED, self.turned.to_string()),
        ])
    }

    /// The state that the footer of the object at `path` leads to, which stands where `before` said.
    pub(crate) fn from_marks(
        marks: &HashMap<String, String>,
        function: &str,
        before: &Self,
        path: &Path,
    ) -> Result<Self> {
        if let Some(owner) = marks.get(FUNCTION).filter(|owner| *owner != function) {
            return Err(other_owner(owner, function, path));
        }
        let next = (|| {
            Some(Self {
                fence: serde_json::from_str(marks.get(FENCE)?).ok()?,
                date: Some(marks.get(DATE)?.clone()),
                turned: marks.get(TURNED)?.parse().ok()?,
            })
        })();
        next.filter(|next| next.follows(before)).ok_or_else(|| {
            Error::stop(format!(
                "lake: {path} stands where the next file must go, but its footer does not continue from offset {}; \
                 nothing else may write to this folder: move the object away if it is not millstream's",
                before.fence.next_offset
            ))
        })
    }
}

const FUNCTION: &str = "millstream.function";
const FENCE: &str = "millstream.fence";
const DATE: &str = "millstream.date";
const TURNED: &str = "millstream.turned";

/// Names the put that made the object.
pub(crate) const WRITER: &str = "millstream.writer";

/// The error when another function owns an object: two functions that write one topic to one table would take each other's
/// files for their own.
pub(crate) fn other_owner(owner: &str, function: &str, path: &Path) -> Error {
    Error::stop(format!(
        "lake: {path} belongs to the function {owner}: of one topic only one function can write to a table; give \
         {function} a table of its own"
    ))
}
