//! `polylance map`

use polylance_sink::draw_map;
use serde_json::json;

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, thousands},
};

/// Draw the map of a table: its vectors in two dimensions, for the page of `polylance serve`
///
/// The two directions in which the vectors differ most (principal components) become the columns `map_x` and `map_y`; no
/// data file is rewritten. Rows that are written later have no place until the map is drawn again.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// The Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Rows that the directions are computed from, at most
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    sample: usize,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance map --table docs.lance
  polylance sql --table docs.lance -o map.csv \"SELECT doc_id, lang, map_x, map_y FROM docs\"";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let map = Box::pin(draw_map(&args.table, args.sample)).await?;
    if args.json {
        let mut report = json!(map);
        report["table"] = json!(args.table);
        printer.json(&report)?;
    } else {
        printer.fields(&[
            ("table", args.table),
            ("rows", format!("{} placed, axes from {}", thousands(map.rows), thousands(map.sampled))),
            ("explained", format!("{:.1} % of the variance", map.explained * 100.0)),
        ])?;
    }
    Ok(ExitStatus::Done)
}
