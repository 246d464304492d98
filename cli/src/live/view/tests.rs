use super::*;
use crate::live::{FunctionState, GeneratorState, TopicState};

fn bank() -> State {
    State {
        pipeline: "bank".into(),
        elapsed_ms: 65_000,
        topics: vec![TopicState {
            name: "transaction".into(),
            step: 0,
            partitions: 3,
            records_per_s: 99.8,
            records: 6_512,
        }],
        generators: vec![GeneratorState {
            name: "generate".into(),
            into: "topic.transaction".into(),
            records_per_s: 99.8,
            sent: 6_512,
        }],
        functions: vec![FunctionState {
            name: "flow".into(),
            from: "transaction".into(),
            step: 0,
            into: "postgres.transaction_flow".into(),
            records_per_s: 100.2,
            records: 6_500,
            rows: 4_100,
            fence: 6_500,
            log_end: 6_512,
            lag: 12,
            dead_letters: 1,
        }],
        tables: vec![TableState {
            name: "transaction_flow".into(),
            rows: Some(1_300),
            columns: vec!["branch_name".into(), "batch_value".into()],
            newest: vec![vec!["Oslo".into(), "5.10".into()], vec!["Bad\u{1b}[2J".into(), "1.00".into()]],
        }],
        dead_letters: DeadLetterState { total: 1, latest: Some("transaction/1/0/7: no JSON".into()) },
        systems: vec![("log", "a.db".into()), ("lake", "lake".into())],
        notices: vec!["WARN something".into()],
        phase: Phase::Running,
    }
}

fn shown(state: &State, width: usize, height: usize) -> Vec<String> {
    console::set_colors_enabled_stderr(false);
    lines(state, width, height)
}

#[test]
fn it_shows_rates_lag_rows_and_dead_letters() {
    let expected = "\
millstream bank  1 min 05 s

topic        partitions  records/s  records
transaction           3        100    6,512

function  from         into                       records/s  records   rows  fence  log end  lag  dead letters
generate               topic.transaction                100    6,512
flow      transaction  postgres.transaction_flow        100    6,500  4,100  6,500    6,512   12             1

transaction_flow  1,300 rows, the newest:
  branch_name  batch_value
  Oslo         5.10
  Bad�[2J      1.00

1 dead letter
  transaction/1/0/7: no JSON
WARN something

log a.db · lake lake
Ctrl-C drains";
    assert_eq!(shown(&bank(), 120, 40).join("\n"), expected);
}

#[test]
fn it_fits_any_terminal() {
    let state = bank();
    for (width, height) in [(120, 40), (60, 18), (40, 16), (20, 5), (1, 1), (0, 0)] {
        let lines = shown(&state, width, height);
        assert!(lines.len() <= height, "{width}×{height}: {}", lines.len());
        assert!(lines.iter().all(|line| measure_text_width(line) <= width), "{width}×{height}: {lines:?}");
    }
    let low = shown(&state, 120, 19);
    assert!(low.iter().any(|line| line.contains("Oslo")) && !low.iter().any(|line| line.contains("Bad")), "{low:?}");
    assert_eq!(low.last().unwrap(), "Ctrl-C drains");
}

#[test]
fn a_narrow_terminal_still_shows_the_lag() {
    let lines = shown(&bank(), 80, 24);
    let of_functions = lines.iter().find(|line| line.starts_with("function")).unwrap();
    assert!(of_functions.ends_with("lag  dead letters") && !of_functions.contains("into"), "{of_functions}");
}

#[test]
fn an_empty_state_can_be_shown() {
    let lines = shown(&State { phase: Phase::Draining, ..State::default() }, 80, 24);
    assert!(lines.contains(&"no dead letters".to_owned()), "{lines:?}");
    assert_eq!(lines.last().unwrap(), "draining… Ctrl-C again ends at once");
}

#[test]
fn the_plain_line_has_the_same_numbers() {
    assert_eq!(
        plain(&bank()),
        "1 min 05 s | transaction 100/s 6,512 records | flow 100/s lag 12 rows 4,100 | dead letters 1"
    );
}

#[test]
fn a_chain_is_shown_in_the_order_of_its_records() {
    let topic = |name: &str, step| TopicState { name: name.into(), step, ..TopicState::default() };
    let function = |name: &str, step| FunctionState { name: name.into(), step, ..FunctionState::default() };
    let state = State {
        pipeline: "p".into(),
        topics: vec![topic("posts", 0), topic("chosen", 1)],
        functions: vec![function("filter", 0), function("archive", 1), function("counts", 1)],
        ..State::default()
    };
    let line = plain(&state);
    let words: Vec<_> = line.split(" | ").filter_map(|part| part.split(' ').next()).collect();
    assert_eq!(words, ["0.0", "posts", "filter", "chosen", "archive", "counts", "dead"]);
}
