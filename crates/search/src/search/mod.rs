//! A search, from the query to the hits.

mod bm25;
pub(crate) mod candidates;
mod full_text;
mod hits;
mod ranking;
mod rerank;

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{Float32Type, Schema},
};
use datafusion::logical_expr::{ident, lit};
use lance_linalg::distance::DistanceType;
use polylance_schema::columns::{CHUNK, DOC_ID, EMBEDDING, TEXT};

pub use hits::Hits;

use crate::{
    ColumnError, Fusion, InputKind, Models, Query, QueryError, SearchError, SearchMode, SearchRequest, SearchTable,
    embed, filter, scores::RankedBy,
};
use bm25::self_score;
use candidates::{CandidateQuery, bm25_scores, distances, full_text_candidates, vector_candidates};
use ranking::{Ranked, Scale, by_text, by_vector, fuse, merge, vector_score};
use rerank::rerank;

/// Candidates of each ranking that are fused, per hit.
const FUSED_PER_HIT: usize = 5;
/// Candidates of each ranking that are fused, at least.
const MIN_FUSED: usize = 100;
/// Candidates that a cross-encoder reads, per hit: each costs a pass.
const RERANKED_PER_HIT: usize = 3;
/// Candidates that a cross-encoder reads, at least.
const MIN_RERANKED: usize = 30;

impl SearchTable {
    /// The mode of a request: its own, else hybrid for a text query where the table has a full-text index and a contract,
    /// else the one that the table can answer.
    pub fn mode_of(&self, request: &SearchRequest) -> SearchMode {
        match (request.mode, &request.query) {
            (Some(mode), _) => mode,
            (None, Query::Text(_)) if self.contract().is_none() => SearchMode::Text,
            (None, Query::Text(_)) if self.has_text_index() => SearchMode::Hybrid,
            (None, _) => SearchMode::Vector,
        }
    }

    /// The best rows for a request, best first.
    ///
    /// Yields the columns that the request names, or all of [`SearchTable::hit_columns`], and the scores of each row. The
    /// score of a vector search is 1 − distance for cosine and dot and 1 / (1 + distance) for L2, that of a full-text
    /// search is BM25, that of a hybrid search is the sum of the two parts of its [`Fusion`], and with a reranker the score
    /// is the reranker's. The metric is that of the index, cosine without one. Distances are exact: candidates from an
    /// index are re-scored. Rows that no index covers yet are searched too.
    ///
    /// # Errors
    /// See [`SearchError`]; `models` must have what the mode needs.
    pub async fn search(&self, request: &SearchRequest, models: &Models) -> Result<Hits, SearchError> {
        check(request)?;
        let projection = self.projection(request)?;
        let mode = self.mode_of(request);
        self.check_columns(request, mode)?;
        let mut ranked = self.rank(request, mode, models).await?;
        let reranked = request.rerank;
        if reranked {
            ranked.truncate(depth(request.k, RERANKED_PER_HIT, MIN_RERANKED));
            let rows = self.read(&ranked, vec![TEXT.to_owned()]).await?;
            rerank(&mut ranked, &rows, request, models).await?;
        }
        ranked.truncate(request.k);
        let rows = self.read(&ranked, projection).await?;
        Ok(Hits::new(rows, &ranked, mode, reranked))
    }

    async fn rank(
        &self,
        request: &SearchRequest,
        mode: SearchMode,
        models: &Models,
    ) -> Result<Vec<Ranked>, SearchError> {
        let limit = match (mode, request.rerank) {
            (SearchMode::Hybrid, _) => depth(request.k, FUSED_PER_HIT, MIN_FUSED),
            (_, true) => depth(request.k, RERANKED_PER_HIT, MIN_RERANKED),
            (_, false) => request.k,
        };
        let condition = request.filter.as_deref().map(|condition| self.plan_condition(condition)).transpose()?;
        let condition = match (condition, &request.query) {
            (condition, Query::Like { doc_id, .. }) => Some(filter::and(condition, !filter::equals(DOC_ID, doc_id))),
            (condition, _) => condition,
        };
        let candidates = CandidateQuery { limit, filter: condition.as_ref(), by_document: request.by_document };
        let metric = self.metric().unwrap_or(DistanceType::Cosine);
        if mode == SearchMode::Vector {
            let vector = self.query_vector(&request.query, models).await?;
            let vectors = vector_candidates(self, &vector, request.effort, &candidates).await?;
            return Ok(by_vector(vectors, |distance| vector_score(distance, metric)));
        }
        let Query::Text(query) = &request.query else { return Err(QueryError::NotText.into()) };
        let texts = full_text_candidates(self, query, &candidates).await?;
        if mode == SearchMode::Text {
            return Ok(by_text(texts));
        }
        let vector = self.query_vector(&request.query, models).await?;
        let vectors = vector_candidates(self, &vector, request.effort, &candidates).await?;
        // Beyond the limit, and among a document's other chunks, more rows may contain the query's words.
        let has_all_matches = texts.len() < limit && !request.by_document;
        let mut fused = merge(vectors, texts);
        let mut scale = Scale { metric, query_norm: vector.iter().map(|value| value * value).sum(), self_score: 1.0 };
        if request.fusion != Fusion::ReciprocalRank {
            self.complete(&mut fused, query, &vector, has_all_matches).await?;
        }
        if matches!(request.fusion, Fusion::Score { .. }) {
            scale.self_score = self_score(self, query).await?;
        }
        fuse(&mut fused, request.fusion, scale);
        if request.by_document {
            // The two rankings may have chosen different chunks of a document.
            let mut seen = std::collections::HashSet::new();
            fused.retain(|ranked| seen.insert(ranked.doc_id.clone()));
        }
        Ok(fused)
    }

    /// Computes the distance or BM25 score of rows that only the other ranking found, so that no row loses score for being
    /// found by one ranking alone.
    async fn complete(
        &self,
        ranked: &mut [Ranked],
        query: &str,
        vector: &[f32],
        has_all_matches: bool,
    ) -> Result<(), SearchError> {
        let without_distance: Vec<u64> =
            ranked.iter().filter(|ranked| ranked.vector.is_none()).map(|ranked| ranked.row).collect();
        if !without_distance.is_empty() {
            let mut distances = distances(self, vector, &without_distance).await?.into_iter();
            for ranked in ranked.iter_mut().filter(|ranked| ranked.vector.is_none()) {
                ranked.vector = distances.next().flatten().map(|value| RankedBy { rank: None, value });
            }
        }
        let without_bm25: Vec<u64> =
            ranked.iter().filter(|ranked| ranked.text.is_none()).map(|ranked| ranked.row).collect();
        if !without_bm25.is_empty() && !has_all_matches {
            let scores = bm25_scores(self, query, &without_bm25).await?;
            for ranked in ranked.iter_mut().filter(|ranked| ranked.text.is_none()) {
                ranked.text = scores.get(&ranked.row).map(|value| RankedBy { rank: None, value: *value });
            }
        }
        Ok(())
    }

    /// The vector of the query.
    async fn query_vector(&self, query: &Query, models: &Models) -> Result<Vec<f32>, SearchError> {
        let contract = self.required_contract()?;
        match query {
            Query::Text(text) => {
                let backend = models.embedder.as_ref().ok_or(QueryError::NoEmbedder)?;
                Ok(embed(vec![text.clone()], InputKind::Query, contract, backend).await?.values)
            }
            Query::Vector(vector) if vector.len() != contract.dim => {
                Err(QueryError::Dimensions { query: vector.len(), table: contract.dim }.into())
            }
            Query::Vector(vector) => Ok(vector.clone()),
            Query::Like { doc_id, chunk } => self.chunk_vector(doc_id, *chunk).await,
        }
    }

    async fn chunk_vector(&self, doc_id: &str, chunk: u32) -> Result<Vec<f32>, SearchError> {
        let reading = |error| SearchError::storage(self.uri(), "reading a row's vector")(error);
        let condition = filter::equals(DOC_ID, doc_id).and(ident(CHUNK).eq(lit(chunk)));
        let mut scanner = self.dataset().scan();
        scanner.filter_expr(filter::typed(condition, &self.schema())?);
        scanner.project(&[EMBEDDING]).map_err(reading)?.limit(Some(1), None).map_err(reading)?;
        let row = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
        if row.num_rows() == 0 {
            return Err(QueryError::NoChunk { doc_id: doc_id.to_owned(), chunk }.into());
        }
        Ok(row.column(0).as_fixed_size_list().value(0).as_primitive::<Float32Type>().values().to_vec())
    }

    /// The columns to read for each hit.
    fn projection(&self, request: &SearchRequest) -> Result<Vec<String>, ColumnError> {
        let all = self.hit_columns();
        let Some(columns) = &request.columns else { return Ok(all) };
        for (at, name) in columns.iter().enumerate() {
            let column = name.clone();
            if columns[..at].contains(name) {
                return Err(ColumnError::NamedTwice { column });
            }
            if !all.contains(name) {
                return Err(match self.dataset().schema().field(name) {
                    Some(_) => ColumnError::NotInHits { column },
                    None => ColumnError::Missing { column },
                });
            }
        }
        Ok(columns.clone())
    }

    /// These columns of the rows, in the order of the ranking.
    async fn read(&self, ranked: &[Ranked], columns: Vec<String>) -> Result<RecordBatch, SearchError> {
        if columns.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(ranked.len()));
            let no_columns = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
            return no_columns.map_err(|error| SearchError::storage(self.uri(), "reading the hits")(error.into()));
        }
        let ids: Vec<u64> = ranked.iter().map(|ranked| ranked.row).collect();
        let schema = self.dataset().schema();
        let columns = lance::dataset::ProjectionRequest::from_columns(columns, schema);
        let rows = Box::pin(self.dataset().take_rows(&ids, columns)).await;
        rows.map_err(SearchError::storage(self.uri(), "reading the hits"))
    }
}

fn check(request: &SearchRequest) -> Result<(), QueryError> {
    let out_of_range = |parameter, range| Err(QueryError::OutOfRange { parameter, range });
    if request.k == 0 {
        return out_of_range("`k`", "at least 1");
    }
    match &request.query {
        Query::Text(text) if text.trim().is_empty() => Err(QueryError::Empty),
        Query::Vector(vector) if vector.iter().any(|value| !value.is_finite()) => Err(QueryError::NotFinite),
        _ if request.effort.nprobes == Some(0) => out_of_range("`nprobes`", "at least 1"),
        _ if request.effort.refine == Some(0) => out_of_range("`refine`", "at least 1"),
        _ => match request.fusion {
            Fusion::Weighted { vector } if !(0.0..=1.0).contains(&vector) => {
                out_of_range("the weight of the vectors", "from 0 to 1")
            }
            Fusion::Score { text_weight } if !(0.0..=100.0).contains(&text_weight) => {
                out_of_range("the weight of the text", "from 0 to 100")
            }
            _ => Ok(()),
        },
    }
}

/// The number of candidates for `k` hits.
fn depth(k: usize, per_hit: usize, min: usize) -> usize {
    k.saturating_mul(per_hit).max(min)
}
