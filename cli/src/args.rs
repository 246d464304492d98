mod dead_letters;
mod topics;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use self::{
    dead_letters::{DeadLettersCommand, RedriveArgs},
    topics::{PeekArgs, TopicsCommand},
};

const EXIT_CODES: &str = "\
Exit codes:
  0    success
  1    audit, test or check found differences or mistakes
  2    the command line is wrong
  3    a person must act; the message says what
  4    transient trouble, such as a broker that can't be reached, or a file that was only partly sent: try again later
  130  ended at once by a second Ctrl-C or SIGTERM

Settings (environment): MILLSTREAM_KAFKA_BROKERS and MILLSTREAM_POSTGRES_URL connect real systems; what is not
set is embedded in the data folder, but if a Kafka is set, `run` and `up` need the others set too (`embedded` is
allowed). MILLSTREAM_LOG filters the log lines on stderr (such as `info`).";

/// Turns event streams into tables and files, exactly once, with no state but the sinks'.
#[derive(Debug, Parser)]
#[command(name = "millstream", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command; `dev` if left out.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub struct Global {
    /// The pipeline file or its folder [default: the current folder if it has a pipeline.yaml, else pipelines/bank]
    #[arg(short, long, global = true, value_name = "PATH")]
    pub pipeline: Option<PathBuf>,
    /// Print results for machines: one JSON document on stdout, or JSON lines
    #[arg(long, global = true)]
    pub json: bool,
    /// Print more: log lines, the positions of sent records; twice for even more
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
    /// Where embedded stores keep their files [env: MILLSTREAM_DATA_DIR] [default: .millstream]
    #[arg(long, global = true, value_name = "FOLDER")]
    pub data_dir: Option<PathBuf>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole pipeline here, including its generators, with a live view (the default command)
    ///
    /// If a Kafka is configured (MILLSTREAM_KAFKA_BROKERS), this is a trial that doesn't affect running functions: it
    /// reads in consumer groups of its own, makes up no records (unless --generate is given), and embeds the tables
    /// even if MILLSTREAM_POSTGRES_URL is set, from which only references are read (--into-postgres writes the real
    /// tables). Missing topics are created (MILLSTREAM_CREATE), and broken records go to the pipeline's dead letters.
    Dev(DevArgs),
    /// Run one function until SIGTERM or Ctrl-C, as its container does
    Run {
        /// The function's name in the pipeline file
        function: String,
    },
    /// Create a folder with a pipeline that runs at once, as a start for your own
    New(NewArgs),
    /// Create missing topics and tables
    Up {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
        /// Add partitions to topics that have fewer than the file declares; keys may move to other partitions
        #[arg(long)]
        raise_partitions: bool,
    },
    /// Check the pipeline file and its SQL without any service, and show each function's plan
    Check {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
        /// Also read the stores, and say what a start of each function would do with its table; nothing is changed
        #[arg(long)]
        deployed: bool,
    },
    /// Let a function's table go on under the pipeline file as it is now
    ///
    /// A store keeps with each table which function fills it, and by which plan: the statement, the topics and the
    /// references. A function that finds another function, another plan, a missing table or missing fences stops and
    /// says what has changed. This command accepts the change: the table stays as it is, and records from the fences
    /// on are processed by the new plan. Processes of the old plan stop at their next write (for a table in the lake,
    /// end them first).
    Adopt {
        /// The function's name in the pipeline file
        function: String,
        /// Don't ask for confirmation (for scripts)
        #[arg(long, short)]
        yes: bool,
    },
    /// Fill a function's table anew from the log by the pipeline file as it is now, and put it in the old one's place
    ///
    /// The new table is filled beside the old one, which is read and kept current meanwhile, and takes its place in one
    /// step, with grants, indexes, comments and dependent views. Readers see the old table or the new one, and processes
    /// of the old plan stop at their next write: start them again with the new pipeline file. A rebuild that was ended
    /// in the middle goes on where it was when it is started again; `reset`, or a rebuild of another statement, removes
    /// what it has left. Tables in the lake can't be rebuilt: the command says what to do by hand.
    Rebuild(RebuildArgs),
    /// Run the fixtures of the pipeline file, without any service
    Test {
        /// The pipeline file or its folder
        #[arg(value_name = "PIPELINE")]
        path: Option<PathBuf>,
    },
    /// List topics: partitions, records, and how far each function has come; or show a topic's records
    Topics {
        /// What to do with one of them
        #[command(subcommand)]
        command: Option<TopicsCommand>,
        /// List all topics of the log, not only the pipeline's
        #[arg(long)]
        all: bool,
    },
    /// Send the records of a CSV or JSON Lines file to a topic of the pipeline
    ///
    /// The whole file is checked against the topic's schema first. If any line is bad, nothing is sent. (Input that can
    /// be read only once, such as a named pipe, is checked line by line, and ends at its first bad line.) If sending
    /// ends early, the command prints how many records were sent, and the command that sends the rest.
    Produce(ProduceArgs),
    /// Run one ingest function: make, poll or take its records, and print the position of each acknowledged one
    Generate(GenerateArgs),
    /// Show what the statement in the file gives over the log, and what would change in the deployed table
    ///
    /// Runs the statement as one query over the real log and writes nothing: rights to read are enough. The log is read
    /// between the fences of the deployed table, so that both are made of the same records. Rows are found by their groups;
    /// columns that only one of them has are named and not compared. `+` marks a new row, `-` one that would be gone, `~`
    /// one with other values.
    Preview(PreviewArgs),
    /// Run the statement as one query over the whole log, and compare its rows with the table
    ///
    /// The audit compares what readers see, up to the fences (later records are not in the table yet). Where a table is
    /// finished from stored states, it also checks that these give the rows that readers see; what a state holds beside
    /// that is not checked. NULL and empty text differ; 0.0 and -0.0 don't. Floats that are computed from several records
    /// depend on their order in the last digits: they are equal if they differ by at most 1e-9 of the larger one, or by
    /// what rounding can do to a sum, a mean or a variance of these records. If another expression differs by more, four
    /// times the change that the reversed order makes is allowed (for at most 10,000 rows; further ones are
    /// differences). A dead letter whose record the function accepts is a difference. References are joined as they are
    /// now: if they have changed since the records were joined with them, rows can differ, and the audit reports that.
    /// What doesn't fit into some 200 MB of memory goes to temporary files.
    ///
    /// For large tables, --sample compares the rows of some keys, and --since those that are made only of newer records.
    /// What is compared is compared as exactly as without them, and the report says how much was not.
    Audit(AuditArgs),
    /// Query the pipeline's tables with a SELECT: embedded tables, and tables in the lake
    ///
    /// A table has the name that follows `postgres.` or `lake.` in the pipeline file. It is read whole into memory, as
    /// readers see it, and queried by the engine that runs the functions: decimals and times work as they do there.
    Query {
        /// The SELECT
        sql: String,
        /// Print at most this many rows
        #[arg(long, default_value_t = 1_000, value_name = "N")]
        limit: usize,
    },
    /// Remove the embedded data of a pipeline, or of one function, so that it starts from the beginning
    ///
    /// For a function: its table, fences, dead letters and group offset. It reads the log again when it runs the next
    /// time. For a whole pipeline, also its topics with their records, if the log is embedded. Nothing in Kafka or
    /// PostgreSQL is touched: the command prints what to do there. It refuses while another process has the data folder
    /// open, and if another pipeline has written there: it can't tell which tables belong to which pipeline.
    Reset(ResetArgs),
    /// Show records that could not be processed
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

/// Options of `dev`.
#[derive(Args, Debug, Default)]
pub struct DevArgs {
    /// The pipeline file or its folder
    #[arg(value_name = "PIPELINE")]
    pub path: Option<PathBuf>,
    /// Generated records per second, instead of the pipeline file's rate
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// Drain and end after this many seconds, like Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub for_s: Option<f64>,
    /// Start no generators: only process the records in the log and new ones from elsewhere; the default if a Kafka is
    /// configured
    #[arg(long, conflicts_with = "generate")]
    pub no_generate: bool,
    /// Start the generators even if a Kafka is configured: made-up records go into its topics
    #[arg(long)]
    pub generate: bool,
    /// If a Kafka is configured, write the functions' real tables in PostgreSQL, with the functions' own fences and
    /// names
    #[arg(long)]
    pub into_postgres: bool,
    /// The address that the function with `poll` asks, instead of the file's, or of the stand-in that the file names for
    /// trials
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// Print one line a second instead of the live view
    #[arg(long)]
    pub plain: bool,
}

/// Options of `new`.
#[derive(Args, Debug)]
pub struct NewArgs {
    /// The folder to create; its last part is the pipeline's name
    pub folder: PathBuf,
    /// Guess the topic's schema from these records: *.csv, *.jsonl or *.ndjson
    #[arg(long, value_name = "FILE")]
    pub from: Option<PathBuf>,
}

/// Options of `rebuild`.
#[derive(Args, Debug)]
pub struct RebuildArgs {
    /// The function's name in the pipeline file
    pub function: String,
    /// Say what would be read and how long it would take, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Begin with the oldest records that the log still has, if it no longer reaches back to where the table began
    #[arg(long)]
    pub partial: bool,
    /// Drop what can't be kept with the old table, such as materialized views on it; without this, the rebuild names it and
    /// stops
    #[arg(long)]
    pub drop_dependents: bool,
    /// Read at most this many records a second [default: as fast as one writer can]
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// Don't ask for confirmation (for scripts)
    #[arg(long, short)]
    pub yes: bool,
}

/// Options of `reset`.
#[derive(Args, Debug)]
pub struct ResetArgs {
    /// The pipeline file or its folder; with -p, the function
    #[arg(value_name = "PIPELINE")]
    pub path: Option<PathBuf>,
    /// Reset only this function
    pub function: Option<String>,
    /// Don't ask for confirmation (for scripts)
    #[arg(long, short)]
    pub yes: bool,
}

/// The arguments of `millstream audit`.
#[derive(Debug, clap::Args)]
pub struct AuditArgs {
    /// The function's name in the pipeline file [default: all functions that read topics, one after the other]
    pub function: Option<String>,
    /// Compare only this share of the keys, such as 5% or 0.05, with all their records; of a table that is only appended to,
    /// this share of the rows. The whole log is read, but memory and temporary files are needed only for these
    #[arg(long, value_name = "SHARE", value_parser = share)]
    pub(crate) sample: Option<f64>,
    /// Compare the same keys as an earlier audit with --sample, which has printed this number
    #[arg(long, value_name = "N", requires = "sample")]
    pub(crate) seed: Option<u64>,
    /// Compare only rows that are made of records since this time, such as 1h, 2d or 2026-11-21T10:00:00Z, and read only
    /// these. The table must show it: by a key that is a window of the event time (tumble, hop, date_trunc), or, if it is
    /// only appended to, by the event time or `_timestamp`
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Print at most this many differences
    #[arg(long, default_value_t = 1_000, value_name = "N")]
    pub(crate) limit: usize,
}

/// The arguments of `millstream preview`.
#[derive(Debug, clap::Args)]
pub struct PreviewArgs {
    /// The function's name in the pipeline file
    pub(crate) function: String,
    /// Only records from the first one on that is not older than this, such as 1h or 2026-11-21T10:00:00Z; nothing is
    /// compared then
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Show at most this many rows, or changes of each kind
    #[arg(long, default_value_t = 20, value_name = "N")]
    pub(crate) limit: usize,
}

/// Options of `produce`.
#[derive(Args, Debug)]
pub struct ProduceArgs {
    /// A topic of the pipeline
    pub topic: String,
    /// The records: *.csv, *.jsonl or *.ndjson. In CSV, an empty cell is null, also in quotes; in a string field that is
    /// `not null` it is the empty string
    pub file: PathBuf,
    /// Records per second [default: as fast as possible]
    #[arg(long, value_name = "N", value_parser = positive, conflicts_with = "pace")]
    pub rate: Option<f64>,
    /// Send at the pace of the records' own timestamps, or FACTOR times as fast
    #[arg(long, value_name = "FACTOR", value_parser = positive, num_args = 0..=1, default_missing_value = "1")]
    pub pace: Option<f64>,
    /// The field whose value is the record's key [default: the key of the function that writes to the topic]
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
    /// Go on as lines are added to the file, until Ctrl-C. JSON Lines only; each line is checked just before it is sent
    #[arg(long, conflicts_with_all = ["pace", "dry_run"])]
    pub follow: bool,
    /// Skip the first N records, which an earlier run has sent
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub skip: u64,
    /// Skip bad lines, and records that the topic refuses, and send the others; skipped ones are reported
    #[arg(long)]
    pub skip_bad: bool,
    /// Check only the key and time of JSON lines, and send them unchanged: to see what happens to bad records
    #[arg(long)]
    pub unchecked: bool,
    /// Check the file and send nothing
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `generate`.
#[derive(Args, Debug)]
pub struct GenerateArgs {
    /// The ingest function's name in the pipeline file
    pub function: String,
    /// Records per second, instead of the pipeline file's rate
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
    /// The address that is polled, instead of the pipeline file's
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// End after this many seconds, like Ctrl-C
    #[arg(long = "for", value_name = "SECONDS", value_parser = seconds)]
    pub for_s: Option<f64>,
    /// Print only the total at the end
    #[arg(short, long)]
    pub quiet: bool,
}

fn positive(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number > 0.0 && number.is_finite() => Ok(number),
        _ => Err("it must be a number above 0".to_owned()),
    }
}

fn share(text: &str) -> Result<f64, String> {
    let number = match text.strip_suffix('%') {
        Some(percent) => positive(percent.trim_end()).map(|percent| percent / 100.0),
        None => positive(text),
    };
    let share = number.ok().filter(|share| *share <= 1.0);
    share.ok_or_else(|| "it must be a share of at most 100%, such as 5% or 0.05".to_owned())
}

/// A hundred years: enough, and within the range of every timer.
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
    fn a_sample_is_a_share() {
        for (text, is) in [("5%", 0.05), ("0.05", 0.05), ("100 %", 1.0), ("1", 1.0), ("0.5%", 0.005)] {
            assert_eq!(share(text), Ok(is), "{text}");
        }
        for wrong in ["5", "0", "101%", "-1%", "%", "NaN", "a few"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_help_lists_the_exit_codes() {
        let help = Cli::command().render_long_help().to_string();
        assert!(help.contains("3    a person must act") && help.contains("4    transient trouble"), "{help}");
    }
}
