//! The arguments that control output.

use clap::ValueEnum;

/// The output of `run`, `embed` and `quarantine replay`.
#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag of the command line")]
pub(crate) struct OutputArgs {
    /// Print the summary as one JSON object, followed by one for each annotated column
    #[arg(long)]
    pub(crate) json: bool,
    /// How to show progress on stderr
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "MODE")]
    pub(crate) progress: ProgressMode,
    /// Read the source even if none of its files changed since the last complete run
    #[arg(long)]
    pub(crate) reread: bool,
    /// Print the plan and stop
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
    /// After the run, print the plan with the rows and the time of each operator
    #[arg(long, conflicts_with_all = ["json", "explain"])]
    pub(crate) analyze: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A line every ten seconds
    Plain,
    /// Nothing
    None,
}
