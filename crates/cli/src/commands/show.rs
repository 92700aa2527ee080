//! `polylance show`

use polylance_search::{TableDescription, describe};

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{NO_INDEX, Printer, counted, thousands},
};

/// Show a table's rows, versions, columns, indices and contract
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Lance table
    #[arg(value_name = "URI")]
    uri: String,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance show udhr.lance
  polylance show s3://tables/docs.lance --json | jq .contract";

/// Number of versions that are listed.
const LISTED_VERSIONS: usize = 5;

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let table = Box::pin(describe(&args.uri)).await?;
    if args.json {
        printer.json(&table)?;
    } else {
        show(&table, printer)?;
    }
    Ok(ExitStatus::Done)
}

fn show(table: &TableDescription, printer: &mut Printer) -> Result<()> {
    printer.fields(&[
        ("table", table.uri.clone()),
        ("rows", thousands(table.rows)),
        ("quarantine", counted(table.quarantine_rows, "row")),
        ("version", format!("{} ({} can be read)", table.version, table.versions)),
    ])?;
    printer.line("\ncontract")?;
    match &table.contract {
        None => printer.line("  none (not a polylance table)")?,
        Some(contract) => {
            let hash = |hash: &str| hash.chars().take(16).collect::<String>();
            let pooling = format!("{:?}", contract.pooling).to_lowercase();
            printer.fields(&[
                ("  model", contract.model.clone()),
                ("  weights", hash(&contract.weights_hash)),
                ("  tokenizer", hash(&contract.tokenizer_hash)),
                ("  vectors", format!("{} dimensions, {pooling} pooling, {}", contract.dim, contract.dtype)),
                ("  normalized", if contract.normalize { "yes" } else { "no" }.to_owned()),
                ("  prompts", format!("{:?} and {:?}", contract.prompts.passage, contract.prompts.query)),
                ("  documents", contract.chunking.to_string()),
            ])?;
        }
    }
    printer.line("\ncolumns")?;
    let width = table.schema.iter().map(|column| column.name.chars().count()).max().unwrap_or(0);
    for column in &table.schema {
        let null = if column.nullable { "" } else { ", not null" };
        printer.line(format!("  {:width$}  {}{null}", column.name, column.data_type))?;
    }
    printer.line("\nindices")?;
    if table.indices.is_empty() {
        printer.line(format_args!("  {NO_INDEX}"))?;
    }
    for index in &table.indices {
        let metric = index.metric.as_ref().map(|metric| format!(", {metric}")).unwrap_or_default();
        let (covered, left) = (counted(index.indexed_rows, "row"), thousands(index.unindexed_rows));
        let kind = &index.kind;
        printer.line(format!("  {}  {kind} on {}{metric}, {covered} covered, {left} not", index.name, index.column))?;
    }
    printer.line("\nlatest versions")?;
    for version in table.recent_versions.iter().take(LISTED_VERSIONS) {
        let rows = version.rows.map(|rows| format!(", {}", counted(rows, "row"))).unwrap_or_default();
        let operation = version.operation.as_deref().unwrap_or("");
        let run = version.run_id.as_ref().map(|run| format!(", run {run}")).unwrap_or_default();
        printer.line(format!("  {:>4}  {}  {operation}{rows}{run}", version.version, version.time))?;
    }
    Ok(())
}
