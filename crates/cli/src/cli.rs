//! The command line, from arguments to the exit code.

use std::{future::pending, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    commands::{
        annotate, bench, compact, embed, encode, fit, index, map, model, predict, quarantine, run, schema, search,
        serve, show, sql,
    },
    error::{self, Result},
    exit::ExitStatus,
    interrupt::{self, Stopping},
    output::{self, Printer},
};

/// Turn a corpus in object storage into a Lance table of embeddings, and search it.
///
/// The model `builtin:multilingual-e5-small` and the corpus `builtin:udhr` are in the program: they need no network.
#[derive(Debug, Parser)]
#[command(name = "polylance", version, max_term_width = 100, after_help = AFTER_HELP)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  polylance embed --source builtin:udhr --table udhr.lance
  polylance search --table udhr.lance \"everyone has the right to education\"

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done with rows in quarantine.
Messages go to stderr, results to stdout. POLYLANCE_LOG=info (or debug) says more.";

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Embed(Box<embed::Args>),
    Annotate(Box<annotate::Args>),
    Encode(encode::Args),
    Fit(Box<fit::Args>),
    Predict(Box<predict::Args>),
    Search(search::Args),
    Sql(sql::Args),
    Serve(Box<serve::Args>),
    Show(show::Args),
    Index(index::Args),
    Map(map::Args),
    Compact(compact::Args),
    Quarantine(quarantine::Args),
    Model(model::Args),
    Bench(bench::Args),
    Schema(schema::Args),
}

/// What is logged unless asked: Lance warns of every table that it makes.
const QUIET: &str = "warn,lance=error";

/// Parses the arguments, runs the command and says how it ended.
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // A reader that went away has seen enough.
            let _printed = error.print();
            return ExitCode::from(error.exit_code() as u8);
        }
    };
    start_log();
    let mut printer = Printer::new();
    let status = match run(cli.command, &mut printer) {
        Ok(status) => status,
        Err(error) => error::report(&error, &mut printer),
    };
    ExitCode::from(status as u8)
}

fn run(command: Command, printer: &mut Printer) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let resumable = matches!(command, Command::Run(_) | Command::Embed(_) | Command::Annotate(_) | Command::Fit(_));
    // At a prompt, Ctrl-C ends a statement and not the command.
    let is_prompt = matches!(&command, Command::Sql(args) if args.is_prompt());
    let result = runtime.block_on(async {
        let stopping = Stopping::default();
        let requested = (!is_prompt).then(|| interrupt::requested(stopping.clone()));
        let interrupted = async {
            match requested {
                Some(requested) => requested.await,
                None => pending().await,
            }
        };
        let mut command = Box::pin(async {
            match dispatch(command, &stopping, printer).await {
                Err(error) => Err(error::with_damage(error).await),
                done => done,
            }
        });
        tokio::select! {
            result = &mut command => result,
            () = interrupted => match stopping.wait(command).await {
                Some(result) => result,
                None => Err(interrupt::Interrupted { resumable }.into()),
            },
        }
    });
    // Threads that compute a last batch need not be waited for.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, stopping: &Stopping, printer: &mut Printer) -> Result<ExitStatus> {
    match command {
        Command::Run(args) => Box::pin(run::run(args, stopping, printer)).await,
        Command::Embed(args) => Box::pin(embed::run(*args, stopping, printer)).await,
        Command::Annotate(args) => Box::pin(annotate::run(*args, stopping, printer)).await,
        Command::Fit(args) => Box::pin(fit::run(*args, printer)).await,
        Command::Bench(args) => Box::pin(bench::run(args, printer)).await,
        Command::Encode(args) => Box::pin(encode::run(args, printer)).await,
        Command::Predict(args) => Box::pin(predict::run(*args, printer)).await,
        Command::Search(args) => Box::pin(search::run(args, printer)).await,
        Command::Sql(args) => Box::pin(sql::run(args, printer)).await,
        Command::Serve(args) => Box::pin(serve::run(*args, stopping, printer)).await,
        Command::Show(args) => Box::pin(show::run(args, printer)).await,
        Command::Quarantine(args) => Box::pin(quarantine::run(args, stopping, printer)).await,
        Command::Index(args) => Box::pin(index::run(args, printer)).await,
        Command::Map(args) => Box::pin(map::run(args, printer)).await,
        Command::Compact(args) => Box::pin(compact::run(args, printer)).await,
        Command::Model(args) => Box::pin(model::run(args, printer)).await,
        Command::Schema(args) => schema::run(&args, printer),
    }
}

/// Warnings and worse go to stderr, more with `POLYLANCE_LOG` or `RUST_LOG`.
fn start_log() {
    let filter = ["POLYLANCE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = filter.unwrap_or_else(|| QUIET.to_owned());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_color())
        .without_time();
    // Only a second logger could fail.
    let _started = logger.try_init();
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
