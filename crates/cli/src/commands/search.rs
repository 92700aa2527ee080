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
        batch::{self, short},
    },
};

/// Characters of a hit's text that are shown.
const SNIPPET: usize = 140;

/// Columns of a hit that people need not see; `--json` has them all.
const HIDDEN: [&str; 7] = [CHAR_START, CHAR_END, N_TOKENS, TRUNCATED, RUN_ID, MAP_X, MAP_Y];

/// Find the rows of a table that fit a query, by meaning, by words or by both, in any language
///
/// The query is embedded by the table's own contract: with the model, the prefix and the arithmetic its rows have.
/// Words are found where the table has an index of them (`polylance index words`): then both rankings are fused, unless
/// --mode says otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// What to look for
    #[arg(required_unless_present = "like")]
    query: Option<String>,
    /// The Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// By meaning (vector), by words (text) or by both (hybrid) [default: hybrid where words are indexed, else vector]
    #[arg(long, value_name = "MODE")]
    mode: Option<SearchMode>,
    /// Find what is like this document of the table instead, from its chunk N or the first
    #[arg(long, value_name = "DOC_ID[#N]", conflicts_with_all = ["query", "rerank"])]
    like: Option<String>,
    /// Hits at most
    #[arg(short = 'k', value_name = "N", default_value_t = 10)]
    k: usize,
    /// A SQL condition that every hit fulfils
    #[arg(long = "where", value_name = "SQL")]
    filter: Option<String>,
    /// One hit a document: its best chunk
    #[arg(long)]
    by_document: bool,
    /// How a hybrid search makes one ranking of two: score (the cosine plus the words' weighted part), rrf (by ranks) or
    /// weighted (by shares of both scores) [default: score]
    #[arg(long, value_name = "NAME")]
    fusion: Option<FusionKind>,
    /// What score fusion multiplies the words' part by [default: 0.15]
    #[arg(long, value_name = "WEIGHT", conflicts_with = "vector_weight")]
    text_weight: Option<f32>,
    /// The vectors' share in weighted fusion, 0 to 1 [default: 0.5]
    #[arg(long, value_name = "SHARE")]
    vector_weight: Option<f32>,
    /// Order the best candidates anew by this cross-encoder: a folder or a name on the hub
    #[arg(long, value_name = "MODEL")]
    rerank: Option<String>,
    /// Partitions of the vector index that are searched at least [default: as tuned, else 20]
    #[arg(long, value_name = "N", help_heading = "Vector index")]
    nprobes: Option<usize>,
    /// Candidates per hit whose exact distance decides [default: as tuned, else 10]
    #[arg(long, value_name = "N", help_heading = "Vector index")]
    refine: Option<u32>,
    /// Candidates that a graph keeps while it is walked
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

/// `doc_id` or `doc_id#chunk`.
fn like(text: &str) -> (String, u32) {
    let parts = text.rsplit_once('#');
    match parts.and_then(|(doc_id, chunk)| Some((doc_id, chunk.parse().ok()?))) {
        Some((doc_id, chunk)) => (doc_id.to_owned(), chunk),
        None => (text.to_owned(), 0),
    }
}

/// A weight belongs to one kind of fusion, and means that kind where none is named.
fn fusion(kind: Option<FusionKind>, text_weight: Option<f32>, vector_weight: Option<f32>) -> Result<Fusion> {
    let (of_weight, weight) = match (text_weight, vector_weight) {
        (None, None) => return Ok(kind.unwrap_or_default().with_weight(None)?),
        (Some(weight), _) => (FusionKind::Score, weight),
        (None, Some(weight)) => (FusionKind::Weighted, weight),
    };
    if kind.is_some_and(|kind| kind != of_weight) {
        let message = "--text-weight belongs to score fusion, --vector-weight to weighted fusion";
        return Err(UsageError::new(message).into());
    }
    Ok(of_weight.with_weight(Some(weight))?)
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
    // A search by words loads no model.
    let by_words = table.mode_of(&request) == SearchMode::Text && !request.rerank;
    let models = match table.contract() {
        Some(contract) if !by_words => {
            TableModels::new(args.model.into(), args.rerank, args.devices.devices).models(contract).await?
        }
        _ => Models::default(),
    };
    if table.has_unfolded_text_index() && table.mode_of(&request) != SearchMode::Vector {
        let rebuild = format!("`polylance index words --table {}` rebuilds it", args.table);
        printer.hint(format!("the index of words is an older one and does not find every word: {rebuild}"));
    }
    let hits = Box::pin(table.search(&request, &models)).await?;
    if args.json {
        printer.bytes(&batch::json_array(&hits.into_batch()?)?)?;
    } else if hits.scores.is_empty() {
        let fits = if by_words { "no row has these words" } else { "no row fulfils the condition" };
        printer.message(fits);
    } else {
        let (header, rows) = shown(&hits)?;
        printer.table(&header, rows)?;
    }
    Ok(ExitStatus::Done)
}

/// Rank, score, what makes it, the columns that matter, and the beginning of the text at the end of each line.
fn shown(hits: &Hits) -> Result<(Vec<String>, Vec<Vec<String>>)> {
    let names = batch::header(&hits.rows);
    let text = names.iter().position(|name| name == TEXT);
    let hidden = |at: &usize| Some(*at) == text || HIDDEN.contains(&names[*at].as_str());
    let kept: Vec<usize> = (0..names.len()).filter(|at| !hidden(at)).collect();
    // Of one ranking alone, its rank and score are the hit's.
    let hybrid = hits.scores.iter().any(|scores| scores.parts.is_some());

    let mut header = vec!["rank".to_owned(), SCORE.to_owned()];
    header.extend(["meaning", "words"].into_iter().filter(|_| hybrid).map(str::to_owned));
    header.extend(kept.iter().map(|at| names[*at].clone()));
    header.extend(text.map(|_| TEXT.to_owned()));
    let rows = batch::rows(&hits.rows)?.into_iter().zip(&hits.scores).enumerate().map(|(at, (cells, scores))| {
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
        row.extend(text.map(|text| short(&cells[text], SNIPPET)));
        row
    });
    Ok((header, rows.collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_stands_behind_the_documents_id() {
        assert_eq!(like("eng-26"), ("eng-26".to_owned(), 0));
        assert_eq!(like("eng-26#3"), ("eng-26".to_owned(), 3));
        assert_eq!(like("a#b"), ("a#b".to_owned(), 0));
    }
}
