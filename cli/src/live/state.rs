/// Everything that the live view shows, at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct State {
    /// The pipeline's name.
    pub pipeline: String,
    /// Milliseconds since the start.
    pub elapsed_ms: i64,
    /// The pipeline's topics, in the order in which records pass them.
    pub topics: Vec<TopicState>,
    /// Functions that make records.
    pub generators: Vec<GeneratorState>,
    /// Functions that read records, in the order in which records pass them.
    pub functions: Vec<FunctionState>,
    /// The newest rows of tables that can be read.
    pub tables: Vec<TableState>,
    /// Records that could not be processed.
    pub dead_letters: DeadLetterState,
    /// The place of each system: `("log", "…")`.
    pub systems: Vec<(&'static str, String)>,
    /// The latest log lines.
    pub notices: Vec<String>,
    /// The phase of the run.
    pub phase: Phase,
}

/// The phases of a run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// The systems haven't answered yet.
    Starting,
    /// It runs until it is asked to end.
    #[default]
    Running,
    /// Records in flight are being written.
    Draining,
    /// It is done.
    Ended,
}

/// A topic.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TopicState {
    /// Its name.
    pub name: String,
    /// Through how many functions its records have come.
    pub step: usize,
    /// How many partitions it has.
    pub partitions: usize,
    /// Records that come in per second.
    pub records_per_s: f64,
    /// Offsets that it holds.
    pub records: i64,
}

/// A function that makes records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GeneratorState {
    /// Its name.
    pub name: String,
    /// The topic it writes to.
    pub into: String,
    /// Acknowledged records per second.
    pub records_per_s: f64,
    /// Acknowledged records since the start.
    pub sent: u64,
}

/// A function that reads records.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FunctionState {
    /// Its name.
    pub name: String,
    /// The topics that it reads.
    pub from: String,
    /// Through how many functions its records have come.
    pub step: usize,
    /// Its sink.
    pub into: String,
    /// Records processed per second.
    pub records_per_s: f64,
    /// Records processed since the start.
    pub records: u64,
    /// Rows written to the sink since the start; each partial state counts as a row.
    pub rows: u64,
    /// The fences of its partitions, added up.
    pub fence: i64,
    /// The ends of its partitions, added up.
    pub log_end: i64,
    /// Records that are in the log and not yet in the sink.
    pub lag: i64,
    /// Dead letters since the start.
    pub dead_letters: u64,
}

/// A table.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct TableState {
    /// Its name.
    pub name: String,
    /// How many rows it has, if that is known.
    pub rows: Option<u64>,
    /// Its columns.
    pub columns: Vec<String>,
    /// The newest rows, newest first.
    pub newest: Vec<Vec<String>>,
}

/// Records that could not be processed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DeadLetterState {
    /// All letters of this pipeline, if that is known; otherwise those since the start.
    pub total: u64,
    /// The position and reason of the latest one.
    pub latest: Option<String>,
}
