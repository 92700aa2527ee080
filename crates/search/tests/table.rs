//! Search and description of tables that `sink` wrote.

mod common;
mod conditions;
mod full_text;

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Float32Type, UInt32Type},
};
use common::{DIM, TestTable, backend, contract, models, owned, strings, write_three};
use polylance_schema::{IndexKind, Metric};
use polylance_search::{
    Effort, Fusion, Models, Query, SearchError, SearchMode, SearchRequest, SearchTable, TuneRequest, describe,
    table_contract,
};
use polylance_sink::{
    FullTextUpdate, IndexAction, IndexSpec, properties, quarantine_uri, set_search_params, update_full_text_index,
    update_index,
};

fn request(query: &str, k: usize, filter: Option<&str>) -> SearchRequest {
    SearchRequest { filter: filter.map(str::to_owned), ..SearchRequest::text(query, k) }
}

#[tokio::test]
async fn text_is_its_own_nearest_neighbour() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let hits = stored
        .open()
        .await
        .search(&request("everyone has the right to life", 2, None), &models())
        .await
        .unwrap()
        .into_batch()
        .unwrap();
    assert_eq!(strings(&hits, "doc_id")[0], "d1");
    assert_eq!(hits.num_rows(), 2);
    let names: Vec<_> = hits.schema().fields().iter().map(|f| f.name().clone()).collect();
    let expected = ["doc_id", "lang", "chunk", "char_start", "char_end", "text", "n_tokens", "truncated", "run_id"];
    assert_eq!(names[..9], expected);
    assert_eq!(names[9..], ["vector_rank", "_distance", "score"]);
    let number = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let (distance, score) = (number("_distance"), number("score"));
    assert!(distance.value(0).abs() < 1e-6 && distance.value(0) <= distance.value(1));
    assert!((score.value(1) - (1.0 - distance.value(1))).abs() < 1e-6);
}

#[tokio::test]
async fn hits_have_the_requested_columns() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let table = stored.open().await;
    let ask = async |columns: &[&str]| {
        let columns = Some(columns.iter().map(|name| (*name).to_owned()).collect());
        let hits = table.search(&SearchRequest { columns, ..request("right", 2, None) }, &models()).await;
        hits.map(|hits| hits.into_batch().unwrap())
    };
    let names = |hits: &RecordBatch| hits.schema().fields().iter().map(|f| f.name().clone()).collect::<Vec<_>>();
    let hits = ask(&["text", "doc_id"]).await.unwrap();
    assert_eq!(names(&hits), ["text", "doc_id", "vector_rank", "_distance", "score"]);
    let nothing = ask(&[]).await.unwrap();
    assert_eq!((names(&nothing).len(), nothing.num_rows()), (3, 2));
    for wrong in [["doc_id", "embedding"], ["doc_id", "doc_id"], ["doc_id", "missing"]] {
        let error = ask(&wrong).await.unwrap_err();
        assert!(matches!(&error, SearchError::Column(column) if column.to_string().contains(wrong[1])), "{error}");
    }
}

#[tokio::test]
async fn filter_is_applied_before_ranking() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let query = "everyone has the right to life";
    let hits = stored
        .open()
        .await
        .search(&request(query, 2, Some("lang = 'fra'")), &models())
        .await
        .unwrap()
        .into_batch()
        .unwrap();
    let mut found = strings(&hits, "doc_id");
    found.sort();
    assert_eq!(found, ["d0", "d2"]);
}

#[tokio::test]
async fn search_errors_are_typed() {
    let stored = TestTable::new();
    let missing = SearchTable::open(&stored.uri()).await.unwrap_err();
    assert!(matches!(missing, SearchError::NoTable { .. }), "{missing}");
    write_three(&stored).await;
    let no_column =
        stored.open().await.search(&request("x", 1, Some("language = 'fra'")), &models()).await.unwrap_err();
    assert!(matches!(&no_column, SearchError::Filter { filter, .. } if filter == "language = 'fra'"), "{no_column}");
    let no_sql = stored.open().await.search(&request("x", 1, Some("lang ==== ")), &models()).await.unwrap_err();
    assert!(matches!(no_sql, SearchError::Filter { .. }), "{no_sql}");
    let other_model = stored
        .open()
        .await
        .search(&request("x", 1, None), &Models { embedder: Some(backend(16)), reranker: None })
        .await
        .unwrap_err();
    assert!(matches!(other_model, SearchError::Dimensions { table: 32, backend: 16, .. }), "{other_model}");
    for (query, k) in [("x", 0), (" ", 1)] {
        let error = stored.open().await.search(&request(query, k, None), &models()).await.unwrap_err();
        assert!(matches!(error, SearchError::Query(_)), "{error}");
    }
}

#[tokio::test]
async fn empty_table_has_no_hits() {
    let stored = TestTable::new();
    stored.write(&[]).await;
    let hits =
        stored.open().await.search(&request("anything", 3, None), &models()).await.unwrap().into_batch().unwrap();
    assert_eq!(hits.num_rows(), 0);
    assert_eq!(table_contract(&stored.uri()).await.unwrap(), contract());
}

#[tokio::test]
async fn index_finds_the_same_first_hit_and_is_described() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..400).map(|i| format!("w{} x{} y{}", i, i * 7, i * 13)).collect();
    stored.write(&texts).await;
    for metric in [Metric::Cosine, Metric::L2] {
        let spec = IndexSpec { kind: IndexKind::IvfPq, metric, ..IndexSpec::default() };
        update_index(&stored.uri(), &spec).await.unwrap();
        let hits =
            stored.open().await.search(&request(&texts[123], 3, None), &models()).await.unwrap().into_batch().unwrap();
        let distance = hits.column_by_name("_distance").unwrap().as_primitive::<Float32Type>();
        assert!(distance.value(0).abs() < 1e-5, "distances are exact after refining: {distance:?}");
        let score = hits.column_by_name("score").unwrap().as_primitive::<Float32Type>();
        assert!((score.value(0) - 1.0).abs() < 1e-5, "{score:?}");
    }
    let table = describe(&stored.uri()).await.unwrap();
    let index = &table.indices[0];
    assert_eq!(
        (index.column.as_str(), index.kind.as_str(), index.metric.as_deref()),
        ("embedding", "IVF_PQ", Some("l2"))
    );
    assert_eq!((index.indexed_rows, index.unindexed_rows), (400, 0));
}

#[tokio::test]
async fn description_has_rows_versions_and_contract() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let table = describe(&stored.uri()).await.unwrap();
    assert_eq!((table.rows, table.version, table.versions, table.quarantine_rows), (3, 1, 1, 0));
    assert_eq!(table.contract, Some(contract()));
    assert_eq!(table.schema.iter().filter(|c| c.name == "embedding" && !c.nullable).count(), 1);
    let version = &table.recent_versions[0];
    assert_eq!((version.rows, version.run_id.as_deref()), (Some(3), Some("r1")));
    assert!(version.time.ends_with('Z'));
    let json = serde_json::to_value(&table).unwrap();
    assert_eq!(json["schema"][0]["type"], "Utf8");

    // Both crates use the same names.
    assert_eq!(properties::RUN_ID, "polylance.run_id");
    let other = TestTable::new();
    write_three(&other).await;
    std::fs::rename(other.uri(), quarantine_uri(&stored.uri())).unwrap();
    assert_eq!(describe(&stored.uri()).await.unwrap().quarantine_rows, 3);
}

async fn with_text_index() -> TestTable {
    let stored = TestTable::new();
    stored
        .write(&owned(&[
            "All human beings are born free",
            "ทุกคนมีสิทธิในการศึกษา",
            "すべて人は教育を受ける権利を有する",
            "Nikt nie będzie poddany niewolnictwu",
            "free free choice of employment",
        ]))
        .await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    stored
}

async fn full_text_hits(stored: &TestTable, query: &str) -> Vec<String> {
    let request = SearchRequest { mode: Some(SearchMode::Text), ..SearchRequest::text(query, 10) };
    let hits = stored.open().await.search(&request, &Models::default()).await.unwrap().into_batch().unwrap();
    strings(&hits, "doc_id")
}

#[tokio::test]
async fn full_text_search_works_in_every_language() {
    let stored = with_text_index().await;
    assert_eq!(full_text_hits(&stored, "FREE").await, ["d4", "d0"], "the shorter text with the word twice comes first");
    assert_eq!(full_text_hits(&stored, "การศึกษา").await, ["d1"], "Thai writes no spaces");
    assert_eq!(full_text_hits(&stored, "教育").await, ["d2"], "nor does Japanese");
    assert_eq!(full_text_hits(&stored, "bedzie").await, ["d3"], "accents may be missing");
    assert!(full_text_hits(&stored, "leisure").await.is_empty());
}

#[tokio::test]
async fn full_text_search_finds_unindexed_rows() {
    let stored = with_text_index().await;
    stored.write(&owned(&["a later row about rest and leisure"])).await;
    let found = full_text_hits(&stored, "leisure").await;
    assert_eq!(found.len(), 1);
    let extended = update_full_text_index(&stored.uri(), FullTextUpdate::Extend).await.unwrap().unwrap();
    assert_eq!((extended.action, extended.indexed_rows, extended.unindexed_rows), (IndexAction::Extended, 6, 0));
    let again = update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    assert_eq!((again.action, again.version), (IndexAction::Unchanged, extended.version));
    assert_eq!(full_text_hits(&stored, "leisure").await, found);
}

#[tokio::test]
async fn hybrid_hits_have_both_ranks_and_parts() {
    let stored = with_text_index().await;
    let table = stored.open().await;
    let query = request("free choice of employment", 5, None);
    assert_eq!(table.mode_of(&query), SearchMode::Hybrid);
    let hits = table.search(&query, &models()).await.unwrap().into_batch().unwrap();
    // `d4` has all words of the query.
    let best = strings(&hits, "doc_id").iter().position(|id| id == "d4").unwrap();
    let rank = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<UInt32Type>().clone();
    assert_eq!(rank("text_rank").value(best), 1);
    let score = hits.column_by_name("score").unwrap().as_primitive::<Float32Type>();
    let number = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let (parts, raw) = ((number("vector_score"), number("text_score")), (number("_distance"), number("bm25")));
    for row in 0..hits.num_rows() {
        assert_eq!(score.value(row), parts.0.value(row) + parts.1.value(row));
        assert!((parts.0.value(row) - (1.0 - raw.0.value(row))).abs() < 1e-6);
    }
    // Inverse document frequencies: of 5 rows one has "choice", one "of" and one "employment", and two have "free".
    let (once, twice) = (1.0 + 4.5f32 / 1.5, 1.0 + 3.5f32 / 2.5);
    let whole = 3.0 * once.ln() + twice.ln();
    let share = raw.1.value(best) / whole;
    assert!((parts.1.value(best) - Fusion::TEXT_WEIGHT * share.powf(1.5)).abs() < 1e-6, "{share}");
    assert!(score.value(0) >= score.value(1) && score.value(1) >= score.value(2));

    let full_text_hits = SearchRequest { fusion: Fusion::Score { text_weight: 9.0 }, ..query.clone() };
    let hits = table.search(&full_text_hits, &models()).await.unwrap().into_batch().unwrap();
    assert_eq!(strings(&hits, "doc_id")[0], "d4");

    let by_rank = SearchRequest { fusion: Fusion::ReciprocalRank, ..query.clone() };
    let hits = table.search(&by_rank, &models()).await.unwrap().into_batch().unwrap();
    let rank = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<UInt32Type>().value(0) as f32;
    let score = hits.column_by_name("score").unwrap().as_primitive::<Float32Type>().value(0);
    let expected = 1.0 / (60.0 + rank("vector_rank")) + 1.0 / (60.0 + rank("text_rank"));
    assert!((score - expected).abs() < 1e-6);

    let meaning = SearchRequest {
        fusion: Fusion::Weighted { vector: 1.0 },
        ..request("All human beings are born free", 1, None)
    };
    assert_eq!(strings(&table.search(&meaning, &models()).await.unwrap().into_batch().unwrap(), "doc_id"), ["d0"]);
    let filtered =
        table.search(&request("free", 5, Some("doc_id <> 'd4'")), &models()).await.unwrap().into_batch().unwrap();
    assert!(!strings(&filtered, "doc_id").contains(&"d4".to_owned()));
}

#[tokio::test]
async fn similar_rows_exclude_the_own_document() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let table = stored.open().await;
    let like = |doc_id: &str| SearchRequest {
        query: Query::Like { doc_id: doc_id.to_owned(), chunk: 0 },
        ..SearchRequest::text("", 5)
    };
    let found = strings(&table.search(&like("d1"), &Models::default()).await.unwrap().into_batch().unwrap(), "doc_id");
    assert!(found.len() == 2 && !found.contains(&"d1".to_owned()), "{found:?}");
    let missing = table.search(&like("it's not there"), &Models::default()).await.unwrap_err();
    assert!(missing.to_string().contains("it's not there"), "{missing}");
    for vector in [vec![0.5; DIM - 1], vec![f32::NAN; DIM]] {
        let wrong = SearchRequest { query: Query::Vector(vector), ..SearchRequest::text("", 5) };
        let error = table.search(&wrong, &Models::default()).await.unwrap_err();
        assert!(matches!(error, SearchError::Query(_)), "{error}");
    }
    let words = SearchRequest { mode: Some(SearchMode::Text), ..SearchRequest::text("x", 5) };
    let error = table.search(&words, &Models::default()).await.unwrap_err();
    assert!(matches!(error, SearchError::NoTextIndex { .. }), "{error}");
}

#[tokio::test]
async fn by_document_returns_one_hit_per_document() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..12).map(|i| format!("the same words, row {i}")).collect();
    stored.write(&texts).await;
    // Every row is a document of its own: there are as many hits as without `by_document`.
    let table = stored.open().await;
    let by_document = SearchRequest { by_document: true, ..request("the same words", 12, None) };
    let hits = table.search(&by_document, &models()).await.unwrap().into_batch().unwrap();
    let mut documents = strings(&hits, "doc_id");
    documents.sort();
    documents.dedup();
    assert_eq!(documents.len(), 12);
    let document = table.document("d3").await.unwrap();
    assert_eq!(strings(&document, "text"), ["the same words, row 3"]);
    assert_eq!(table.document("d99").await.unwrap().num_rows(), 0);
}

#[tokio::test]
async fn newer_opens_the_next_version() {
    let stored = TestTable::new();
    write_three(&stored).await;
    let table = stored.open().await;
    assert!(table.newer().await.unwrap().is_none());
    stored.write(&owned(&["one more"])).await;
    let newer = table.newer().await.unwrap().unwrap();
    assert_eq!((table.count_rows(None).await.unwrap(), newer.count_rows(None).await.unwrap()), (3, 4));
    assert_eq!(newer.count_rows(Some("lang = 'fra'")).await.unwrap(), 3);
    assert!(newer.version() > table.version());
}

#[tokio::test]
async fn tuning_finds_an_effort_with_enough_recall() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..600).map(|i| format!("w{} x{} y{}", i, i * 7, i * 13)).collect();
    stored.write(&texts).await;
    let refused = stored.open().await.tune(&TuneRequest::default()).await.unwrap_err();
    assert!(refused.to_string().contains("no index"), "{refused}");
    let spec = IndexSpec { kind: IndexKind::IvfPq, ..IndexSpec::default() };
    update_index(&stored.uri(), &spec).await.unwrap();
    let goal = TuneRequest { queries: 10, k: 5, recall: 0.9 };
    let tuning = stored.open().await.tune(&goal).await.unwrap();
    assert!(tuning.enough && tuning.best.recall >= 0.9, "{tuning:?}");
    assert!(tuning.tried.iter().all(|tried| tried.recall <= 1.0) && tuning.tried.contains(&tuning.best));
    let Effort { nprobes, refine, ef } = tuning.best.effort;
    set_search_params(&stored.uri(), nprobes, refine, ef).await.unwrap();
    let hits =
        stored.open().await.search(&request(&texts[77], 1, None), &models()).await.unwrap().into_batch().unwrap();
    assert_eq!(strings(&hits, "doc_id"), ["d77"]);
}

/// Few rows match the condition, and few partitions of the index are searched.
#[tokio::test]
async fn filtered_search_returns_k_hits_when_k_rows_match() {
    let stored = TestTable::new();
    let texts: Vec<_> = (0..600).map(|i| format!("w{} x{} y{}", i, i * 7, i * 13)).collect();
    stored.write(&texts).await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    let few = "doc_id IN ('d3', 'd77', 'd150', 'd222', 'd301', 'd399', 'd450', 'd512', 'd555', 'd598')";
    for kind in [IndexKind::IvfFlat, IndexKind::IvfPq, IndexKind::IvfHnswSq] {
        update_index(&stored.uri(), &IndexSpec { kind, ..IndexSpec::default() }).await.unwrap();
        let table = stored.open().await;
        for (mode, k, condition, hits) in [
            (SearchMode::Vector, 10, Some(few), 10),
            (SearchMode::Vector, 20, Some(few), 10),
            (SearchMode::Vector, 599, None, 599),
            (SearchMode::Hybrid, 10, Some(few), 10),
        ] {
            for by_document in [false, true] {
                let effort = Effort { nprobes: Some(1), refine: Some(1), ef: None };
                let request =
                    SearchRequest { mode: Some(mode), effort, by_document, ..request(&texts[5], k, condition) };
                let found = strings(&table.search(&request, &models()).await.unwrap().into_batch().unwrap(), "doc_id");
                let distinct: std::collections::HashSet<_> = found.iter().collect();
                assert_eq!((found.len(), distinct.len()), (hits, hits), "{kind:?} {mode} {k} {by_document}");
            }
        }
    }
}

#[tokio::test]
async fn row_of_one_ranking_gets_both_scores() {
    let stored = TestTable::new();
    // More rows contain the word than a ranking holds, and the row nearest to the query is the last of them.
    let mut texts: Vec<_> = (0..150).map(|i| format!("common w{i} x{} y{}", i * 7, i * 13)).collect();
    texts.push(format!("common {}", (0..40).map(|i| format!("z{i}")).collect::<Vec<_>>().join(" ")));
    stored.write(&texts).await;
    update_full_text_index(&stored.uri(), FullTextUpdate::Create).await.unwrap().unwrap();
    let hits =
        stored.open().await.search(&request("common", 120, None), &models()).await.unwrap().into_batch().unwrap();
    let number = |name: &str| hits.column_by_name(name).unwrap().as_primitive::<Float32Type>().clone();
    let ranks = |name: &str| hits.column_by_name(name).unwrap().null_count();
    assert!(ranks("vector_rank") + ranks("text_rank") < 240 && hits.num_rows() == 120);
    for (name, raw) in [("_distance", number("_distance")), ("bm25", number("bm25"))] {
        assert_eq!(raw.null_count(), 0, "{name}");
    }
    assert!(number("text_score").values().iter().all(|part| *part > 0.0));
}
