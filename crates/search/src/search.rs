//! A search from the query to the rows.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{Float32Type, Schema},
};
use lance_linalg::distance::DistanceType;
use polylance_backend::{AnnotateInput, Annotation};
use polylance_schema::columns::{CHUNK, DOC_ID, EMBEDDING, TEXT};

use crate::{
    InputKind, Models, Query, SearchError, SearchMode, SearchRequest, SearchTable,
    candidates::{Wanted, by_words, nearest},
    embed, filter, hits,
    ranking::{Ranked, fuse, of_vectors, of_words},
};

/// Candidates of each ranking that are fused, and those that are reranked, per hit and at least.
const DEPTH_PER_HIT: usize = 5;
const DEPTH: usize = 100;

/// Candidates that a cross-encoder reads per hit and at least: each costs a pass.
const RERANK_PER_HIT: usize = 3;
const RERANK_DEPTH: usize = 30;

impl SearchTable {
    /// How a request is searched for: as it says, else by meaning and words together where the table can do both.
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
    /// Yields the columns that the request names, or all of [`SearchTable::hit_columns`]; then, each only where the mode
    /// has it: `vector_rank` (UInt32, from 1), `_distance` (Float32), `text_rank` (UInt32),
    /// `bm25` (Float32), `rerank_score` (Float32), and at last `score` (Float32, falling). By meaning the score is 1 − distance for cosine and dot
    /// and 1 / (1 + distance) for L2; by words it is BM25's; a hybrid search's is its [`crate::Fusion`]'s; with a
    /// reranker it is the reranker's. The metric is the index's, cosine without one. Distances are exact: candidates
    /// from an index are compared with the query again. Rows that no index covers yet are searched too.
    ///
    /// # Errors
    /// See [`SearchError`]; `models` must have what the mode needs.
    pub async fn search(&self, request: &SearchRequest, models: &Models) -> Result<RecordBatch, SearchError> {
        check(request)?;
        let shown = self.shown(request)?;
        if let Some(condition) = &request.filter {
            filter::check(self.dataset(), condition, self.is_limited()).await?;
        }
        let mode = self.mode_of(request);
        self.check_columns(request, mode)?;
        let mut ranked = self.rank(request, mode, models).await?;
        let reranked = request.rerank;
        if reranked {
            ranked.truncate(depth(request.k, RERANK_PER_HIT, RERANK_DEPTH));
            let rows = self.read(&ranked, vec![TEXT.to_owned()]).await?;
            rerank(&mut ranked, &rows, request, models).await?;
        }
        ranked.truncate(request.k);
        let rows = self.read(&ranked, shown).await?;
        hits::with_places(&rows, &ranked, mode, reranked)
            .map_err(|error| SearchError::storage(self.uri(), "searching")(error.into()))
    }

    async fn rank(
        &self,
        request: &SearchRequest,
        mode: SearchMode,
        models: &Models,
    ) -> Result<Vec<Ranked>, SearchError> {
        let limit = match (mode, request.rerank) {
            (SearchMode::Hybrid, _) => depth(request.k, DEPTH_PER_HIT, DEPTH),
            (_, true) => depth(request.k, RERANK_PER_HIT, RERANK_DEPTH),
            (_, false) => request.k,
        };
        let condition = match &request.query {
            Query::Like { doc_id, .. } => {
                Some(filter::and(request.filter.clone(), format!("NOT ({})", filter::equals(DOC_ID, doc_id))))
            }
            _ => request.filter.clone(),
        };
        let wanted = Wanted { limit, filter: condition.as_deref(), by_document: request.by_document };
        let words = match (&request.query, mode) {
            (_, SearchMode::Vector) => Vec::new(),
            (Query::Text(words), _) => of_words(by_words(self, words, &wanted).await?),
            _ => {
                return Err(SearchError::Query(
                    "only words can be searched by words: use the mode `vector`".to_owned(),
                ));
            }
        };
        if mode == SearchMode::Text {
            return Ok(words);
        }
        let vector = self.query_vector(&request.query, models).await?;
        let metric = self.metric().unwrap_or(DistanceType::Cosine);
        let vectors = nearest(self, &vector, request.effort, &wanted).await?;
        let vectors = of_vectors(vectors, |distance| score(distance, metric));
        if mode == SearchMode::Vector {
            return Ok(vectors);
        }
        let mut fused = fuse(vectors, words, request.fusion);
        if request.by_document {
            // The two rankings may have chosen different chunks.
            let mut seen = std::collections::HashSet::new();
            fused.retain(|ranked| seen.insert(ranked.doc_id.clone()));
        }
        Ok(fused)
    }

    /// The vector that rows are compared with.
    async fn query_vector(&self, query: &Query, models: &Models) -> Result<Vec<f32>, SearchError> {
        let contract = self.needed_contract()?;
        match query {
            Query::Text(text) => {
                let Some(backend) = &models.embedder else {
                    return Err(SearchError::Query("no model is loaded to embed the query with".to_owned()));
                };
                Ok(embed(vec![text.clone()], InputKind::Query, contract, backend).await?.values)
            }
            Query::Vector(vector) if vector.len() != contract.dim => {
                let (got, dim) = (vector.len(), contract.dim);
                Err(SearchError::Query(format!("the query has {got} dimensions, the table's vectors {dim}")))
            }
            Query::Vector(vector) => Ok(vector.clone()),
            Query::Like { doc_id, chunk } => self.vector_of(doc_id, *chunk).await,
        }
    }

    async fn vector_of(&self, doc_id: &str, chunk: u32) -> Result<Vec<f32>, SearchError> {
        let reading = |error| SearchError::storage(self.uri(), "reading a row's vector")(error);
        let condition = format!("{} AND {CHUNK} = {chunk}", filter::equals(DOC_ID, doc_id));
        let mut scanner = self.dataset().scan();
        scanner.filter(&condition).map_err(reading)?;
        scanner.project(&[EMBEDDING]).map_err(reading)?.limit(Some(1), None).map_err(reading)?;
        let row = Box::pin(scanner.try_into_batch()).await.map_err(reading)?;
        if row.num_rows() == 0 {
            return Err(SearchError::Query(format!("the table has no chunk {chunk} of a document `{doc_id}`")));
        }
        Ok(row.column(0).as_fixed_size_list().value(0).as_primitive::<Float32Type>().values().to_vec())
    }

    /// The columns that hits are to show.
    fn shown(&self, request: &SearchRequest) -> Result<Vec<String>, SearchError> {
        let all = self.hit_columns();
        let Some(columns) = &request.columns else { return Ok(all) };
        for (at, column) in columns.iter().enumerate() {
            if columns[..at].contains(column) {
                return Err(SearchError::Column(format!("the column `{column}` is named twice")));
            }
            if !all.contains(column) {
                return Err(SearchError::Column(match self.dataset().schema().field(column) {
                    Some(_) => format!("the column `{column}` is not shown in hits"),
                    None => format!("there is no column `{column}`"),
                }));
            }
        }
        Ok(columns.clone())
    }

    /// The rows' columns, in the same order.
    async fn read(&self, ranked: &[Ranked], columns: Vec<String>) -> Result<RecordBatch, SearchError> {
        if columns.is_empty() {
            let options = RecordBatchOptions::new().with_row_count(Some(ranked.len()));
            let nothing = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), Vec::new(), &options);
            return nothing.map_err(|error| SearchError::storage(self.uri(), "reading the hits")(error.into()));
        }
        let ids: Vec<u64> = ranked.iter().map(|ranked| ranked.row).collect();
        let schema = self.dataset().schema();
        let columns = lance::dataset::ProjectionRequest::from_columns(columns, schema);
        let rows = Box::pin(self.dataset().take_rows(&ids, columns)).await;
        rows.map_err(SearchError::storage(self.uri(), "reading the hits"))
    }
}

fn check(request: &SearchRequest) -> Result<(), SearchError> {
    let refused = |message: &str| Err(SearchError::Query(message.to_owned()));
    if request.k == 0 {
        return refused("k is 0: ask for at least one hit");
    }
    match &request.query {
        Query::Text(text) if text.trim().is_empty() => refused("the query is empty"),
        Query::Vector(vector) if vector.iter().any(|value| !value.is_finite()) => {
            refused("the query's vector has a value that is not a finite number")
        }
        _ if request.effort.nprobes == Some(0) || request.effort.refine == Some(0) => {
            refused("nprobes and refine are at least 1")
        }
        _ => match request.fusion {
            crate::Fusion::Weighted { vector } if !(0.0..=1.0).contains(&vector) => {
                refused("the weight of the vectors is from 0 to 1")
            }
            _ => Ok(()),
        },
    }
}

fn depth(k: usize, per_hit: usize, least: usize) -> usize {
    k.saturating_mul(per_hit).max(least)
}

/// What a distance is worth: more is better, and 1 is the best.
fn score(distance: f32, metric: DistanceType) -> f32 {
    match metric {
        DistanceType::L2 => 1.0 / (1.0 + distance),
        _ => 1.0 - distance,
    }
}

/// Orders the candidates by what a cross-encoder says of query and passage together.
async fn rerank(
    ranked: &mut [Ranked],
    rows: &RecordBatch,
    request: &SearchRequest,
    models: &Models,
) -> Result<(), SearchError> {
    let refused = |message: &str| SearchError::Query(message.to_owned());
    let Query::Text(query) = &request.query else {
        return Err(refused("only a query in words can be reranked"));
    };
    let reranker = models.reranker.as_ref().ok_or_else(|| refused("no model is loaded to rerank with"))?;
    let texts = rows.column_by_name(TEXT).ok_or_else(|| refused("the table has no column `text` to rerank by"))?;
    let texts = texts.as_string::<i32>();
    let input = |text: Option<&str>| AnnotateInput {
        text: text.unwrap_or_default().to_owned(),
        question: Some(query.clone()),
        choices: Vec::new(),
    };
    let answers = reranker.0.annotate(texts.iter().map(input).collect()).await?;
    for (ranked, answer) in ranked.iter_mut().zip(answers) {
        match answer {
            Ok(Annotation::Relevance(relevance)) => ranked.rerank = Some(relevance),
            Ok(_) => return Err(refused("the reranker's head does not score relevance")),
            // A passage that cannot be read keeps its place behind those that can.
            Err(_) => ranked.rerank = None,
        }
        ranked.score = ranked.rerank.unwrap_or(f32::NEG_INFINITY);
    }
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    Ok(())
}
