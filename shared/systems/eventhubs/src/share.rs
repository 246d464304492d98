use std::ops::RangeInclusive;

use millstream_core::{Error, Result};

/// Which partitions a process reads. AMQP has no consumer groups that hand partitions out: several processes of a function share
/// them by their settings. Two that read the same partition do the same work twice, and the fences keep it harmless.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Share {
    All,
    /// By number, in ranges.
    Some(Vec<RangeInclusive<i32>>),
}

impl Share {
    /// Reads `all`, or numbers and ranges such as `0-3,7`.
    pub fn parse(variable: &str, text: &str) -> Result<Self> {
        if text == "all" {
            return Ok(Self::All);
        }
        let range = |part: &str| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let (first, last) = (first.trim().parse::<u16>().ok()?, last.trim().parse::<u16>().ok()?);
            (first <= last).then(|| i32::from(first)..=i32::from(last))
        };
        let ranges: Option<Vec<_>> = text.split(',').map(range).collect();
        let wrong = || Error::stop(format!("{variable} must be `all`, or numbers of partitions such as 0-3,7"));
        ranges.map(Self::Some).ok_or_else(wrong)
    }

    pub fn has(&self, partition: i32) -> bool {
        match self {
            Self::All => true,
            Self::Some(ranges) => ranges.iter().any(|range| range.contains(&partition)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_numbers_are_read() {
        assert_eq!(Share::parse("X", "all").unwrap(), Share::All);
        let some = Share::parse("X", "0-3, 7").unwrap();
        let has: Vec<i32> = (0..10).filter(|partition| some.has(*partition)).collect();
        assert_eq!(has, [0, 1, 2, 3, 7]);
        for wrong in ["", "3-1", "a", "1,,2", "-1", "1-", "0-3;7"] {
            assert!(matches!(Share::parse("X", wrong), Err(Error::Stop(_))), "{wrong}");
        }
    }
}
