//! `polylance sql`

use futures::TryStreamExt;
use polylance_search::SqlSession;

use crate::{batch, error::Result, exit::ExitStatus, printer::Printer};

/// Rows of a table for people; more are for `--json`.
const ROWS: usize = 1000;

/// Query Lance tables with SQL, reading only
///
/// Without a name a table is called like its file: udhr.lance is `udhr`. `SHOW TABLES` works, and so does `DESCRIBE udhr`.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The query
    #[arg(value_name = "SELECT …")]
    sql: String,
    /// A table and its name; may be given several times
    #[arg(long = "table", value_name = "[NAME=]URI", value_parser = named_table)]
    tables: Vec<(String, String)>,
    /// Print one JSON object a row
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance sql --table udhr.lance \"SELECT lang, count(*) FROM udhr GROUP BY lang ORDER BY 2 DESC\"
  polylance sql --table t=s3://b/docs.lance --json \"SELECT doc_id FROM t WHERE truncated\"
  polylance sql --table q=udhr.quarantine.lance \"SELECT stage, error, count(*) FROM q GROUP BY 1, 2\"";

/// `name=URI`, or a URI alone with an empty name. A `=` inside a URI is not a name's.
fn named_table(text: &str) -> Result<(String, String), String> {
    let (name, uri) = match text.split_once('=') {
        Some((name, uri)) if !name.contains(['/', '\\', ':', '.']) => (name, uri),
        _ => ("", text),
    };
    if uri.is_empty() || (name.is_empty() && text.starts_with('=')) {
        return Err("expected NAME=URI or a URI".to_owned());
    }
    Ok((name.to_owned(), uri.to_owned()))
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let session = SqlSession::open(&args.tables).await?;
    let mut batches = session.query(&args.sql).await?;
    let header = batches.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await? {
        if args.json {
            printer.bytes(&batch::json_lines(&batch)?)?;
            continue;
        }
        let room = ROWS - rows.len();
        rows.extend(batch::rows(&batch.slice(0, batch.num_rows().min(room)))?);
        if batch.num_rows() > room {
            printer.table(&header, rows)?;
            printer.warning(format_args!("only the first {ROWS} rows are shown; --json prints all of them"));
            return Ok(ExitStatus::Done);
        }
    }
    if !args.json {
        printer.table(&header, rows)?;
    }
    Ok(ExitStatus::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_stands_before_the_first_equals_sign() {
        let table = |name: &str, uri: &str| Ok((name.to_owned(), uri.to_owned()));
        assert_eq!(named_table("docs.lance"), table("", "docs.lance"));
        assert_eq!(named_table("t=s3://b/docs.lance"), table("t", "s3://b/docs.lance"));
        assert_eq!(named_table("/data/day=1/docs.lance"), table("", "/data/day=1/docs.lance"));
        assert!(named_table("=docs.lance").is_err());
        assert!(named_table("t=").is_err());
    }
}
