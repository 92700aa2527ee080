//! A search from the query to the rows.

use std::sync::Arc;

use arrow::{
    array::{AsArray, RecordBatch, RecordBatchOptions},
    datatypes::{Float32Type, Schema},
};
use datafusion::logical_expr::{ident, lit};
use lance_linalg::distance::DistanceType;
use polylance_backend::{AnnotateInput, Annotation};
use polylance_schema::columns::{CHUNK, DOC_ID, EMBEDDING, TEXT};

use crate::{
    Fusion, InputKind, Models, Query, SearchError, SearchMode, SearchRequest, SearchTable,
    bm25::self_score,
    candidates::{Wanted, bm25_of, by_words, distances, nearest},
    embed, filter,
    hits::{Hits, RankedBy},
    ranking::{Ranked, Scale, by_text, by_vector, fuse, merge, vector_score},
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
    /// `bm25` (Float32), `vector_score` and `text_score` (Float32), `rerank_score` (Float32), and at last `score` (Float32,
    /// falling). By vectors the score is 1 − distance for cosine and dot and 1 / (1 + distance) for L2; by words it is
    /// BM25's; a hybrid search's is `vector_score` + `text_score`, which are its [`Fusion`]'s; with a reranker it is the
    /// reranker's. The metric is the index's, cosine without one. Distances are exact: candidates
    /// from an index are compared with the query again. Rows that no index covers yet are searched too.
    ///
    /// # Errors
    /// See [`SearchError`]; `models` must have what the mode needs.
    pub async fn search(&self, request: &SearchRequest, models: &Models) -> Result<Hits, SearchError> {
        check(request)?;
        let shown = self.shown(request)?;
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
        Ok(Hits::new(rows, &ranked, mode, reranked))
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
        let condition = request.filter.as_deref().map(|condition| self.plan_condition(condition)).transpose()?;
        let condition = match (condition, &request.query) {
            (condition, Query::Like { doc_id, .. }) => Some(filter::and(condition, !filter::equals(DOC_ID, doc_id))),
            (condition, _) => condition,
        };
        let wanted = Wanted { limit, filter: condition.as_ref(), by_document: request.by_document };
        let metric = self.metric().unwrap_or(DistanceType::Cosine);
        if mode == SearchMode::Vector {
            let vector = self.query_vector(&request.query, models).await?;
            let vectors = nearest(self, &vector, request.effort, &wanted).await?;
            return Ok(by_vector(vectors, |distance| vector_score(distance, metric)));
        }
        let Query::Text(query) = &request.query else {
            let message = "only a text can be searched by its words: use the mode `vector`";
            return Err(SearchError::Query(message.to_owned()));
        };
        let words = by_words(self, query, &wanted).await?;
        if mode == SearchMode::Text {
            return Ok(by_text(words));
        }
        let vector = self.query_vector(&request.query, models).await?;
        let vectors = nearest(self, &vector, request.effort, &wanted).await?;
        // Further down the list, or in a document's other chunks, there may be rows with the query's words.
        let all_words = words.len() < limit && !request.by_document;
        let mut fused = merge(vectors, words);
        let mut scale = Scale { metric, query_norm: vector.iter().map(|value| value * value).sum(), self_score: 1.0 };
        if request.fusion != Fusion::ReciprocalRank {
            self.complete(&mut fused, query, &vector, all_words).await?;
        }
        if matches!(request.fusion, Fusion::Score { .. }) {
            scale.self_score = self_score(self, query).await?;
        }
        fuse(&mut fused, request.fusion, scale);
        if request.by_document {
            // The two rankings may have chosen different chunks.
            let mut seen = std::collections::HashSet::new();
            fused.retain(|ranked| seen.insert(ranked.doc_id.clone()));
        }
        Ok(fused)
    }

    /// Computes what the ranking that did not find a row would have known of it, so that no row is worth less for having
    /// been found by one ranking alone.
    async fn complete(
        &self,
        ranked: &mut [Ranked],
        query: &str,
        vector: &[f32],
        all_words: bool,
    ) -> Result<(), SearchError> {
        let without_distance: Vec<u64> =
            ranked.iter().filter(|ranked| ranked.vector.is_none()).map(|ranked| ranked.row).collect();
        if !without_distance.is_empty() {
            let mut distances = distances(self, vector, &without_distance).await?.into_iter();
            for ranked in ranked.iter_mut().filter(|ranked| ranked.vector.is_none()) {
                ranked.vector = distances.next().flatten().map(|value| RankedBy { rank: None, value });
            }
        }
        let without_words: Vec<u64> =
            ranked.iter().filter(|ranked| ranked.text.is_none()).map(|ranked| ranked.row).collect();
        if !without_words.is_empty() && !all_words {
            let scores = bm25_of(self, query, &without_words).await?;
            for ranked in ranked.iter_mut().filter(|ranked| ranked.text.is_none()) {
                ranked.text = scores.get(&ranked.row).map(|value| RankedBy { rank: None, value: *value });
            }
        }
        Ok(())
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
        let condition = filter::equals(DOC_ID, doc_id).and(ident(CHUNK).eq(lit(chunk)));
        let mut scanner = self.dataset().scan();
        scanner.filter_expr(filter::typed(condition, &self.schema())?);
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
            Fusion::Weighted { vector } if !(0.0..=1.0).contains(&vector) => {
                refused("the weight of the vectors is from 0 to 1")
            }
            Fusion::Score { text_weight } if !(0.0..=100.0).contains(&text_weight) => {
                refused("the weight of the text is from 0 to 100")
            }
            _ => Ok(()),
        },
    }
}

fn depth(k: usize, per_hit: usize, least: usize) -> usize {
    k.saturating_mul(per_hit).max(least)
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
