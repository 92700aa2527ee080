//! The command line, from arguments to the exit code.

use std::{ffi::OsString, future::pending, process::ExitCode};

use clap::{CommandFactory, Parser, Subcommand};

use crate::{
    commands::{
        annotate, bench, cluster, compact, completions, embed, encode, executor, fit, index, init, man, map, model,
        predict, push, quarantine, run, scheduler, schema, search, serve, show, sql,
    },
    error::{self, Result},
    exit::ExitStatus,
    output::{self, Printer},
    report::report,
    shutdown::{self, Interrupted, ShutdownController},
};

/// Turn a corpus in object storage into a Lance table of embeddings, and search it.
///
/// The program contains the model `builtin:multilingual-e5-small` and the corpus `builtin:udhr`: they need no network.
#[derive(Debug, Parser)]
#[command(name = "polylance", version, max_term_width = 100, after_help = AFTER_HELP)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  polylance embed --source builtin:udhr --table udhr.lance
  polylance search --table udhr.lance \"everyone has the right to education\"

Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 done with rows in the quarantine.
Results go to stdout, messages to stderr. POLYLANCE_LOG=info (or debug) logs more.";

#[derive(Debug, Subcommand)]
enum Command {
    Init(init::Args),
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
    Push(push::Args),
    Quarantine(quarantine::Args),
    Scheduler(scheduler::Args),
    Executor(executor::Args),
    Cluster(cluster::Args),
    Model(model::Args),
    Bench(bench::Args),
    Completions(completions::Args),
    Man(man::Args),
    Schema(schema::Args),
}

/// The default log filter: Lance warns about every table that it creates.
const DEFAULT_LOG_FILTER: &str = "warn,lance=error";

/// Parses the process's arguments, runs the command and returns its exit code.
pub fn main() -> ExitCode {
    ExitCode::from(run_arguments(std::env::args_os()))
}

/// Parses arguments, the first of which is the program's name, runs the command and returns its exit code.
pub fn run_arguments(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> u8 {
    let cli = match Cli::try_parse_from(arguments) {
        Ok(cli) => cli,
        Err(error) => {
            // The reader of stdout may have closed it.
            let _printed = error.print();
            return error.exit_code() as u8;
        }
    };
    start_log();
    let mut printer = Printer::new();
    let status = match run(cli.command, &mut printer) {
        Ok(status) => status,
        Err(error) => report(&error, &mut printer),
    };
    status as u8
}

fn run(command: Command, printer: &mut Printer) -> Result<ExitStatus> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let resumable = matches!(command, Command::Run(_) | Command::Embed(_) | Command::Annotate(_) | Command::Fit(_));
    // At a prompt, Ctrl-C ends a statement and not the command.
    let is_prompt = matches!(&command, Command::Sql(args) if args.is_prompt());
    let result = runtime.block_on(async {
        let controller = ShutdownController::default();
        let requested = (!is_prompt).then(|| shutdown::requested(controller.clone()));
        let interrupted = async {
            match requested {
                Some(requested) => requested.await,
                None => pending().await,
            }
        };
        let mut command = Box::pin(async {
            match dispatch(command, &controller, printer).await {
                Err(error) => Err(error::with_damage(error).await),
                done => done,
            }
        });
        tokio::select! {
            result = &mut command => result,
            () = interrupted => match controller.shut_down(command).await {
                Some(result) => result,
                None => Err(Interrupted { resumable }.into()),
            },
        }
    });
    // Threads that still compute a batch are not waited for.
    runtime.shutdown_background();
    result
}

async fn dispatch(command: Command, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    match command {
        Command::Init(args) => Box::pin(init::run(args, printer)).await,
        Command::Run(args) => Box::pin(run::run(args, controller, printer)).await,
        Command::Embed(args) => Box::pin(embed::run(*args, controller, printer)).await,
        Command::Annotate(args) => Box::pin(annotate::run(*args, controller, printer)).await,
        Command::Fit(args) => Box::pin(fit::run(*args, printer)).await,
        Command::Bench(args) => Box::pin(bench::run(args, printer)).await,
        Command::Encode(args) => Box::pin(encode::run(args, printer)).await,
        Command::Predict(args) => Box::pin(predict::run(*args, printer)).await,
        Command::Search(args) => Box::pin(search::run(args, printer)).await,
        Command::Sql(args) => Box::pin(sql::run(args, printer)).await,
        Command::Serve(args) => Box::pin(serve::run(*args, controller, printer)).await,
        Command::Scheduler(args) => Box::pin(scheduler::run(args, controller, printer)).await,
        Command::Executor(args) => Box::pin(executor::run(args, controller, printer)).await,
        Command::Cluster(args) => Box::pin(cluster::run(args, printer)).await,
        Command::Show(args) => Box::pin(show::run(args, printer)).await,
        Command::Quarantine(args) => Box::pin(quarantine::run(args, controller, printer)).await,
        Command::Index(args) => Box::pin(index::run(args, printer)).await,
        Command::Map(args) => Box::pin(map::run(args, printer)).await,
        Command::Compact(args) => Box::pin(compact::run(args, printer)).await,
        Command::Push(args) => Box::pin(push::run(args, printer)).await,
        Command::Model(args) => Box::pin(model::run(args, printer)).await,
        Command::Completions(args) => completions::run(&args, Cli::command(), printer),
        Command::Man(args) => man::run(&args, Cli::command(), printer),
        Command::Schema(args) => schema::run(&args, printer),
    }
}

/// Logs warnings and errors to stderr, and more with `POLYLANCE_LOG` or `RUST_LOG`.
fn start_log() {
    let filter = ["POLYLANCE_LOG", "RUST_LOG"].iter().find_map(|name| std::env::var(name).ok());
    let filter = filter.unwrap_or_else(|| DEFAULT_LOG_FILTER.to_owned());
    let logger = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(output::stderr_color())
        .without_time();
    // This fails only if a logger is already installed.
    let _installed = logger.try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clap_accepts_the_definitions() {
        Cli::command().debug_assert();
    }
}
