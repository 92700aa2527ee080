//! Reranking: a cross-encoder reads the query and each candidate together.

use arrow::array::{AsArray, RecordBatch};
use polylance_backend::{AnnotateInput, Annotation};
use polylance_schema::columns::TEXT;

use super::ranking::Ranked;
use crate::{ColumnError, Models, Query, QueryError, SearchError, SearchRequest};

/// Orders the candidates by the relevance that the cross-encoder gives them; `rows` are their texts.
pub(super) async fn rerank(
    ranked: &mut [Ranked],
    rows: &RecordBatch,
    request: &SearchRequest,
    models: &Models,
) -> Result<(), SearchError> {
    let Query::Text(query) = &request.query else { return Err(QueryError::RerankedWithoutText.into()) };
    let reranker = models.reranker.as_ref().ok_or(QueryError::NoReranker)?;
    let texts = rows.column_by_name(TEXT).ok_or_else(|| ColumnError::Missing { column: TEXT.to_owned() })?;
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
            Ok(_) => return Err(QueryError::NotAReranker.into()),
            // A passage that the model cannot read comes after those that it can.
            Err(_) => ranked.rerank = None,
        }
        ranked.score = ranked.rerank.unwrap_or(f32::NEG_INFINITY);
    }
    ranked.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.row.cmp(&b.row)));
    Ok(())
}
