//! `polylance search`

use anyhow::Context;
use polylance_engine::models::TableModels;
use polylance_schema::{
    columns::{CHAR_END, CHAR_START, N_TOKENS, RUN_ID, TEXT, TRUNCATED},
    search::{MAP_X, MAP_Y},
};
use polylance_search::{
    Effort, Fusion, FusionKind, Hits, ModelSource, Models, Query, RankedBy, SCORE, SearchMode, SearchRequest,
    SearchTable,
};

use crate::{
    args::{DeviceArgs, TableModelArgs},
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{
        Printer,
        rows::{self, truncated},
    },
};

/// Maximum characters of a hit's text that are printed.
const MAX_SNIPPET_CHARS: usize = 140;

/// Columns that are not printed; `--json` has all.
const HIDDEN_COLUMNS: [&str; 7] = [CHAR_START, CHAR_END, N_TOKENS, TRUNCATED, RUN_ID, MAP_X, MAP_Y];

/// Search a table: vector, full-text or hybrid search, in any language
///
/// The query is embedded under the table's own contract: with the model, the prefix and the dtype of its rows.
/// Full-text search needs an index (`polylance index words`). With one, searches are hybrid by default: they fuse the
/// vector and the full-text ranking.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Query text
    #[arg(required_unless_present = "like")]
    query: Option<String>,
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Kind of search: vector, text (full-text) or hybrid [default: hybrid with a full-text index, else vector]
    #[arg(long, value_name = "MODE")]
    mode: Option<SearchMode>,
    /// Find rows similar to this document, by its chunk N or the first one
    #[arg(long, value_name = "DOC_ID[#N]", conflicts_with_all = ["query", "rerank"])]
    like: Option<String>,
    /// Maximum number of hits
    #[arg(short = 'k', value_name = "N", default_value_t = 10)]
    k: usize,
    /// SQL filter, applied before ranking
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// Return one hit per document: its best chunk
    #[arg(long)]
    by_document: bool,
    /// How a hybrid search fuses the two rankings: score (cosine plus weighted full-text score), rrf (by ranks) or
    /// weighted (weighted sum of both scores) [default: score]
    #[arg(long, value_name = "NAME")]
    fusion: Option<FusionKind>,
    /// Weight of the full-text score in score fusion [default: 0.15]
    #[arg(long, value_name = "WEIGHT", conflicts_with = "vector_weight")]
    text_weight: Option<f32>,
    /// Weight of the vector score in weighted fusion, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    vector_weight: Option<f32>,
    /// Rerank the best candidates with this cross-encoder: a folder (local, s3://, gs:// or az://) or a hub
    /// name
    #[arg(long, value_name = "MODEL")]
    rerank: Option<String>,
    /// Minimum number of index partitions to search [default: as tuned, else 20]
    #[arg(long, value_name = "N", help_heading = "Vector index")]
    nprobes: Option<usize>,
    /// Candidates per hit that are re-scored with exact distances [default: as tuned, else 10]
    #[arg(long, value_name = "N", help_heading = "Vector index")]
    refine: Option<u32>,
    /// Number of candidates kept during a graph search (HNSW)
    #[arg(long, value_name = "N", help_heading = "Vector index")]
    ef: Option<usize>,
    #[command(flatten)]
    model: TableModelArgs,
    #[command(flatten)]
    devices: DeviceArgs,
    /// Print one JSON array with all columns
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance search --table udhr.lance \"everyone has the right to education\"
  polylance search --table udhr.lance \"教育を受ける権利\" -k 3 --where \"lang <> 'ja'\"
  polylance search --table udhr.lance nationality --mode text --by-document
  polylance search --table udhr.lance --like eng-26 --json | jq '.[].doc_id'";

/// Parses `doc_id` or `doc_id#chunk`.
fn like(text: &str) -> (String, u32) {
    let parts = text.rsplit_once('#');
    match parts.and_then(|(doc_id, chunk)| Some((doc_id, chunk.parse().ok()?))) {
        Some((doc_id, chunk)) => (doc_id.to_owned(), chunk),
        None => (text.to_owned(), 0),
    }
}

/// A weight belongs to one kind of fusion, and selects that kind if none is named.
fn fusion(kind: Option<FusionKind>, text_weight: Option<f32>, vector_weight: Option<f32>) -> Result<Fusion> {
    let (weighted_kind, weight) = match (text_weight, vector_weight) {
        (None, None) => return Ok(kind.unwrap_or_default().with_weight(None)?),
        (Some(weight), _) => (FusionKind::Score, weight),
        (None, Some(weight)) => (FusionKind::Weighted, weight),
    };
    if kind.is_some_and(|kind| kind != weighted_kind) {
        let message = "--text-weight belongs to score fusion, --vector-weight to weighted fusion";
        return Err(UsageError::new(message).into());
    }
    Ok(weighted_kind.with_weight(Some(weight))?)
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let table = SearchTable::open(&args.table).await?;
    let query = match (args.like, args.query) {
        (Some(row), _) => {
            let (doc_id, chunk) = like(&row);
            Query::Like { doc_id, chunk }
        }
        (None, query) => Query::Text(query.context("a query is needed")?),
    };
    let request = SearchRequest {
        query,
        mode: args.mode,
        k: args.k,
        filter: args.filter,
        by_document: args.by_document,
        fusion: fusion(args.fusion, args.text_weight, args.vector_weight)?,
        effort: Effort { nprobes: args.nprobes, refine: args.refine, ef: args.ef },
        rerank: args.rerank.is_some(),
        columns: None,
    };
    // A full-text search loads no model.
    let full_text_only = table.mode_of(&request) == SearchMode::Text && !request.rerank;
    let models = match table.contract() {
        Some(contract) if !full_text_only => {
            TableModels::new(args.model.into(), args.rerank, args.devices.devices).models(contract).await?
        }
        _ => Models::default(),
    };
    if table.has_unfolded_text_index() && table.mode_of(&request) != SearchMode::Vector {
        let rebuild = format!("`polylance index words --table {}` rebuilds it", args.table);
        printer.hint(format!("the full-text index is of an older version and does not find every word: {rebuild}"));
    }
    let hits = Box::pin(table.search(&request, &models)).await?;
    if args.json {
        printer.bytes(&rows::json_array(&hits.into_batch()?)?)?;
    } else if hits.scores.is_empty() {
        let message = if full_text_only { "no row contains these words" } else { "no row matches the filter" };
        printer.message(message);
    } else {
        let (header, rows) = table_of(&hits)?;
        printer.table(&header, rows)?;
    }
    Ok(ExitStatus::Done)
}

/// Header and cells: rank, score, its parts in a hybrid search, the columns of the table, and the beginning of the
/// text.
fn table_of(hits: &Hits) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let names = rows::header(&hits.rows);
    let text = names.iter().position(|name| name == TEXT);
    let hidden = |at: &usize| Some(*at) == text || HIDDEN_COLUMNS.contains(&names[*at].as_str());
    let kept: Vec<usize> = (0..names.len()).filter(|at| !hidden(at)).collect();
    // With a single ranking, its rank and score are those of the hit.
    let hybrid = hits.scores.iter().any(|scores| scores.parts.is_some());

    let mut header = vec!["rank".to_owned(), SCORE.to_owned()];
    header.extend(["vector", "text"].into_iter().filter(|_| hybrid).map(str::to_owned));
    header.extend(kept.iter().map(|at| names[*at].clone()));
    header.extend(text.map(|_| TEXT.to_owned()));
    let rows = rows::cells(&hits.rows)?.into_iter().zip(&hits.scores).enumerate().map(|(at, (cells, scores))| {
        let mut row = vec![(at + 1).to_string(), format!("{:.3}", scores.score)];
        let part = |part: f32, by: Option<RankedBy>| match by.and_then(|by| by.rank) {
            Some(rank) => format!("{part:.3} #{rank}"),
            None => format!("{part:.3}"),
        };
        row.extend(
            scores
                .parts
                .into_iter()
                .flat_map(|parts| [part(parts.vector, scores.vector), part(parts.text, scores.text)]),
        );
        row.extend(kept.iter().map(|at| cells[*at].clone()));
        row.extend(text.map(|text| truncated(&cells[text], MAX_SNIPPET_CHARS)));
        row
    });
    Ok((header, rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_number_follows_the_document_id() {
        assert_eq!(like("eng-26"), ("eng-26".to_owned(), 0));
        assert_eq!(like("eng-26#3"), ("eng-26".to_owned(), 3));
        assert_eq!(like("a#b"), ("a#b".to_owned(), 0));
    }
}
