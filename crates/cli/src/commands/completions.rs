//! `polylance completions`

use clap::Command;
use clap_complete::{Shell, generate};

use crate::{error::Result, exit::ExitStatus, output::Printer};

/// Print the completions of a shell: commands, flags and their values
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Shell
    #[arg(value_name = "SHELL", value_enum)]
    shell: Shell,
}

const AFTER_HELP: &str = "\
Examples:
  polylance completions bash > ~/.local/share/bash-completion/completions/polylance
  polylance completions zsh > ~/.zfunc/_polylance
  polylance completions fish > ~/.config/fish/completions/polylance.fish
For zsh, ~/.zfunc must be in fpath before compinit runs.";

pub(crate) fn run(args: &Args, mut program: Command, printer: &mut Printer) -> Result<ExitStatus> {
    let name = program.get_name().to_owned();
    let mut script = Vec::new();
    generate(args.shell, &mut program, name, &mut script);
    printer.bytes(&script)?;
    Ok(ExitStatus::Done)
}
