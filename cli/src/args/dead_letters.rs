use clap::{Args, Subcommand};

use super::positive;

/// The commands for dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List the newest ones, with position and reason
    List {
        /// List only those of one function
        #[arg(long, short)]
        function: Option<String>,
        /// List at most this many
        #[arg(long, default_value_t = 100, value_name = "N")]
        limit: usize,
    },
    /// Show one completely, including its bytes
    Show {
        /// `topic/generation/partition/offset`, as `list` prints it
        position: String,
        /// The function that could not process the record, if there are several
        #[arg(long, short)]
        function: Option<String>,
    },
    /// Bring in the open ones of a function, exactly once, by the function as it is in the pipeline file now
    ///
    /// It ends with the letters that were open when it began. A record that is refused again stays one letter. Events that
    /// were late are brought in too, unless `--where` leaves them out. After a kill, run it again: it goes on where it was. What
    /// another one is at, it takes over.
    Redrive(RedriveArgs),
}

/// Options of `dead-letters redrive`.
#[derive(Args, Debug)]
pub struct RedriveArgs {
    /// The function
    pub function: String,
    /// Only the letters that meet this condition: SQL over topic, generation, partition, offset, timestamp, key, value and
    /// reason of one letter. Keys and values that are no UTF-8 text are NULL
    #[arg(long = "where", value_name = "SQL")]
    pub only: Option<String>,
    /// Only say which letters would be redriven
    #[arg(long)]
    pub dry_run: bool,
    /// At most this many records per second
    #[arg(long, value_name = "N", value_parser = positive)]
    pub rate: Option<f64>,
}
