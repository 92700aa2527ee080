//! `polylance push`

use polylance_engine::{PushRequest, Visibility, push};

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, counted, thousands},
};

/// Send a table to a dataset on the Hugging Face hub, with a dataset card
///
/// The newest version and its indices are sent with one commit, so that a reader never sees half a table. Files that the
/// dataset has already are not sent again, and files of older versions are removed. A new dataset gets a card that names
/// the model and shows how to search the table; later pushes update their part of it. Set `HF_TOKEN` to a token that
/// may write.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Lance table
    #[arg(value_name = "TABLE")]
    table: String,
    /// Dataset, created if it does not exist: `hf://datasets/OWNER/NAME`, or a path in it for the table
    #[arg(value_name = "TARGET")]
    target: String,
    /// Create the dataset as a private one; a dataset that is public is refused
    #[arg(long)]
    private: bool,
    /// Licence for a new card, as the hub names it, such as cc-by-4.0
    #[arg(long, value_name = "ID")]
    license: Option<String>,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance push docs.lance hf://datasets/me/news
  polylance push docs.lance hf://datasets/me/news/data/train.lance --private --license cc-by-4.0
  polylance search --table hf://datasets/me/news/docs.lance \"a question\"";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let visibility = if args.private { Visibility::Private } else { Visibility::Default };
    let request = PushRequest { table: args.table, target: args.target, visibility, license: args.license };
    let done = Box::pin(push(&request)).await?;
    if args.json {
        printer.json(&done)?;
        return Ok(ExitStatus::Done);
    }
    let sent = counted(done.files_sent as u64, "file");
    printer.fields(&[
        ("table", format!("{} (version {})", done.table, done.version)),
        ("dataset", if done.created { "created" } else { "updated" }.to_owned()),
        ("sent", format!("{sent}, {} bytes", thousands(done.bytes_sent))),
        ("unchanged", counted(done.files_unchanged as u64, "file")),
        ("removed", counted(done.files_deleted as u64, "file")),
        ("commit", done.commit),
    ])?;
    Ok(ExitStatus::Done)
}
