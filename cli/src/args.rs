use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

const EXIT_CODES: &str = "\
Exit codes:
  0    it went well
  1    audit, test or check found differences or mistakes
  2    the command line is wrong
  3    a person must act; the message says what
  4    passing trouble, such as a broker that can't be reached, or a file that was sent half: try again later
  130  ended at once by a second Ctrl-C or SIGTERM

Settings (environment): MILLSTREAM_KAFKA_BROKERS and MILLSTREAM_POSTGRES_URL connect real systems; what is not
set is embedded in the data folder, but beside a Kafka `run` and `up` want it said (`embedded`). MILLSTREAM_LOG filters the log lines on stderr (such as `info`).";

/// Turns event streams into tables and files, exactly once, with no state but the sinks'.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do; `dev` when left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What holds for every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The pipeline file or its folder [default: the current folder if it has a pipeline.yaml, else pipelines/bank]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub pipeline: Option<PathBuf>,
    /// Results for machines: one JSON document on stdout, or JSON lines
    #[arg(long, global = true)]
    pub json: bool,
    /// Say more: log lines, the positions of sent records; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Where embedded stores keep their files [env: MILLSTREAM_DATA_DIR] [default: .millstream]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole pipeline here, generators and all, with a live view (what happens without a command)
    ///
    /// Beside a Kafka (MILLSTREAM_KAFKA_BROKERS) it is a trial that leaves what others run alone: it reads in consumer
    /// groups of its own, makes up no records unless told to (--generate), and embeds the tables though
    /// MILLSTREAM_POSTGRES_URL is set, from which only references are read (--into-postgres writes the real ones).
    /// Topics that are missing are created (MILLSTREAM_CREATE), and broken records go to the pipeline's dead letters.
    Dev(DevArgs),
    /// Run one function until SIGTERM or Ctrl-C, as its container does
    Run {
        /// The function's name in the pipeline file
        function: String,
    },
    /// Make a folder with a pipeline that runs at once, as a beginning of your own
    New(NewArgs),
    /// Create the topics and tables that are missing
    Up {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
        /// Give topics that have fewer partitions than the file declares as many; keys may move to other partitions
        #[arg(long)]
        raise_partitions: bool,
    },
    /// Check the pipeline file and its SQL without any service, and show each function's plan
    Check {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
    },
    /// Run the fixtures of the pipeline file, without any service
    Test {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
    },
    /// Topics: partitions, records, and how far each function has committed
    Topics {
        /// All topics of the log, not only the pipeline's
        #[arg(long)]
        all: bool,
    },
    /// Send the records of a CSV or JSON Lines file to a topic of the pipeline
    ///
    /// The whole file is checked against the topic's schema before anything is sent: a bad line anywhere, and nothing is.
    /// (What can be read only once, such as a named pipe, is checked line by line and ends at its first bad one.) When it
    /// ends half-way it says how many records were sent, and the command that goes on behind them.
    Produce(ProduceArgs),
    /// Run one ingest function: make its records, and print where each acknowledged one stands
    Generate(GenerateArgs),
    /// Read the whole log once more, compute what the sink should hold, and compare row by row
    ///
    /// Both the rows that a function keeps and what readers see of them are compared, up to the fences: what is in the log
    /// beyond them is not in the table yet. NULL and empty text differ, 0.0 and -0.0 don't. Floats that are computed from
    /// several records depend on their order in the last digits: they are equal within a 1e-9th of the larger one, and
    /// where that is not enough (large numbers that cancel out) within four times what the same records give in reversed
    /// order (10,000 rows at most; more are differences). References are joined as they are now: where they have changed since the records came in, what they add can
    /// differ, and the audit says so. Memory: some three times the table.
    Audit {
        /// The function's name in the pipeline file [default: all that read topics, one after the other]
        function: Option<String>,
    },
    /// Ask the pipeline's tables by a SELECT: those that are embedded, and those in the lake
    ///
    /// A table is named as after `postgres.` or `lake.` in the pipeline file. It is read whole into memory, as its readers
    /// see it, and asked by the engine that runs the functions: decimals and times mean what they do there.
    Query {
        /// The SELECT
        sql: String,
        /// At most so many rows
        #[arg(long, default_value_t = 1_000, value_name = "N")]
        limit: usize,
    },
    /// Remove what is embedded of a pipeline, or of one function, so that it begins anew
    ///
    /// Of a function: its table, fences, dead letters and group offset; it reads the log once more when it runs again.
    /// Of a whole pipeline also its topics with their records, if the log is embedded. Nothing in Kafka or PostgreSQL is
    /// touched: what is to be done there is said. It refuses while another process has the data folder open, and when
    /// another pipeline has written there: which tables are whose is not known.
    Reset(ResetArgs),
    /// Records that could not be processed
    DeadLetters {
        /// What to do with them
        #[command(subcommand)]
        command: DeadLettersCommand,
    },
    /// Print the JSON Schema of the pipeline file, for editors
    Schema,
    /// Print the completions of a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How `dev` runs.
#[derive(Args, Debug, Default)]
pub struct DevArgs {
    /// The pipeline file or its folder
    #[arg(value_name = "PIPELINE")]
    pub path: Option<PathBuf>,
    /// Generated records per second, in place of the pipeline file's rate
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// Drain and end after so many seconds, as Ctrl-C does
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub for_s: Option<f64>,
    /// Start no generator: only bring in what is in the log and what others send; so it is beside a Kafka
    #[arg(long, conflicts_with = "generate")]
    pub no_generate: bool,
    /// Start the generators beside a Kafka too: made-up records go into its topics
    #[arg(long)]
    pub generate: bool,
    /// Beside a Kafka, write the functions' real tables in PostgreSQL, under the functions' own fences and names
    #[arg(long)]
    pub into_postgres: bool,
    /// One line a second in place of the live view
    #[arg(long)]
    pub plain: bool,
}

/// What `new` makes.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The folder to make; its last part is the pipeline's name
    pub folder: PathBuf,
    /// Guess the topic's schema from these records: *.csv, *.jsonl or *.ndjson
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// What `reset` removes.
#[derive(Args, Debug)]
pub struct ResetArgs {
    /// The pipeline file or its folder; beside -p, the function
    #[arg(value_name = "PIPELINE")]
    pub path: Option<PathBuf>,
    /// One function only
    pub function: Option<String>,
    /// Don't ask: for scripts
    #[arg(long, short)]
    pub yes: bool,
}

/// What `produce` sends, and how fast.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// A topic of the pipeline
    pub topic: String,
    /// The records: *.csv, *.jsonl or *.ndjson
    pub file: PathBuf,
    /// Records per second [default: as fast as the topic takes them]
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "pace")]
    pub rate: Option<f64>,
    /// The pace of the records' own timestamps, or FACTOR times as fast
    #[arg(long, value_name = "FACTOR", value_parser = positive, num_args = 0..=1, default_missing_value = "1")]
    pub pace: Option<f64>,
    /// The field whose value is the record's key [default: as the function that writes to the topic has it]
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// Leave out the first N records: those that an earlier run has sent
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u64,
    /// Send the good lines of a file that has bad ones, or records that the topic refuses; they are told, and left out
    #[arg(long)]
    pub skip_bad: bool,
    /// Look at key and time of JSON lines only, and send them as they are: to see what becomes of bad records
    #[arg(long)]
    pub unchecked: bool,
    /// Check the file and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// What `generate` runs.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// The ingest function's name in the pipeline file
    pub function: String,
    /// Records per second, in place of the pipeline file's rate
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// End after so many seconds, as Ctrl-C does
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub for_s: Option<f64>,
    /// Print the sum at the end only
    #[arg(short, long)]
    pub quiet: bool,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// Where each of the newest stands and why it is there
    List {
        /// Those of one function only
        #[arg(long, short)]
        function: Option<String>,
        /// At most so many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// All of one, its bytes too
    Show {
        /// `topic/generation/partition/offset`, as `list` prints it
        position: String,
        /// The function whose letter it is, when several could not process the record
        #[arg(long, short)]
        function: Option<String>,
    },
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

/// A hundred years are enough, and fit every timer.
const MAX_SECONDS: f64 = 100.0 * 365.0 * 86_400.0;

fn seconds(text: &str) -> Result<f64, String> {
    positive(text)
        .ok()
        .filter(|seconds| *seconds <= MAX_SECONDS)
        .ok_or_else(|| "it must be a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_pace_may_have_a_factor() {
        let produce =
            |args: &[&str]| match Cli::try_parse_from([&["millstream", "produce", "t", "f.csv"], args].concat()) {
                Ok(Cli { command: Some(Command::Produce(produce)), .. }) => Ok((produce.rate, produce.pace)),
                other => Err(format!("{other:?}")),
            };
        assert_eq!(produce(&[]), Ok((None, None)));
        assert_eq!(produce(&["--pace"]), Ok((None, Some(1.0))));
        assert_eq!(produce(&["--pace", "60"]), Ok((None, Some(60.0))));
        assert_eq!(produce(&["--rate", "2.5"]), Ok((Some(2.5), None)));
        for wrong in [&["--rate", "0"][..], &["--rate", "NaN"], &["--pace", "-1"], &["--rate", "1", "--pace"]] {
            assert!(produce(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_help_says_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("3    a person must act") && help.contains("4    passing trouble"), "{help}");
    }
}
