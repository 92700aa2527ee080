//! `polylance man`

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::Command;
use clap_mangen::Man;

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, atomic_file::write_atomically},
};

/// Print the man page, or write those of all commands to a folder
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Folder for polylance.1, polylance-run.1 and so on; created if it does not exist
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

const AFTER_HELP: &str = "\
Examples:
  polylance man | man -l -
  polylance man ~/.local/share/man/man1";

pub(crate) fn run(args: &Args, program: Command, printer: &mut Printer) -> Result<ExitStatus> {
    // The commands of `help` would have pages of their own.
    let mut program = program.disable_help_subcommand(true);
    program.build();
    let source = format!("{} {}", program.get_name(), program.get_version().unwrap_or_default());
    let Some(folder) = &args.folder else {
        printer.bytes(&render(&page(&program, &source))?)?;
        return Ok(ExitStatus::Done);
    };
    fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    for command in visible_commands(&program) {
        let page = page(command, &source);
        write_atomically(&folder.join(page.get_filename()), &render(&page)?)?;
    }
    Ok(ExitStatus::Done)
}

fn page(command: &Command, source: &str) -> Man {
    Man::new(command.clone()).source(source).manual("polylance")
}

fn render(page: &Man) -> Result<Vec<u8>> {
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}

/// The command and all below it.
fn visible_commands(command: &Command) -> Vec<&Command> {
    let below = command.get_subcommands().filter(|command| !command.is_hide_set()).flat_map(visible_commands);
    std::iter::once(command).chain(below).collect()
}
