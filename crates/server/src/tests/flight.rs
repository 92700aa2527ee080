//! Arrow Flight SQL, over a port.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arrow::{
    array::{ArrayRef, AsArray, DictionaryArray, Int64Array, LargeStringArray, RecordBatch, StringArray},
    datatypes::{DataType, Int32Type},
    util::pretty::pretty_format_batches,
};
use arrow_flight::{
    FlightInfo, Ticket,
    sql::{
        CommandGetCrossReference, CommandGetExportedKeys, CommandGetImportedKeys, CommandGetPrimaryKeys,
        CommandGetXdbcTypeInfo, client::FlightSqlServiceClient,
    },
};
use datafusion::common::runtime::SpawnedTask;
use futures::{StreamExt, TryStreamExt, future::pending};
use tempfile::TempDir;
use tonic::{
    Code, Status,
    transport::{Channel, Endpoint},
};

use super::{TOKEN, batch, models, uri, write};
use crate::{Limits, Server, ServerOptions, TokenHash};

struct Served {
    folder: TempDir,
    url: String,
    http: SocketAddr,
    _running: SpawnedTask<()>,
}

async fn serve(limits: Limits, tokens: Vec<TokenHash>) -> Served {
    serve_rows(batch().await, limits, tokens).await
}

/// A foreign table with types that Flight sends as other types.
fn packed() -> RecordBatch {
    let words: DictionaryArray<Int32Type> = [Some("one"), None, Some("one")].into_iter().collect();
    let columns: [(&str, ArrayRef); 3] = [
        ("doc_id", Arc::new(StringArray::from(vec!["a", "b", "c"]))),
        ("word", Arc::new(words)),
        ("wide", Arc::new(LargeStringArray::from(vec!["x", "y", "z"]))),
    ];
    RecordBatch::try_from_iter_with_nullable(columns.map(|(name, column)| (name, column, true))).unwrap()
}

async fn serve_rows(batch: RecordBatch, limits: Limits, tokens: Vec<TokenHash>) -> Served {
    let folder = TempDir::new().unwrap();
    write(&folder, batch, lance::dataset::WriteMode::Create).await;
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let options = ServerOptions { listen: any, flight: Some(any), tokens, limits, ..ServerOptions::default() };
    let tables = [("docs".to_owned(), uri(&folder))];
    let server = Box::pin(Server::bind(options, &tables, models())).await.unwrap();
    let url = server.flight_url().unwrap().unwrap().replace("grpc://", "http://");
    let http = server.url().unwrap().strip_prefix("http://").unwrap().parse().unwrap();
    let running = async move { Box::pin(server.run(pending())).await.unwrap() };
    Served { folder, url, http, _running: SpawnedTask::spawn(running) }
}

impl Served {
    async fn client(&self) -> FlightSqlServiceClient<Channel> {
        FlightSqlServiceClient::new(Endpoint::from_shared(self.url.clone()).unwrap().connect().await.unwrap())
    }

    /// Asserts that the text does not reveal the folders of the table and the model.
    fn assert_redacted(&self, text: &str) {
        let folder = self.folder.path().display().to_string();
        for secret in [folder.as_str(), folder.trim_start_matches('/'), "/secret/folder", ".cargo/"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }

    async fn metrics(&self) -> String {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(self.http).await.unwrap();
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        text
    }
}

fn ticket(info: &FlightInfo) -> Ticket {
    info.endpoint[0].ticket.clone().unwrap()
}

async fn rows(client: &mut FlightSqlServiceClient<Channel>, sql: &str) -> Result<Vec<RecordBatch>, Status> {
    let info = client.execute(sql.to_owned(), None).await?;
    let announced = info.clone().try_decode_schema().unwrap();
    let batches: Vec<RecordBatch> = client.do_get(ticket(&info)).await?.try_collect().await?;
    for batch in &batches {
        assert_eq!(batch.schema().as_ref(), &announced, "{sql}");
    }
    Ok(batches)
}

#[tokio::test]
async fn rows_have_the_announced_schema() {
    let served = serve(Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    for (sql, expected) in [
        ("SELECT * FROM docs", 6),
        ("SELECT count(*) AS n, max(rating), min(lang) FROM docs", 1),
        ("SELECT upper(text), concat(lang, '-', doc_id), chunk + 1, NULL AS nothing FROM docs", 6),
        ("SELECT a.doc_id, b.topic FROM docs a LEFT JOIN docs b ON a.doc_id = b.doc_id AND b.lang = 'x'", 6),
        ("SELECT doc_id, score FROM vector_search('docs', 'right to life', 3)", 3),
        ("SELECT doc_id FROM docs ORDER BY cosine_similarity(embedding, embed('life')) DESC LIMIT 2", 2),
        ("SELECT label, \"start\" FROM spans('docs', 'entities')", 6),
        ("SELECT count(*) FROM docs WHERE false", 1),
        ("SELECT doc_id FROM docs WHERE false", 0),
        ("VALUES (1, 'a'), (2, NULL)", 2),
        ("SELECT CAST(chunk AS TEXT) AS c, make_array(chunk) AS l FROM docs", 6),
    ] {
        let batches = rows(&mut client, sql).await.unwrap_or_else(|status| panic!("{sql}: {status}"));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{sql}");
    }
    for sql in ["EXPLAIN SELECT * FROM docs", "SHOW ALL", "DESCRIBE docs", "SELECT * FROM information_schema.tables"] {
        let batches = rows(&mut client, sql).await.unwrap_or_else(|status| panic!("{sql}: {status}"));
        let shown = pretty_format_batches(&batches).unwrap().to_string();
        served.assert_redacted(&shown);
        assert!(!shown.contains("docs.lance"), "{shown}");
    }
    let counted = served.metrics().await;
    assert!(counted.contains(r#"polylance_flight_calls_total{call="DoGet",code="Ok"} 15"#), "{counted}");
    assert!(counted.contains(r#"polylance_connections{protocol="flight"} 1"#), "{counted}");
}

#[tokio::test]
async fn columns_of_a_foreign_table_have_the_announced_types() {
    let served = serve_rows(packed(), Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    for (sql, expected) in [
        ("SELECT * FROM docs", 3),
        ("SELECT make_array(word) AS l FROM docs", 3),
        ("SELECT word, count(*) AS n FROM docs GROUP BY word", 2),
        ("SELECT DISTINCT word FROM docs WHERE word = 'one'", 1),
    ] {
        let batches = rows(&mut client, sql).await.unwrap_or_else(|status| panic!("{sql}: {status}"));
        assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), expected, "{sql}");
    }
    let words = rows(&mut client, "SELECT word FROM docs ORDER BY doc_id").await.unwrap();
    let words: Vec<_> = words.iter().flat_map(|batch| batch.column(0).as_string::<i32>().iter()).collect();
    assert_eq!(words, [Some("one"), None, Some("one")]);
}

#[tokio::test]
async fn the_row_limit_of_http_does_not_apply() {
    let served = serve(Limits { max_rows: 10, max_response_bytes: 100, ..Limits::default() }, Vec::new()).await;
    let batches = rows(&mut served.client().await, "SELECT * FROM generate_series(1, 100000)").await.unwrap();
    assert_eq!(batches.iter().map(RecordBatch::num_rows).sum::<usize>(), 100_000);
}

#[tokio::test]
async fn statements_that_http_refuses_are_refused() {
    let served = serve(Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    for sql in [
        "DELETE FROM docs",
        "INSERT INTO docs SELECT * FROM docs",
        "COPY docs TO '/tmp/never.parquet'",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "SET datafusion.execution.batch_size = 1",
        "SELECT repeat('x', 1000000000)",
        "SELECT 1; SELECT 2",
        "SELECT $4000000000",
        &format!("SELECT 1{}", "+1".repeat(50_000)),
        "SELECT * FROM '/etc/passwd'",
        "SELECT nothing FROM docs",
        "",
    ] {
        let status = rows(&mut client, sql).await.unwrap_err();
        served.assert_redacted(status.message());
        let prepared = client.prepare(sql.to_owned(), None).await.err();
        assert!(prepared.is_some(), "{sql} was prepared");
    }
    let stranger = client.do_get(Ticket::new("not a ticket of this server")).await;
    assert!(stranger.is_err());
    // The server still answers.
    assert_eq!(rows(&mut client, "SELECT 1").await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn a_prepared_statement_can_run_repeatedly() {
    let served = serve(Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    let mut statement = client.prepare("SELECT count(*) FROM docs".to_owned(), None).await.unwrap();
    assert_eq!(statement.dataset_schema().unwrap().fields().len(), 1);
    for _ in 0..2 {
        let info = statement.execute().await.unwrap();
        let batches: Vec<RecordBatch> = client.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
        assert_eq!(batches[0].num_rows(), 1);
    }
    statement.close().await.unwrap();
}

#[tokio::test]
async fn a_prepared_statement_accepts_values() {
    let served = serve(Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    let text = |text: &str| Arc::new(StringArray::from(vec![text])) as ArrayRef;
    let number = |number: i64| Arc::new(Int64Array::from(vec![number])) as ArrayRef;
    for (sql, columns, types, values, expected) in [
        (
            "SELECT doc_id FROM docs WHERE lang = $1 AND chunk < $2 ORDER BY doc_id LIMIT 1",
            1,
            vec![DataType::Utf8, DataType::UInt32],
            [vec![text("fra"), number(1)], vec![text("'; DROP TABLE docs"), number(1)]],
            [Some("d2"), None],
        ),
        (
            "SELECT doc_id FROM vector_search('docs', ?, ?)",
            0,
            vec![DataType::Utf8, DataType::Utf8],
            [
                vec![text("everyone has the right to life"), number(1)],
                vec![text("jeder hat das Recht auf Leben"), number(3)],
            ],
            [Some("d1"), Some("d3")],
        ),
    ] {
        let mut statement = client.prepare(sql.to_owned(), None).await.unwrap();
        assert_eq!(statement.dataset_schema().unwrap().fields().len(), columns, "{sql}");
        let found: Vec<_> =
            statement.parameter_schema().unwrap().fields().iter().map(|f| f.data_type().clone()).collect();
        assert_eq!(found, types, "{sql}");
        let unbound = statement.execute().await.unwrap_err().to_string();
        assert!(unbound.contains("values for 2 parameters are missing"), "{unbound}");
        for (values, expected) in values.into_iter().zip(expected) {
            let values = RecordBatch::try_from_iter(["1", "2"].into_iter().zip(values)).unwrap();
            statement.set_parameters(values).unwrap();
            let info = statement.execute().await.unwrap();
            let batches: Vec<RecordBatch> = client.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
            let first = batches.iter().find(|batch| batch.num_rows() > 0);
            let first = first.map(|batch| batch.column(0).as_string::<i32>().value(0).to_owned());
            assert_eq!(first.as_deref(), expected, "{sql}");
        }
    }
    // A statement with parameters is checked as well.
    let refused = client.prepare("DELETE FROM docs WHERE doc_id = $1".to_owned(), None).await;
    assert!(refused.is_err());
}

#[tokio::test]
async fn a_prepared_statement_announces_the_schema_of_its_rows() {
    let served = serve_rows(packed(), Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    let sql = "SELECT word AS w, make_array(word) AS l FROM docs";
    let mut prepared = client.prepare(sql.to_owned(), None).await.unwrap();
    let announced = prepared.dataset_schema().unwrap().clone();
    assert_eq!(announced.field(0).data_type(), &DataType::Utf8);
    let info = prepared.execute().await.unwrap();
    let batches: Vec<RecordBatch> = client.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
    assert!(batches.iter().all(|batch| batch.schema().as_ref() == &announced), "{announced}");
    assert_eq!(info.try_decode_schema().unwrap(), announced);
}

#[tokio::test]
async fn keys_and_types_have_the_columns_of_the_protocol() {
    let served = serve(Limits::default(), Vec::new()).await;
    let mut client = served.client().await;
    let read = async |info: FlightInfo| {
        let announced = info.clone().try_decode_schema().unwrap();
        let batches: Vec<RecordBatch> =
            served.client().await.do_get(ticket(&info)).await.unwrap().try_collect().await.unwrap();
        assert!(batches.iter().all(|batch| batch.schema().as_ref() == &announced), "{announced}");
        (announced, batches.iter().map(RecordBatch::num_rows).sum::<usize>(), batches)
    };
    let primary_keys = |table: &str, db_schema: Option<&str>| CommandGetPrimaryKeys {
        catalog: None,
        db_schema: db_schema.map(str::to_owned),
        table: table.to_owned(),
    };
    let (_, rows, batches) = read(client.get_primary_keys(primary_keys("docs", None)).await.unwrap()).await;
    let names = batches.iter().flat_map(|batch| batch.column(3).as_string::<i32>().iter().flatten());
    assert_eq!((rows, names.collect::<Vec<_>>()), (2, vec!["doc_id", "chunk"]));
    for (table, schema) in [("other", None), ("docs", Some("other"))] {
        assert_eq!(read(client.get_primary_keys(primary_keys(table, schema)).await.unwrap()).await.1, 0);
    }
    let exported = CommandGetExportedKeys { catalog: None, db_schema: None, table: "docs".to_owned() };
    let (columns, rows, _) = read(client.get_exported_keys(exported).await.unwrap()).await;
    assert_eq!((columns.fields().len(), rows), (13, 0));
    let imported = CommandGetImportedKeys { catalog: None, db_schema: None, table: "docs".to_owned() };
    assert_eq!(read(client.get_imported_keys(imported).await.unwrap()).await.1, 0);
    let crossed = CommandGetCrossReference {
        pk_table: "docs".to_owned(),
        fk_table: "docs".to_owned(),
        ..CommandGetCrossReference::default()
    };
    assert_eq!(read(client.get_cross_reference(crossed).await.unwrap()).await.1, 0);
    let (columns, rows, _) =
        read(client.get_xdbc_type_info(CommandGetXdbcTypeInfo { data_type: None }).await.unwrap()).await;
    assert_eq!((columns.field(0).name().as_str(), columns.fields().len(), rows), ("type_name", 19, 17));
    let bigint = CommandGetXdbcTypeInfo { data_type: Some(-5) };
    assert_eq!(read(client.get_xdbc_type_info(bigint).await.unwrap()).await.1, 2);
}

#[tokio::test]
async fn endless_rows_end_at_the_request_timeout() {
    let limits = Limits { request_timeout: Duration::from_millis(500), max_statements: 1, ..Limits::default() };
    let served = serve(limits, Vec::new()).await;
    let mut client = served.client().await;
    let endless = "SELECT * FROM generate_series(1, 1000000000000)";
    let status = rows(&mut client, endless).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status}");
    // When a client disconnects, the next one can run its statement.
    let info = client.execute(endless.to_owned(), None).await.unwrap();
    let mut stream = client.do_get(ticket(&info)).await.unwrap();
    assert!(stream.next().await.unwrap().unwrap().num_rows() > 0);
    drop(stream);
    assert_eq!(rows(&mut client, "SELECT 1").await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn calls_require_a_token() {
    let served = serve(Limits::default(), vec![TokenHash::of(TOKEN).unwrap()]).await;
    let mut client = served.client().await;
    assert!(client.get_catalogs().await.is_err());
    client.set_token("not-the-token-of-this".to_owned());
    assert!(client.execute("SELECT 1".to_owned(), None).await.is_err());
    let mut client = served.client().await;
    assert!(client.handshake("anybody", "not-the-token-of-this").await.is_err());
    // The password is the token. Afterwards the client sends the token that the handshake returned.
    assert_eq!(client.handshake("anybody", TOKEN).await.unwrap(), TOKEN);
    client.set_token(TOKEN.to_owned());
    assert_eq!(rows(&mut client, "SELECT 1").await.unwrap()[0].num_rows(), 1);
}

#[tokio::test]
async fn without_tokens_foreign_host_names_are_refused() {
    let served = serve(Limits::default(), Vec::new()).await;
    let foreign = Endpoint::from_shared(served.url.clone()).unwrap().origin("http://evil.example".parse().unwrap());
    let mut client = FlightSqlServiceClient::new(foreign.connect().await.unwrap());
    assert_eq!(rows(&mut client, "SELECT 1").await.unwrap_err().code(), Code::PermissionDenied);
}
