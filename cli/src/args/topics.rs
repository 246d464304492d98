use clap::{Args, Subcommand};

/// The commands for topics.
#[derive(Debug, Subcommand)]
pub enum TopicsCommand {
    /// Show records of a topic: position, time, key, headers and value
    ///
    /// Nothing is written, and no consumer group is joined. Records of several partitions are shown in the order of their
    /// timestamps. Bytes that are not UTF-8 text are shown as base64, control characters as escapes such as \u{1b}, and
    /// a backslash as two. With --json, each record is one line, whole.
    Peek(PeekArgs),
}

/// Options of `topics peek`.
#[derive(Args, Debug)]
pub struct PeekArgs {
    /// A topic of the pipeline, or any other one of the log
    pub topic: String,
    /// Only this partition
    #[arg(long, value_name = "N")]
    pub partition: Option<i32>,
    /// Begin at this offset of the partition, or at the oldest record that the log still has
    #[arg(long, value_name = "OFFSET", conflicts_with_all = ["last", "since"], value_parser = clap::value_parser!(i64).range(0..))]
    pub from: Option<i64>,
    /// Show the newest N records, or fewer if no more fit into memory [default: 10, without --from and --since]
    #[arg(long, value_name = "N", conflicts_with = "since", value_parser = number)]
    pub last: Option<usize>,
    /// Begin with the first record that is not older than this, such as 1h, 2d or 2026-11-21T10:00:00Z
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Show at most this many records [default: 100, without --last]
    #[arg(long, value_name = "N", value_parser = number)]
    pub limit: Option<usize>,
}

/// Records that are held in memory.
fn number(text: &str) -> Result<usize, String> {
    let number = text.parse::<usize>().ok().filter(|number| (1..=100_000).contains(number));
    number.ok_or_else(|| "it must be a number from 1 to 100000".to_owned())
}
