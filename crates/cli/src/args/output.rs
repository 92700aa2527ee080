//! What commands show, and how.

use clap::ValueEnum;

/// What `run` and `embed` have in common.
#[derive(Debug, clap::Args)]
pub(crate) struct OutputArgs {
    /// End with one JSON object on stdout, and one more for each column of a head
    #[arg(long)]
    pub(crate) json: bool,
    /// How progress is shown on stderr
    #[arg(long, value_enum, default_value_t = ProgressMode::Auto, value_name = "MODE")]
    pub(crate) progress: ProgressMode,
    /// Read the source even if no file of it changed since a run finished it
    #[arg(long)]
    pub(crate) reread: bool,
    /// Print the plan and stop
    #[arg(long, conflicts_with = "json")]
    pub(crate) explain: bool,
}

/// How progress is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal, plain lines elsewhere
    Auto,
    /// A line now and then
    Plain,
    /// Not at all
    None,
}
