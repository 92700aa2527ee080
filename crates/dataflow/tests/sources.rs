//! Sources in the wild: odd names, links, empty files, web servers of every kind, files that change.

mod web;

use std::{
    fs::{self, File},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use arrow::array::{Array, AsArray, RecordBatch, StringArray};
use chrono::Utc;
use datafusion::{
    execution::TaskContext,
    physical_plan::{ExecutionPlan, collect},
};
use futures::StreamExt;
use parquet::{arrow::ArrowWriter, file::properties::WriterProperties};
use polylance_dataflow::{Source, SourceError, SourceScanExec, SourceSpec};
use polylance_schema::Explain;
use polylance_schema::columns::{DOC_ID, ERROR, TEXT};
use web::{Answers, Web, http_date};

fn spec(uri: &str) -> SourceSpec {
    SourceSpec { max_bytes: 1 << 20, ..SourceSpec::new(uri) }
}

async fn open(uri: &str) -> Result<Source, SourceError> {
    Source::open(spec(uri)).await
}

async fn scan(source: Source) -> Result<Vec<RecordBatch>, SourceError> {
    let scan: Arc<dyn ExecutionPlan> = Arc::new(SourceScanExec::new(source));
    collect(scan, Arc::new(TaskContext::default())).await.map_err(|error| match error.find_root() {
        datafusion::error::DataFusionError::External(error) => match error.downcast_ref() {
            Some(SourceError::Changed { file }) => SourceError::Changed { file: file.clone() },
            _ => panic!("{error}"),
        },
        other => panic!("{other}"),
    })
}

/// The ids of the good rows, and the errors of the others.
fn split(batches: &[RecordBatch]) -> (Vec<String>, Vec<String>) {
    let (mut ids, mut errors) = (Vec::new(), Vec::new());
    for batch in batches {
        let messages = batch[ERROR].as_struct();
        for row in 0..batch.num_rows() {
            if messages.is_valid(row) {
                errors.push(messages.column(1).as_string::<i32>().value(row).to_owned());
            } else {
                ids.push(batch[DOC_ID].as_string::<i32>().value(row).to_owned());
            }
        }
    }
    (ids, errors)
}

async fn read(uri: &str) -> (Vec<String>, Vec<String>) {
    split(&scan(open(uri).await.unwrap()).await.unwrap())
}

fn line(id: &str) -> String {
    format!("{{\"id\":\"{id}\",\"text\":\"of {id}\"}}\n")
}

fn parquet(rows: usize, tag: &str, properties: Option<WriterProperties>) -> Vec<u8> {
    let ids = StringArray::from_iter_values((0..rows).map(|n| format!("{tag}{n}")));
    let texts = StringArray::from_iter_values((0..rows).map(|n| format!("text {n} of {tag}")));
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as _), ("text", Arc::new(texts) as _)]).unwrap();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), properties).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn empty_text_files_have_no_rows_and_no_errors() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let gzip_of_nothing = b"\x1f\x8b\x08\0\0\0\0\0\0\x03\x03\0\0\0\0\0\0\0\0\0";
    for (name, content) in [
        ("part-0.json", &b""[..]),
        ("part-1.json", b"\xef\xbb\xbf\r\n \n\n"),
        ("part-2.json", line("a").as_bytes()),
        ("part-3.json.gz", gzip_of_nothing),
        ("part-4", b""),
        ("part-5.csv", b"\n"),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, content).unwrap();
        age(&path, 60);
    }
    assert_eq!(read(root).await, (vec!["a".to_owned()], vec![]));
    let source = open(root).await.unwrap();
    assert!(source.fingerprint(Utc::now()).is_some());
    assert_eq!(source.fingerprints(Utc::now()).count(), 6);

    fs::write(folder.path().join("part-6.parquet"), b"").unwrap();
    fs::write(folder.path().join("part-7.arrow"), b"").unwrap();
    let (ids, errors) = read(root).await;
    assert_eq!((ids.len(), errors.len()), (1, 2), "a file of these formats is never empty: {errors:?}");
    assert!(errors.iter().all(|error| error.contains("the file is empty")), "{errors:?}");

    let alone = open(&format!("{root}/part-0.json")).await.unwrap_err();
    assert!(alone.to_string().contains("the file is empty"), "{alone}");
}

fn age(path: &Path, seconds: u64) {
    let file = File::options().append(true).open(path).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(seconds)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_exists_is_not_a_glob() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().to_str().unwrap();
    let names =
        ["notes [2024].jsonl", "set {a}.jsonl", "what is it?.jsonl", "a*b.jsonl", "corpus [v2]/x.jsonl", "n2.jsonl"];
    fs::create_dir(folder.path().join("corpus [v2]")).unwrap();
    for name in names {
        fs::write(folder.path().join(name), line(name)).unwrap();
    }
    for name in names {
        assert_eq!(read(&format!("{root}/{name}")).await.0, [name]);
        assert_eq!(read(&format!("file://{root}/{name}")).await.0, [name]);
    }
    for (glob, found) in [
        ("corpus [v2]", vec!["corpus [v2]/x.jsonl"]),
        ("corpus [v2]/*.jsonl", vec!["corpus [v2]/x.jsonl"]),
        ("notes [[]2024[]].jsonl", vec!["notes [2024].jsonl"]),
        ("n[0-9].jsonl", vec!["n2.jsonl"]),
    ] {
        assert_eq!(read(&format!("{root}/{glob}")).await.0, found, "{glob}");
    }
    let error = open(&format!("{root}/none [2024].jsonl")).await.unwrap_err();
    assert!(matches!(error, SourceError::NotFound { .. }) && error.hint().unwrap().contains("`[[]`"), "{error}");
    let error = open(&format!("{root}/none")).await.unwrap_err();
    assert!(!error.hint().unwrap().contains("glob"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn links_are_followed_and_each_file_is_read_once() {
    use std::os::unix::fs::symlink;

    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    for name in ["blobs", "snapshots", "snapshots/abc", "loop", "loop/in", "twins", "twins/a", "outside"] {
        fs::create_dir(at(name)).unwrap();
    }
    fs::write(at("blobs/5f3a"), line("blob")).unwrap();
    symlink("../../blobs/5f3a", at("snapshots/abc/docs.jsonl")).unwrap();
    fs::write(at("loop/in/docs.jsonl"), line("loop")).unwrap();
    for (target, link) in [("..", "loop/in/up"), ("../..", "loop/in/far"), ("self", "loop/self"), ("gone", "loop/gone")]
    {
        symlink(target, at(link)).unwrap();
    }
    fs::write(at("twins/a/x.jsonl"), line("twin")).unwrap();
    fs::write(at("outside/y.jsonl"), line("outside")).unwrap();
    for (target, link) in
        [("a", "twins/0"), ("a/x.jsonl", "twins/y.jsonl"), ("../outside", "twins/1"), ("../outside", "twins/2")]
    {
        symlink(target, at(link)).unwrap();
    }
    for (root, ids) in [
        ("snapshots/abc", vec!["blob"]),
        ("snapshots/abc/docs.jsonl", vec!["blob"]),
        ("loop", vec!["loop"]),
        ("twins", vec!["outside", "twin"]),
        ("twins/0/*.jsonl", vec!["twin"]),
        ("twins/2*/*.jsonl", vec!["outside"]),
        ("", vec!["blob", "loop", "outside", "twin"]),
    ] {
        assert_eq!(
            read(at(root).to_str().unwrap()).await,
            (ids.iter().map(|&id| id.into()).collect(), vec![]),
            "{root}"
        );
    }
    let notes = open(at("loop").to_str().unwrap()).await.unwrap().notes().to_vec();
    assert_eq!(notes.len(), 4, "{notes:?}");
    assert!(notes.iter().any(|note| note.contains("loop/in/up") && note.contains("above")), "{notes:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_is_not_utf8_costs_itself_and_other_odd_names_nothing() {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

    let folder = tempfile::tempdir().unwrap();
    for name in ["a\nb.jsonl", "x#1", "100%.jsonl", "\u{7f}.jsonl"] {
        fs::write(folder.path().join(name), line(name.trim_end_matches(".jsonl").trim()))
            .unwrap_or_else(|e| panic!("{e}"));
    }
    fs::write(folder.path().join("a\nb.jsonl"), line("ab")).unwrap();
    fs::write(folder.path().join("\u{7f}.jsonl"), line("del")).unwrap();
    fs::write(folder.path().join(OsStr::from_bytes(b"caf\xe9.jsonl")), line("latin")).unwrap();
    let source = open(folder.path().to_str().unwrap()).await.unwrap();
    assert_eq!(source.fingerprint(Utc::now()), None, "a run must look at it again");
    let (ids, errors) = split(&scan(source).await.unwrap());
    assert_eq!(ids, ["100%", "ab", "x#1", "del"]);
    assert!(matches!(&errors[..], [error] if error.contains("not UTF-8")), "{errors:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_changes_while_it_is_read_is_an_error_and_not_a_mixture() {
    let folder = tempfile::tempdir().unwrap();
    let lines = |tag: &str| (0..5000).map(|n| line(&format!("{tag}{n:04}"))).collect::<String>();
    for (name, old, new) in [
        ("a.jsonl", lines("a").into_bytes(), lines("b").into_bytes()),
        ("a.parquet", parquet(5000, "a", None), parquet(5000, "b", None)),
    ] {
        let path = folder.path().join(name);
        fs::write(&path, &old).unwrap();
        age(&path, 60);
        let source = open(path.to_str().unwrap()).await.unwrap();
        let scan_of =
            |source: Source| SourceScanExec::new(source).execute(0, Arc::new(TaskContext::default())).unwrap();

        let mut rows = scan_of(source.clone());
        let first = rows.next().await.unwrap().unwrap();
        assert!(first[DOC_ID].as_string::<i32>().iter().flatten().all(|id| id.starts_with('a')));
        // Written in place, as by a copy.
        fs::write(&path, &new).unwrap();
        let rest: Vec<_> = rows.collect().await;
        let error = rest.iter().find_map(|batch| batch.as_ref().err()).expect("the file changed").to_string();
        assert!(error.contains("changed while it was read"), "{error}");
        for batch in rest.iter().flatten() {
            assert!(batch[DOC_ID].as_string::<i32>().iter().flatten().all(|id| id.starts_with('a')), "{name}");
            assert_eq!(batch[ERROR].null_count(), batch.num_rows(), "no good row is refused");
        }
        // Replaced between the listing and the reading, or removed.
        assert!(matches!(scan(source.clone()).await, Err(SourceError::Changed { .. })), "{name}");
        fs::remove_file(&path).unwrap();
        assert!(matches!(scan(source).await, Err(SourceError::Changed { .. })), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_text_that_many_rows_share_makes_batches_small() {
    let folder = tempfile::tempdir().unwrap();
    let long = "licence ".repeat(400_000);
    let ids = StringArray::from_iter_values((0..60).map(|n| n.to_string()));
    let texts = StringArray::from_iter_values((0..60).map(|n| if n % 12 == 0 { "short" } else { long.as_str() }));
    let batch = RecordBatch::try_from_iter([("id", Arc::new(ids) as _), ("text", Arc::new(texts) as _)]).unwrap();
    for (name, statistics) in [("with.parquet", true), ("without.parquet", false)] {
        let path = folder.path().join(name);
        let properties = WriterProperties::builder()
            .set_dictionary_page_size_limit(16 << 20)
            .set_statistics_enabled(if statistics {
                parquet::file::properties::EnabledStatistics::Page
            } else {
                parquet::file::properties::EnabledStatistics::None
            })
            .build();
        let mut writer = ArrowWriter::try_new(File::create(&path).unwrap(), batch.schema(), Some(properties)).unwrap();
        writer.write(&batch).unwrap();
        writer.close().unwrap();
        let mut rows = SourceScanExec::new(open(path.to_str().unwrap()).await.unwrap())
            .execute(0, Arc::new(TaskContext::default()))
            .unwrap();
        let (mut most, mut all) = (0, Vec::new());
        while let Some(batch) = rows.next().await {
            let batch = batch.unwrap();
            most = most.max(batch.num_rows());
            all.push(batch);
        }
        assert!(most <= 20, "64 MiB hold 20 of these texts, and a batch had {most}");
        let (ids, errors) = split(&all);
        assert_eq!(ids, ["0", "12", "24", "36", "48"], "{name}");
        assert_eq!(errors.len(), 55);
        assert!(errors.iter().all(|error| error.contains("max_bytes")), "{}", errors[0]);
    }
    // Without repeated texts batches have their usual size.
    let path = folder.path().join("usual.parquet");
    fs::write(&path, parquet(3000, "a", None)).unwrap();
    let batches = scan(open(path.to_str().unwrap()).await.unwrap()).await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).collect::<Vec<_>>(), [1024, 1024, 952]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_the_web_has_a_fingerprint_only_if_every_change_shows() {
    let tag = |tag: &str| ("etag", tag.to_owned());
    let modified = |ago| ("last-modified", http_date(ago));
    // The server's clock is an hour behind: this machine's clock must not matter.
    let date = || ("date", http_date(3600));
    for (headers, known) in [
        (vec![], false),
        (vec![date()], false),
        (vec![tag("\"abc\"")], true),
        (vec![tag("\"abc\""), date()], true),
        (vec![tag("W/\"abc\""), date()], false),
        (vec![tag("W/\"abc\""), modified(3600 + 600), date()], true),
        (vec![tag("\"5f-2a\""), modified(3600 + 60), date()], true),
        (vec![tag("\"5f-2a\""), modified(3600 + 1), date()], false),
        (vec![modified(3600 + 600), date()], true),
        (vec![modified(3600 + 60), date()], false),
        (vec![modified(3600 + 600)], false),
    ] {
        let answers = Answers { headers: headers.clone(), ..Answers::default() };
        let web = Web::start(move |_| answers.clone());
        let source = open(&format!("{}/docs.jsonl", web.address)).await.unwrap();
        let now = Utc::now();
        assert_eq!(source.fingerprint(now).is_some(), known, "{headers:?}");
        assert_eq!(source.fingerprints(now).count(), usize::from(known), "{headers:?}");
        let is_strong = headers.iter().any(|(name, value)| *name == "etag" && value.starts_with('"'));
        assert_eq!(source.notes().len(), usize::from(!known && !is_strong), "{:?}", source.notes());
        assert_eq!(split(&scan(source).await.unwrap()).0, ["a"], "{headers:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_without_ranges_or_lengths_or_behind_proxies_are_read() {
    let many: String = (0..3000).map(|n| line(&n.to_string())).collect();
    let mut gzip = Vec::new();
    {
        use async_compression::tokio::bufread::GzipEncoder;
        use tokio::io::AsyncReadExt;
        GzipEncoder::new(many.as_bytes()).read_to_end(&mut gzip).await.unwrap();
    }
    let encoding = vec![("content-encoding", "gzip".to_owned())];
    for (content, headers) in [(many.clone().into_bytes(), vec![]), (gzip, encoding), (parquet(3000, "", None), vec![])]
    {
        for (ranges, length) in [(true, true), (false, true), (false, false)] {
            for tag in [None, Some(("etag", "\"x\"".to_owned())), Some(("etag", "W/\"x\"".to_owned()))] {
                let headers = headers.iter().cloned().chain(tag).collect();
                let answers = Answers { content: content.clone(), headers, ranges, length, ..Answers::default() };
                let web = Web::start(move |_| answers.clone());
                let (ids, errors) = read(&format!("{}/docs", web.address)).await;
                assert_eq!((ids.len(), errors), (3000, vec![]), "{ranges} {length}");
            }
        }
    }
    let web = Web::start(|_| Answers { content: vec![], ..Answers::default() });
    let error = open(&format!("{}/docs.jsonl", web.address)).await.unwrap_err();
    assert!(error.to_string().contains("the file is empty"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_on_the_web_that_changes_while_it_is_read_is_an_error_and_not_a_mixture() {
    let properties = || Some(WriterProperties::builder().set_max_row_group_row_count(Some(500)).build());
    let (old, new) = (parquet(4000, "a", properties()), parquet(4000, "b", properties()));
    assert_eq!(old.len(), new.len());
    let named = |tag: &str| vec![("etag", format!("\"{tag}\""))];
    let stated = |ago: i64| vec![("last-modified", http_date(ago))];
    for headers in [[named("a"), named("b")], [stated(100), stated(50)]] {
        for change in 1..9 {
            let (contents, headers) = ([old.clone(), new.clone()], headers.clone());
            let web = Web::start(move |request| {
                let at = usize::from(request >= change);
                Answers { content: contents[at].clone(), headers: headers[at].clone(), ..Answers::default() }
            });
            let scanned = match open(&format!("{}/d.parquet", web.address)).await {
                Ok(source) => scan(source).await,
                Err(error) => Err(error),
            };
            match scanned {
                Err(SourceError::Changed { file }) => assert!(file.ends_with("/d.parquet")),
                Err(error) => panic!("{change}: {error}"),
                Ok(batches) => {
                    // The file was read whole before the change.
                    let (ids, errors) = split(&batches);
                    assert_eq!((ids.len(), errors), (4000, vec![]));
                    assert!(ids.iter().all(|id| id.starts_with('a')), "{change}");
                }
            }
        }
    }
    // A file of which only the size can be compared is read in one request.
    for change in 1..9 {
        let contents = [old.clone(), new.clone()];
        let web = Web::start(move |request| Answers {
            content: contents[usize::from(request >= change)].clone(),
            ..Answers::default()
        });
        let batches = scan(open(&format!("{}/d.parquet", web.address)).await.unwrap()).await.unwrap();
        for batch in &batches {
            let (ids, texts) = (batch[DOC_ID].as_string::<i32>(), batch[TEXT].as_string::<i32>());
            for (id, text) in ids.iter().flatten().zip(texts.iter().flatten()) {
                assert_eq!(format!("text {} of {}", &id[1..], &id[..1]), text, "{change}");
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_url_keeps_its_query_and_no_message_has_it() {
    let web = Web::start(|_| Answers { headers: vec![("etag", "\"x\"".to_owned())], ..Answers::default() });
    let path = "/bucket/a%20b//d%C3%A9.jsonl";
    let source = open(&format!("{}{path}?X-Sig=abc%2B%2F%3D&x=1#part", web.address)).await.unwrap();
    let shown = format!("{:?}", source.fingerprints(Utc::now()).collect::<Vec<_>>());
    let batches = scan(source).await.unwrap();
    assert_eq!(split(&batches).0, ["a"]);
    let requests = web.requests();
    let expected = format!("GET {path}?X-Sig=abc%2B%2F%3D&x=1 HTTP/1.1");
    assert!(requests.len() >= 3 && requests.iter().all(|request| request.starts_with(&expected)), "{requests:?}");
    assert!(!shown.contains("X-Sig") && shown.contains(path), "{shown}");
    assert!(batches.iter().all(|batch| !format!("{batch:?}").contains("X-Sig")));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hint_for_a_web_server_that_refuses_names_no_keys() {
    for (status, part) in
        [(403, "signed URL may have expired"), (401, "signed URL"), (404, "web server"), (410, "host")]
    {
        let web = Web::start(move |_| Answers { refuses: Some(status), ..Answers::default() });
        let error = open(&format!("{}/docs.jsonl?X-Sig=abc", web.address)).await.unwrap_err();
        let (said, hint) =
            (format!("{error} {:?}", std::error::Error::source(&error).map(ToString::to_string)), error.hint());
        let hint = hint.unwrap();
        assert!(hint.contains(part) && !hint.contains("AWS") && !hint.contains("region"), "{status}: {hint}");
        assert!(!said.contains("X-Sig") && said.contains("/docs.jsonl"), "{said}");
    }
}
