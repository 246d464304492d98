//! Where a receiver begins.

use fe2o3_amqp::types::{messaging::Source, primitives::Symbol, primitives::Value};

use super::namespace::Partition;

const FILTER: &str = "apache.org:selector-filter:string";

/// The sequence number of the first event, or the condition and the text of the refusal.
pub(super) fn find_start(source: &Source, partition: &Partition) -> Result<i64, (&'static str, String)> {
    let latest = partition.last() + 1;
    let Some(filter) = source.filter.as_ref().and_then(|filters| filters.get(&Symbol::from(FILTER))) else {
        return Ok(latest);
    };
    let invalid = || ("amqp:not-allowed", "the filter is invalid".to_owned());
    let expression = match filter {
        Value::Described(described) => match &described.value {
            Value::String(text) => text.as_str(),
            _ => return Err(invalid()),
        },
        _ => return Err(invalid()),
    };
    let rest = expression.strip_prefix("amqp.annotation.x-opt-").ok_or_else(invalid)?;
    let (name, rest) = rest.split_once(' ').ok_or_else(invalid)?;
    let (is_inclusive, rest) = match rest.strip_prefix(">=") {
        Some(rest) => (true, rest),
        None => (false, rest.strip_prefix('>').ok_or_else(invalid)?),
    };
    let value = rest.trim().strip_prefix('\'').and_then(|rest| rest.strip_suffix('\'')).ok_or_else(invalid)?;
    let number = || value.parse::<i64>().map_err(|_| invalid());
    let behind = i64::from(!is_inclusive);
    match name {
        "offset" if value == "@latest" => Ok(latest - i64::from(is_inclusive)),
        "offset" if value == "-1" => Ok(partition.first),
        // An offset is a hundred times the number here.
        "offset" => check(number()?.div_euclid(100), "offset", partition).map(|start| start + behind),
        "sequence-number" => {
            let start = check(number()?, "sequence number", partition)?;
            // Named the last event, the service has begun some events earlier than asked: azure-sdk-for-java#29502.
            let early = if start == partition.last() { 4 } else { 0 };
            Ok((start + behind - early).max(partition.first))
        }
        "enqueued-time" => {
            let since = number()?;
            let found = partition.events.iter().position(|(_, time_ms)| *time_ms + i64::from(is_inclusive) > since);
            Ok(found.map_or(latest, |at| partition.first + at as i64))
        }
        _ => Err(invalid()),
    }
}

fn check(start: i64, what: &str, partition: &Partition) -> Result<i64, (&'static str, String)> {
    let last = partition.last();
    if start > last {
        let text = format!("The supplied {what} '{start}' is invalid. The last {what} in the system is '{last}'");
        return Err(("com.microsoft:argument-error", text));
    }
    Ok(start.max(partition.first - 1))
}
