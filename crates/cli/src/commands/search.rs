//! `polylance search`

use std::sync::Arc;

use arrow::array::RecordBatch;
use polylance_backend::BackendHandle;
use polylance_encoder::{Dtype, ModelFiles};
use polylance_schema::{
    Contract,
    columns::{CHAR_END, CHAR_START, N_TOKENS, RUN_ID, TEXT, TRUNCATED},
};
use polylance_search::{SearchRequest, search, table_contract};
use polylance_worker::{DevicePool, PoolOptions};

use crate::{
    batch::{self, short},
    error::{Result, UsageError},
    exit::ExitStatus,
    printer::Printer,
};

/// Characters of a hit's text that are shown.
const SNIPPET: usize = 140;

/// Columns of a hit that people need not see; `--json` has them all.
const HIDDEN: [&str; 6] = [CHAR_START, CHAR_END, N_TOKENS, TRUNCATED, RUN_ID, "_distance"];

/// Find the rows of a table whose meaning is nearest to a query, in any language
///
/// The query is embedded by the table's own contract: with the model, the prefix and the arithmetic its rows have.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// What to look for
    query: String,
    /// The Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Hits at most
    #[arg(short = 'k', value_name = "N", default_value_t = 10)]
    k: usize,
    /// A SQL condition that every hit fulfils
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Where the table's model is now, when it has moved
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Print one JSON array with all columns
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance search --table udhr.lance \"everyone has the right to education\"
  polylance search --table udhr.lance \"教育を受ける権利\" -k 3 --where \"lang <> 'ja'\"
  polylance search --table udhr.lance nationality --json | jq '.[].doc_id'";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let contract = table_contract(&args.table).await?;
    let model = args.model.unwrap_or_else(|| contract.model.clone());
    let pool = tokio::task::spawn_blocking(move || open(&model, &contract)).await??;
    let request = SearchRequest { table: args.table, query: args.query, k: args.k, filter: args.filter };
    let hits = search(&request, &BackendHandle(Arc::new(pool))).await?;
    if args.json {
        printer.bytes(&batch::json_array(&hits)?)?;
    } else if hits.num_rows() == 0 {
        printer.message("no row fulfils the condition");
    } else {
        let (header, rows) = table(&hits)?;
        printer.table(&header, rows)?;
    }
    Ok(ExitStatus::Done)
}

/// The table's model with the table's settings, checked to be the same weights.
fn open(model: &str, contract: &Contract) -> Result<DevicePool> {
    let files = ModelFiles::find(model)?;
    let same = files.weights_hash()? == contract.weights_hash && files.tokenizer_hash()? == contract.tokenizer_hash;
    if !same {
        let error =
            UsageError::new(format!("{model} is not the model that the table was made with: its files have changed"));
        return Err(error
            .with_hint(format!("the table has {}; name its files with --model", contract.summary()))
            .into());
    }
    let dtype: Dtype = contract.dtype.parse()?;
    let dims = (contract.dim != files.config().hidden_size).then_some(contract.dim);
    let options = PoolOptions {
        dtype: Some(dtype),
        pooling: Some(contract.pooling),
        normalize: Some(contract.normalize),
        dims,
        ..PoolOptions::default()
    };
    Ok(DevicePool::open(&files, &options)?)
}

/// Rank, score, the columns that matter, and the beginning of the text at the end of each line.
fn table(hits: &RecordBatch) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let names = batch::header(hits);
    let position = |name: &str| names.iter().position(|other| other == name);
    let (score, name) = match position("score") {
        Some(score) => (Some(score), "score"),
        None => (position("_distance"), "distance"),
    };
    let text = position(TEXT);
    let hidden = |at: &usize| Some(*at) == score || Some(*at) == text || HIDDEN.contains(&names[*at].as_str());
    let shown: Vec<usize> = (0..names.len()).filter(|at| !hidden(at)).collect();

    let mut header = vec!["rank".to_owned(), name.to_owned()];
    header.extend(shown.iter().map(|at| names[*at].clone()));
    header.extend(text.map(|_| TEXT.to_owned()));
    let rows = batch::rows(hits)?.into_iter().enumerate().map(|(at, cells)| {
        let number = score.map_or("", |score| &cells[score]);
        let number = number.parse::<f64>().map_or_else(|_| number.to_owned(), |number| format!("{number:.3}"));
        let mut row = vec![(at + 1).to_string(), number];
        row.extend(shown.iter().map(|at| cells[*at].clone()));
        row.extend(text.map(|text| short(&cells[text], SNIPPET)));
        row
    });
    Ok((header, rows.collect()))
}
