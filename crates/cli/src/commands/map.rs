//! `polylance map`

use polylance_sink::compute_map;
use serde_json::json;

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, thousands},
};

/// Project a table's vectors to two dimensions, for the map on the web page of `polylance serve`
///
/// The two principal components of the vectors become the columns `map_x` and `map_y`; no data file is rewritten. Rows
/// that are written later are not on the map until the command runs again.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Maximum number of rows that the components are computed from
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
    let map = Box::pin(compute_map(&args.table, args.sample)).await?;
    if args.json {
        let mut report = json!(map);
        report["table"] = json!(args.table);
        printer.json(&report)?;
    } else {
        printer.fields(&[
            ("table", args.table),
            ("rows", format!("{} projected, components from {}", thousands(map.rows), thousands(map.sampled))),
            ("explained", format!("{:.1} % of the variance", map.explained * 100.0)),
        ])?;
    }
    Ok(ExitStatus::Done)
}
