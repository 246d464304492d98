mod adopt;
mod audit;
mod check;
mod completions;
mod dead_letters;
mod dev;
mod generate;
mod new;
mod polled;
mod preview;
mod produce;
mod progress;
mod query;
mod rebuild;
mod reset;
mod run;
mod schema;
mod test;
mod topics;
mod up;

use crate::{Command, Failure, context::Context};

/// Runs the command of the command line.
pub(crate) async fn run(context: &Context, command: Command) -> Result<(), Failure> {
    match command {
        Command::Dev(args) => dev::dev(context, &args).await,
        Command::Run { function } => run::run(context, &function).await,
        Command::New(args) => new::new(context, &args).await,
        Command::Query { sql, limit } => query::query(context, &sql, limit).await,
        Command::Reset(args) => reset::reset(context, &args).await,
        Command::Up { path, raise_partitions } => up::up(context, path.as_deref(), raise_partitions).await,
        Command::Adopt { function, yes } => adopt::adopt(context, &function, yes).await,
        Command::Rebuild(args) => rebuild::rebuild(context, &args).await,
        Command::Check { path, deployed } => check::check(context, path.as_deref(), deployed).await,
        Command::Test { path } => test::test(context, path.as_deref()).await,
        Command::Topics { command, all } => topics::topics(context, command, all).await,
        Command::Produce(args) => produce::produce(context, &args).await,
        Command::Generate(args) => generate::generate(context, &args).await,
        Command::Preview(args) => preview::preview(context, &args).await,
        Command::Audit(args) => audit::audit(context, &args).await,
        Command::DeadLetters { command } => dead_letters::dead_letters(context, command).await,
        Command::Schema => schema::schema(context),
        Command::Completions { shell } => completions::completions(shell),
    }
}
