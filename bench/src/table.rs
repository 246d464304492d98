//! The one table that a run prints.

use std::fmt;

use crate::process::Usage;

/// What one side did in one round.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// From the start of its process to the last event.
    pub seconds: f64,
    pub usage: Usage,
    /// From the start of its process to the first visible row; 0 where nobody looks.
    pub first_row_s: f64,
}

/// The rounds of one side of a workload.
pub struct Side {
    pub name: String,
    pub runs: Vec<Run>,
}

impl Side {
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), runs: Vec::new() }
    }
}

/// A line of the table. A cell that means nothing for it is empty.
#[derive(Clone, Debug, Default)]
pub struct Row {
    pub what: String,
    /// The median of the rounds, with its unit.
    pub median: String,
    /// The lowest and the highest round.
    pub spread: String,
    /// Compared with the first side of the workload: the median of the rounds' ratios, and the lowest and highest.
    pub ratio: String,
    pub cpu: String,
    pub memory: String,
}

/// What a run prints on its standard output, as Markdown.
#[derive(Default)]
pub struct Table(pub Vec<Row>);

/// Each side beside the first one, round by round, since the machine's speed changes from one round to the next.
pub fn compare(workload: &str, events: u64, sides: &[Side]) -> Vec<Row> {
    let Some(floor) = sides.first() else { return Vec::new() };
    let of_floor = |side: &Side, ratio: fn(&Run, &Run) -> f64| {
        Spread::of(side.runs.iter().zip(&floor.runs).map(|(run, floor)| ratio(run, floor)))
    };
    let row = |(number, side): (usize, &Side)| {
        let rate = Spread::of(side.runs.iter().map(|run| events as f64 / run.seconds));
        let cpu = Spread::of(side.runs.iter().map(|run| run.usage.cpu_s / (events as f64 / 1e6)));
        let memory = Spread::of(side.runs.iter().map(|run| run.usage.peak_mib));
        let (rates, cpus) = (
            of_floor(side, |run, floor| 100.0 * floor.seconds / run.seconds),
            of_floor(side, |run, floor| run.usage.cpu_s / floor.usage.cpu_s),
        );
        let first = number == 0;
        Row {
            what: format!("{workload}: {}", side.name),
            median: format!("{}/s", thousands(rate.median)),
            spread: format!("{}–{}", thousands(rate.lowest), thousands(rate.highest)),
            ratio: if first {
                String::new()
            } else {
                format!("{:.0} % ({:.0}–{:.0})", rates.median, rates.lowest, rates.highest)
            },
            cpu: if first {
                format!("{:.2}", cpu.median)
            } else {
                format!("{:.2} ({:.2} ×)", cpu.median, cpus.median)
            },
            memory: format!("{:.0} MiB", memory.highest),
        }
    };
    sides.iter().enumerate().map(row).collect()
}

/// The lowest, the median and the highest of some rounds.
#[derive(Clone, Copy, Debug)]
pub struct Spread {
    pub lowest: f64,
    pub median: f64,
    pub highest: f64,
}

impl Spread {
    /// Of no round: not a number.
    pub fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
        let last = values.len().saturating_sub(1);
        // Of an even number, between the two in the middle.
        Self { lowest: at(0), median: (at(last / 2) + at(last.div_ceil(2))) / 2.0, highest: at(last) }
    }
}

/// A duration of every round.
pub fn duration(what: String, ms: impl Iterator<Item = f64>) -> Row {
    let ms = Spread::of(ms);
    Row {
        what,
        median: format!("{:.1} ms", ms.median),
        spread: format!("{:.1}–{:.1}", ms.lowest, ms.highest),
        ..Row::default()
    }
}

/// The percentiles of the latencies of some rounds, in milliseconds: each is a row of its own.
pub fn percentiles(what: &str, rounds: Vec<Vec<f64>>) -> Vec<Row> {
    let mut rounds = rounds;
    for round in &mut rounds {
        round.sort_by(f64::total_cmp);
    }
    let row = |(name, share): (&str, f64)| {
        let of_round = |round: &Vec<f64>| round.get(((round.len().max(1) - 1) as f64 * share) as usize).copied();
        duration(format!("{what}: {name}"), rounds.iter().filter_map(of_round))
    };
    [("p50", 0.5), ("p99", 0.99), ("p99.9", 0.999)].map(row).into()
}

/// A whole number with commas.
fn thousands(number: f64) -> String {
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, median, spread, ratio, cpu, memory } = self;
        write!(f, "| {what} | {median} | {spread} | {ratio} | {cpu} | {memory} |")
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | median | lowest–highest | of the first | CPU-s per million | peak |")?;
        writeln!(f, "| --- | --- | --- | --- | --- | --- |")?;
        self.0.iter().try_for_each(|row| writeln!(f, "{row}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_in_the_middle() {
        let median = |values: &[f64]| Spread::of(values.iter().copied()).median;
        assert_eq!((median(&[2.0, 1.0]), median(&[3.0, 1.0, 2.0]), median(&[7.0])), (1.5, 2.0, 7.0));
        assert!(median(&[]).is_nan());
    }
}
