//! Unchanged files of sources with ids of texts or rows, and with SQL.

use std::fs;

use lance::Dataset;
use polylance_dataflow::SourceSpec;
use polylance_engine::Job;
use polylance_schema::OnMissing;
use polylance_tests::{Row, write_parquet};

use super::Corpus;

/// The line of a document without an id.
fn line(text: &str, url: &str) -> String {
    format!("{{\"text\": \"{text}\", \"url\": \"{url}\"}}")
}

impl Corpus {
    /// A corpus of files of lines.
    fn of_lines(files: &[(&str, &[String])]) -> Self {
        let corpus = Self::of(&[]);
        for (name, lines) in files {
            corpus.write_lines(name, lines);
        }
        corpus
    }

    fn write_lines(&self, name: &str, lines: &[String]) {
        self.write(name, &lines.iter().map(String::as_str).collect::<Vec<_>>(), 3600);
    }

    /// The job with these ids and without documents that are gone.
    fn job_with(&self, change: impl FnOnce(&mut SourceSpec)) -> Job {
        let mut job = Job { on_missing: OnMissing::Delete, ..self.job() };
        change(&mut job.source);
        job
    }
}

#[tokio::test]
async fn ids_of_texts_embed_an_equal_text_once_in_any_order() {
    let (one, two, three) = (line("one", "/1"), line("two", "/2"), line("three", "/3"));
    let files: [(&str, &[String]); 2] =
        [("a.jsonl", &[one.clone(), two.clone()]), ("b.jsonl", &[one.clone(), three.clone()])];
    let corpus = Corpus::of_lines(&files);
    let job = || corpus.job_with(|source| source.id = "@content".into());
    let first = corpus.run_as(job()).await;
    assert_eq!((first.rows_read, first.rows_written, first.rows_quarantined), (4, 3, 0));
    let again = corpus.run_as(job()).await;
    assert_eq!((again.source_unchanged, again.rows_written), (true, 0));

    // The same texts in other files, rows and an other order.
    fs::rename(corpus.path("docs/b.jsonl"), corpus.path("docs/0.jsonl")).unwrap();
    corpus.write("a.jsonl", &[two.as_str(), one.as_str(), two.as_str()], 1800);
    let reordered = corpus.run_as(job()).await;
    assert_eq!((reordered.rows_written, reordered.rows_quarantined, reordered.documents_removed), (0, 0, 0));
    assert_eq!(corpus.ids().await.len(), 3);

    // An unchanged file still has the text that another one loses.
    corpus.write("a.jsonl", &[two.as_str()], 900);
    let kept = corpus.run_as(job()).await;
    assert_eq!((kept.files_unchanged, kept.documents_removed, kept.rows_written), (1, 0, 0));
    fs::remove_file(corpus.path("docs/0.jsonl")).unwrap();
    let gone = corpus.run_as(job()).await;
    assert_eq!((gone.documents_removed, gone.removal_skipped), (2, None));
    let ids = corpus.ids().await;
    assert!(matches!(&ids[..], [id] if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())), "{ids:?}");
}

#[tokio::test]
async fn kept_columns_of_equal_texts_are_those_of_the_first_row() {
    let corpus = Corpus::of_lines(&[("a.jsonl", &[line("one", "/1")]), ("b.jsonl", &[line("one", "/2")])]);
    let job = || {
        corpus.job_with(|source| {
            source.id = "@content".into();
            source.keep = vec!["url".into()];
        })
    };
    let url = || async {
        let dataset = Dataset::open(corpus.path("docs.lance").to_str().unwrap()).await.unwrap();
        let rows = dataset.scan().project(&["url"]).unwrap().try_into_batch().await.unwrap();
        polylance_tests::strings(&rows, "url")
    };
    assert_eq!(corpus.run_as(job()).await.rows_written, 1);
    assert_eq!(url().await, ["/1"]);
    fs::remove_file(corpus.path("docs/a.jsonl")).unwrap();
    let next = corpus.run_as(job()).await;
    assert_eq!((next.rows_written, next.documents_removed), (1, 0), "another file has the text");
    assert_eq!(url().await, ["/2"]);
}

#[tokio::test]
async fn ids_of_files_and_rows_need_no_column() {
    let corpus =
        Corpus::of_lines(&[("a.jsonl", &[line("one", "/1"), line("one", "/2")]), ("b.jsonl", &[line("two", "/3")])]);
    let job = || corpus.job_with(|source| source.id = "@row".into());
    let first = corpus.run_as(job()).await;
    assert_eq!((first.rows_written, first.rows_quarantined), (3, 0), "equal texts are two documents");
    assert_eq!(corpus.ids().await, ["a.jsonl#0", "a.jsonl#1", "b.jsonl#0"]);
    assert!(corpus.run_as(job()).await.source_unchanged);
    corpus.write("b.jsonl", &[line("two", "/3").as_str(), line("three", "/4").as_str()], 1800);
    let next = corpus.run_as(job()).await;
    assert_eq!((next.files_unchanged, next.rows_skipped, next.rows_written), (1, 3, 1));
    corpus.write("a.jsonl", &[line("one", "/1").as_str()], 1800);
    let shorter = corpus.run_as(job()).await;
    assert_eq!((shorter.files_unchanged, shorter.documents_removed, shorter.rows_written), (1, 1, 0));
    assert_eq!(corpus.ids().await, ["a.jsonl#0", "b.jsonl#0", "b.jsonl#1"]);

    // The folder has another name: the rows of its files keep their ids.
    fs::rename(corpus.path("docs"), corpus.path("moved")).unwrap();
    let mut moved = job();
    moved.source.uri = corpus.path("moved").display().to_string();
    let moved = corpus.run_as(moved).await;
    assert_eq!((moved.rows_skipped, moved.rows_written, moved.documents_removed), (3, 0, 0));
}

#[tokio::test]
async fn texts_are_not_read_for_ids_of_rows_in_unchanged_files() {
    let corpus = Corpus::of(&[]);
    for name in ["a.parquet", "b.parquet"] {
        write_parquet(&corpus.path("docs").join(name), &[Row::new("1", format!("the text in {name}"))]);
        corpus.age(name, 3600);
    }
    let job = || corpus.job_with(|source| source.id = "@row".into());
    corpus.run_as(job()).await;
    let path = corpus.path("docs/a.parquet");
    let mut bytes = fs::read(&path).unwrap();
    let at = bytes.windows(11).position(|window| window == b"the text in").unwrap();
    bytes[at - 4..at + 11].fill(0xff);
    fs::write(&path, &bytes).unwrap();
    corpus.age("a.parquet", 3600);
    corpus.write("c.jsonl", &[line("three", "/3").as_str()], 60);
    let next = corpus.run_as(job()).await;
    assert_eq!((next.files_unchanged, next.rows_skipped, next.rows_written, next.documents_removed), (2, 2, 1, 0));
}

#[tokio::test]
async fn changed_expression_or_condition_is_noticed() {
    let corpus =
        Corpus::of_lines(&[("a.jsonl", &[line("one", "/1"), line("two", "/2")]), ("b.jsonl", &[line("three", "/3")])]);
    let job = |text: &str, condition: Option<&str>| {
        corpus.job_with(|source| {
            source.id = "url".into();
            source.text = text.into();
            source.condition = condition.map(str::to_owned);
        })
    };
    let run = |text: &'static str, condition| corpus.run_as(job(text, condition));
    let all = run("upper(text)", None).await;
    assert_eq!((all.rows_read, all.rows_written), (3, 3));
    let again = run("upper(text)", None).await;
    assert_eq!((again.source_unchanged, again.rows_written), (true, 0));
    let fewer = run("upper(text)", Some("url <> '/2'")).await;
    assert_eq!(
        (fewer.source_unchanged, fewer.rows_read, fewer.rows_skipped, fewer.documents_removed),
        (false, 2, 2, 1)
    );
    assert!(run("upper(text)", Some("url <> '/2'")).await.source_unchanged);
    let other = run("text || '!'", Some("url <> '/2'")).await;
    assert_eq!((other.source_unchanged, other.rows_written), (false, 2));
    // Of an unchanged file, the id and the condition are computed.
    corpus.write("b.jsonl", &[line("four", "/4").as_str()], 1800);
    let next = run("text || '!'", Some("url <> '/2'")).await;
    assert_eq!((next.files_unchanged, next.rows_read, next.rows_written, next.documents_removed), (1, 2, 1, 1));
    assert_eq!(corpus.ids().await, ["/1", "/4"]);
}

#[tokio::test]
async fn types_of_inputs_are_decided_once() {
    let numbered = |n: &str| format!("{{\"text\": \"text {n}\", \"n\": {n}}}");
    let corpus = Corpus::of_lines(&[("a.jsonl", &[numbered("1"), numbered("2")])]);
    let job = || {
        corpus.job_with(|source| {
            source.id = "@row".into();
            source.condition = Some("n / 2 > 0".into());
        })
    };
    assert_eq!(corpus.run_as(job()).await.rows_written, 1, "whole numbers are divided");
    corpus.write("b.jsonl", &[numbered("1.5").as_str(), numbered("4").as_str()], 1800);
    let next = corpus.run_as(job()).await;
    assert_eq!((next.rows_written, next.rows_quarantined), (1, 1));
    let ids = ["a.jsonl#1", "b.jsonl#1"];
    assert_eq!(corpus.ids().await, ids, "a new file does not change the rows of others");
    let mut other = job();
    other.source.condition = Some("n / 2 > 0.0".into());
    assert_eq!(corpus.run_as(other).await.rows_read, 4, "other SQL has types of its own");
}

#[tokio::test]
async fn condition_on_a_column_that_all_files_lost_ends_the_run() {
    let of = |column: &str, text: &str| format!("{{\"text\": \"{text}\", \"{column}\": \"fr\"}}");
    let corpus = Corpus::of_lines(&[("a.jsonl", &[of("lang", "one")])]);
    let job = || {
        corpus.job_with(|source| {
            source.id = "@row".into();
            source.condition = Some("lang = 'fr'".into());
        })
    };
    assert_eq!(corpus.run_as(job()).await.rows_written, 1);
    corpus.write("a.jsonl", &[of("language", "one").as_str()], 1800);
    let error = format!("{:?}", corpus.try_run(job()).await.unwrap_err());
    assert!(error.contains("there is no column `lang`"), "{error}");
    assert_eq!(corpus.ids().await, ["a.jsonl#0"], "no document is deleted");

    // A later file has the column.
    corpus.write("b.jsonl", &[of("lang", "two").as_str()], 900);
    let next = corpus.run_as(job()).await;
    assert_eq!((next.rows_written, next.documents_removed), (1, 1));
    assert_eq!(corpus.ids().await, ["b.jsonl#0"]);
}

#[tokio::test]
async fn types_of_inputs_are_recorded_for_a_file_with_a_quarantined_row() {
    let numbered = |n: &str| format!("{{\"text\": \"text {n}\", \"n\": {n}}}");
    let empty = "{\"text\": \"\", \"n\": 4}".to_owned();
    let corpus = Corpus::of_lines(&[("a.jsonl", &[numbered("1"), numbered("2"), empty])]);
    let job = || {
        corpus.job_with(|source| {
            source.id = "@row".into();
            source.condition = Some("n / 2 > 0".into());
        })
    };
    let first = corpus.run_as(job()).await;
    assert_eq!((first.rows_written, first.rows_quarantined), (1, 1));
    let again = corpus.run_as(job()).await;
    assert_eq!((again.source_unchanged, again.version), (false, first.version), "the types are recorded once");
    corpus.write("b.jsonl", &[numbered("1.5").as_str(), numbered("4").as_str()], 1800);
    let next = corpus.run_as(job()).await;
    assert_eq!((next.rows_written, next.rows_quarantined), (1, 2), "whole numbers are divided");
    assert_eq!(corpus.ids().await, ["a.jsonl#1", "b.jsonl#1"]);
}
