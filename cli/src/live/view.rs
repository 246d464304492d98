//! The text of the live view: pure functions from a [`State`] to lines.

use console::{measure_text_width, style, truncate_str};

use super::{DeadLetterState, FunctionState, Phase, State, TableState, TopicState};
use crate::{
    grid::{Grid, printable},
    numbers::{count, counted, duration, rate},
};

/// How many rows of each table are shown, if there is room.
pub const NEWEST_ROWS: usize = 5;
/// How many log lines are shown.
pub const NOTICES: usize = 3;

/// The lines of the view for a terminal of this size; they fit its width and height.
pub fn lines(state: &State, width: usize, height: usize) -> Vec<String> {
    let mut fixed = head(state);
    fixed.extend(topics(state));
    fixed.extend(functions(state, width));
    let mut foot = dead_letters(&state.dead_letters);
    foot.extend(notices(state));
    foot.extend(footer(state));
    let mut room = height.saturating_sub(fixed.len() + foot.len());
    for table in &state.tables {
        let lines = table_lines(table, room);
        room -= lines.len();
        fixed.extend(lines);
    }
    // On a low terminal, the figures at the top matter more than the footer.
    fixed.extend(foot);
    fixed.truncate(height);
    fixed.iter().map(|line| truncate_str(line, width, "…").into_owned()).collect()
}

/// One line, for logs and pipes: each topic stands before the functions that read it, and behind the one that writes it.
pub fn plain(state: &State) -> String {
    let topic = |topic: &TopicState| {
        format!("{} {}/s {}", topic.name, rate(topic.records_per_s), counted_records(topic.records))
    };
    let function = |function: &FunctionState| {
        let (rate, rows) = (rate(function.records_per_s), count(function.rows));
        format!("{} {rate}/s lag {} rows {rows}", function.name, known(state, function.lag))
    };
    let topics = state.topics.iter().map(|of| ((of.step, 0), topic(of)));
    let mut along: Vec<_> = topics.chain(state.functions.iter().map(|of| ((of.step, 1), function(of)))).collect();
    along.sort_by_key(|(place, _)| *place);
    let mut parts = vec![duration(state.elapsed_ms)];
    parts.extend(along.into_iter().map(|(_, text)| text));
    parts.push(format!("dead letters {}", count(state.dead_letters.total)));
    match state.phase {
        Phase::Starting => parts.push("starting".to_owned()),
        Phase::Running => {}
        Phase::Draining => parts.push("draining".to_owned()),
        Phase::Ended => parts.push("ended".to_owned()),
    }
    parts.join(" | ")
}

/// A number that is only known once the systems have answered.
fn known(state: &State, number: i64) -> String {
    if state.phase == Phase::Starting { "…".to_owned() } else { count(number) }
}

fn counted_records(records: i64) -> String {
    counted(records.unsigned_abs(), "record")
}

fn bold(text: &str) -> String {
    style(text).bold().for_stderr().to_string()
}

fn dim(text: &str) -> String {
    style(text).dim().for_stderr().to_string()
}

fn head(state: &State) -> Vec<String> {
    vec![format!("{}  {}", bold(&format!("millstream {}", state.pipeline)), dim(&duration(state.elapsed_ms)))]
}

fn topics(state: &State) -> Vec<String> {
    let mut grid = Grid::new(&["topic", ">partitions", ">records/s", ">records"]);
    for topic in &state.topics {
        let numbers = [count(topic.partitions as u64), rate(topic.records_per_s), count(topic.records)];
        grid.row([topic.name.clone()].into_iter().chain(numbers));
    }
    section(grid)
}

/// On a narrow terminal, topics and sinks are left out: the numbers matter more.
fn functions(state: &State, width: usize) -> Vec<String> {
    let all = section(function_grid(state, true));
    if all.iter().any(|line| measure_text_width(line) > width) { section(function_grid(state, false)) } else { all }
}

fn function_grid(state: &State, with_places: bool) -> Grid {
    let heads =
        ["function", "from", "into", ">records/s", ">records", ">rows", ">fence", ">log end", ">lag", ">dead letters"];
    let named = |name: &str, from: &str, into: &str| {
        let cells = [name, from, into].map(str::to_owned);
        cells.into_iter().take(if with_places { 3 } else { 1 })
    };
    let is_shown = |head: &&str| with_places || !matches!(*head, "from" | "into");
    let mut grid = Grid::new(&heads.into_iter().filter(is_shown).collect::<Vec<_>>());
    for made in &state.generators {
        grid.row(named(&made.name, "", &made.into).chain([rate(made.records_per_s), count(made.sent)]));
    }
    for function in &state.functions {
        let dead_letters = match function.dead_letters {
            0 => "0".to_owned(),
            letters => style(count(letters)).yellow().for_stderr().to_string(),
        };
        let numbers = [
            rate(function.records_per_s),
            count(function.records),
            count(function.rows),
            known(state, function.fence),
            known(state, function.log_end),
            known(state, function.lag),
            dead_letters,
        ];
        grid.row(named(&function.name, &function.from, &function.into).chain(numbers));
    }
    grid
}

/// A grid without rows is left out.
fn section(grid: Grid) -> Vec<String> {
    if grid.is_empty() {
        return Vec::new();
    }
    let mut lines = vec![String::new()];
    lines.extend(grid.lines("", true));
    lines
}

/// The newest rows of a table in at most `room` lines; empty if not even one row fits.
fn table_lines(table: &TableState, room: usize) -> Vec<String> {
    // A blank line, the name, the heads.
    let rows = room.saturating_sub(3).min(NEWEST_ROWS).min(table.newest.len());
    if rows == 0 {
        return Vec::new();
    }
    let heads: Vec<_> = table.columns.iter().map(|column| printable(column)).collect();
    let mut grid = Grid::new(&heads.iter().map(String::as_str).collect::<Vec<_>>());
    for row in table.newest.iter().take(rows) {
        grid.row(row.iter().map(|cell| printable(cell)));
    }
    // Rows are counted less often than they are read: a count that is lower than the rows shown is out of date.
    let total = table.rows.filter(|rows| *rows >= table.newest.len() as u64);
    let total = total.map_or_else(String::new, |rows| format!("  {}, the newest:", counted(rows, "row")));
    let mut lines = vec![String::new(), format!("{}{}", bold(&table.name), dim(&total))];
    lines.extend(grid.lines("  ", true));
    lines
}

fn dead_letters(letters: &DeadLetterState) -> Vec<String> {
    let mut lines = vec![String::new()];
    match letters.total {
        0 => lines.push(dim("no dead letters")),
        total => lines.push(style(counted(total, "dead letter")).yellow().for_stderr().to_string()),
    }
    lines.extend(letters.latest.iter().map(|latest| format!("  {}", printable(latest))));
    lines
}

fn notices(state: &State) -> Vec<String> {
    state.notices.iter().rev().take(NOTICES).rev().map(|line| printable(line)).collect()
}

fn footer(state: &State) -> Vec<String> {
    let places = state.systems.iter().map(|(what, place)| format!("{what} {place}")).collect::<Vec<_>>().join(" · ");
    let keys = match state.phase {
        Phase::Starting => bold("starting… Ctrl-C ends"),
        Phase::Running => dim("Ctrl-C drains"),
        Phase::Draining => bold("draining… Ctrl-C again ends at once"),
        Phase::Ended => String::new(),
    };
    vec![String::new(), dim(&places), keys]
}

#[cfg(test)]
mod tests;
