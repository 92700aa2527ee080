//! `polylance serve`

use std::{
    fs,
    io::{self, BufRead},
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use polylance_backend::AnnotatorHandle;
use polylance_config::ByteSize;
use polylance_engine::{
    ShutdownSignal,
    models::{NamedHead, TableModels, open_heads, open_reranker},
};
use polylance_server::{Limits, ServedModels, Server, ServerError, ServerOptions, TlsFiles, TokenHash};

use crate::{
    args::{DeviceArgs, TableModelArgs, duration::seconds, named},
    error::{Result, UsageError},
    exit::ExitStatus,
    output::{Printer, counted},
    shutdown::{self, ShutdownController, ShutdownPlan},
};

/// Serve tables over HTTP: search, SQL, `OpenAI`-compatible embeddings and a web page
///
/// Without a token, the server accepts connections from this machine only. --hash-token prints the hash of a token, for
/// --token-hash. New versions of a table are served as they are committed. GET /v1/openapi.json describes the
/// interface. Assistants find the tables as tools at /mcp (Model Context Protocol).
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Table, with an optional name; repeatable
    #[arg(long = "table", value_name = "[NAME=]URI", value_parser = named::table,
          required_unless_present = "hash_token")]
    tables: Vec<(String, String)>,
    /// Address to listen on; any address other than a loopback one requires a token
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8000")]
    listen: SocketAddr,
    /// Address for Arrow Flight SQL (ADBC, JDBC, BI tools), such as 127.0.0.1:8001
    #[arg(long, value_name = "ADDRESS")]
    flight: Option<SocketAddr>,
    /// Hash of an accepted token; repeatable
    #[arg(long = "token-hash", value_name = "HEX")]
    token_hashes: Vec<TokenHash>,
    /// File with one token hash per line
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Read a token from stdin, print its hash and exit
    #[arg(long)]
    hash_token: bool,
    /// TLS certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// Private key of the certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    #[command(flatten)]
    model: TableModelArgs,
    /// Cross-encoder for /v1/rerank and for searches with reranking
    #[arg(long, value_name = "MODEL")]
    reranker: Option<String>,
    /// Head for /v1/predict, with options as in a pipeline file; repeatable
    #[arg(long = "head", value_name = "NAME=TASK:MODEL[?OPTION=VALUE&…]", value_parser = named::head)]
    heads: Vec<NamedHead>,
    #[command(flatten)]
    devices: DeviceArgs,
    #[command(flatten)]
    limits: LimitArgs,
}

const AFTER_HELP: &str = "\
Examples:
  polylance serve --table udhr.lance
  polylance serve --table docs=s3://b/docs.lance --reranker BAAI/bge-reranker-v2-m3 --head people=ner:./entities
  polylance serve --table udhr.lance --flight 127.0.0.1:8001
  polylance serve --table udhr.lance --head topic='zero-shot:./xnli?labels=sport,law'
  openssl rand -hex 32 | tee token | polylance serve --hash-token > hashes
  polylance serve --table udhr.lance --listen 0.0.0.0:8443 --token-file hashes --tls-cert c.pem --tls-key k.pem
  curl -H 'Content-Type: application/json' -d '{\"query\": \"right to rest\", \"k\": 3}' localhost:8000/v1/search";

/// Limits of requests and connections.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Limits")]
struct LimitArgs {
    /// Maximum body of a request with inputs; other bodies have at most 1 MiB
    #[arg(long, value_name = "SIZE", default_value = "8 MiB")]
    max_body: ByteSize,
    /// Maximum number of hits of a search
    #[arg(long, value_name = "N", default_value_t = 1000)]
    max_hits: usize,
    /// Maximum number of texts, token lists or passages in a request
    #[arg(long, value_name = "N", default_value_t = 2048)]
    max_inputs: usize,
    /// Maximum number of rows of a SQL response
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    max_rows: usize,
    /// Memory budget of all SQL statements together
    #[arg(long, value_name = "SIZE", default_value = "512 MiB")]
    sql_memory: ByteSize,
    /// Budget of temporary files of all SQL statements together
    #[arg(long, value_name = "SIZE", default_value = "4 GiB")]
    sql_disk: ByteSize,
    /// Maximum duration of a request
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    timeout: Duration,
    /// Maximum number of concurrent requests
    #[arg(long, value_name = "N", default_value_t = 64)]
    max_requests: usize,
    /// Maximum number of concurrent SQL statements
    #[arg(long, value_name = "N", default_value_t = 8)]
    max_statements: usize,
    /// Maximum number of open connections
    #[arg(long, value_name = "N", default_value_t = 512)]
    max_connections: usize,
    /// Maximum number of open connections per client address [default: a quarter of --max-connections, at least 8]
    #[arg(long, value_name = "N")]
    max_client_connections: Option<usize>,
    /// Memory budget of responses that clients have not yet received
    #[arg(long, value_name = "SIZE", default_value = "256 MiB")]
    max_sending: ByteSize,
    /// How long a Flight SQL connection may be idle
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    idle_timeout: Duration,
    /// How long a client may take to send the headers of a request
    #[arg(long, value_name = "SECONDS", default_value = "10", value_parser = seconds)]
    header_timeout: Duration,
    /// How long a client may take to send a body, or to receive a part of a response
    #[arg(long, value_name = "SECONDS", default_value = "15", value_parser = seconds)]
    body_timeout: Duration,
    /// How long open requests may take after a shutdown signal
    #[arg(long, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    grace: Duration,
    /// Interval at which the tables are checked for new versions
    #[arg(long, value_name = "SECONDS", default_value = "5", value_parser = seconds)]
    follow: Duration,
}

impl LimitArgs {
    fn limits(&self) -> Limits {
        Limits {
            max_body_bytes: self.max_body.0 as usize,
            max_hits: self.max_hits,
            max_inputs: self.max_inputs,
            max_rows: self.max_rows,
            sql_memory_bytes: self.sql_memory.0 as usize,
            sql_disk_bytes: self.sql_disk.0,
            request_timeout: self.timeout,
            max_requests: self.max_requests.max(1),
            max_statements: self.max_statements.max(1),
            max_connections: self.max_connections.max(1),
            max_client_connections: self
                .max_client_connections
                .unwrap_or_else(|| (self.max_connections / 4).max(8))
                .max(1),
            max_sending_bytes: self.max_sending.0 as usize,
            idle_timeout: self.idle_timeout,
            header_timeout: self.header_timeout,
            body_timeout: self.body_timeout,
            ..Limits::default()
        }
    }
}

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    if args.hash_token {
        printer.line(hash(io::stdin().lock())?)?;
        return Ok(ExitStatus::Done);
    }
    let mut tokens = args.token_hashes;
    if let Some(file) = &args.token_file {
        tokens.extend(hashes(file)?);
    }
    let options = ServerOptions {
        listen: args.listen,
        flight: args.flight,
        tokens,
        tls: args.tls_cert.zip(args.tls_key).map(|(certificate, key)| TlsFiles { certificate, key }),
        limits: args.limits.limits(),
        follow: args.limits.follow,
        grace: args.limits.grace,
    };
    options.check().map_err(explained)?;
    let (heads, reranker, devices) = (args.heads, args.reranker, args.devices.devices.clone());
    let reranker = match reranker {
        Some(model) => Some(AnnotatorHandle(Arc::new(open_reranker(&model, &devices).await?))),
        None => None,
    };
    let heads = open_heads(heads, &devices).await?;
    let models = ServedModels {
        embedders: Arc::new(TableModels::new(args.model.into(), None, args.devices.devices)),
        reranker,
        heads,
    };
    let server = Box::pin(Server::bind(options, &args.tables, models)).await.map_err(explained)?;

    printer.message(format_args!("listening on {}", server.url().map_err(explained)?));
    if let Some(url) = server.flight_url().map_err(explained)? {
        printer.message(format_args!("Flight SQL on {url}"));
    }
    for table in Box::pin(server.tables()).await.map_err(explained)? {
        printer.message(format_args!("  {}  {}, version {}", table.name, counted(table.rows, "row"), table.version));
    }
    // After a shutdown signal the open requests are answered, not dropped.
    let plan = ShutdownPlan {
        signal: ShutdownSignal::default(),
        grace: args.limits.grace,
        description: "open requests are answered",
    };
    controller.set(plan);
    Box::pin(server.run(shutdown::requested(controller.clone()))).await.map_err(explained)?;
    Ok(ExitStatus::Done)
}

/// The error with a hint.
fn explained(error: ServerError) -> anyhow::Error {
    match error {
        ServerError::Unprotected(_) => UsageError::new(error.to_string())
            .with_hint("give --token-hash or --token-file (--hash-token makes a hash), or listen on 127.0.0.1")
            .into(),
        ServerError::Tables(message) => UsageError::new(message).with_hint("--table NAME=URI names a table").into(),
        ServerError::Search(error) => error.into(),
        error => error.into(),
    }
}

/// The hash of the token on the first line of `input`.
fn hash(mut input: impl BufRead) -> Result<TokenHash> {
    let mut token = String::new();
    input.read_line(&mut token).context("reading the token")?;
    let hash = TokenHash::of(token.trim_end_matches(['\r', '\n']));
    hash.map_err(|error| UsageError::new(error.to_string()).with_hint("`openssl rand -hex 32` makes one").into())
}

/// The hashes in a file: one per line, comments after `#`.
fn hashes(file: &Path) -> Result<Vec<TokenHash>> {
    let text = fs::read_to_string(file).with_context(|| format!("reading {}", file.display()))?;
    let lines = text.lines().map(|line| line.split('#').next().unwrap_or_default().trim());
    let hashes: Vec<TokenHash> = lines
        .enumerate()
        .filter(|(_, line)| !line.is_empty())
        .map(|(at, line)| {
            line.parse().map_err(|error| UsageError::new(format!("{} line {}: {error}", file.display(), at + 1)))
        })
        .collect::<Result<_, _>>()?;
    if hashes.is_empty() {
        // An empty list would accept every client.
        return Err(UsageError::new(format!("{} has no hash of a token", file.display())).into());
    }
    Ok(hashes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn error_in_a_file_of_hashes_names_the_line() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let good = TokenHash::of("0123456789abcdef").unwrap();
        fs::write(file.path(), format!("# mine\n{good}  # and a remark\n\n")).unwrap();
        assert_eq!(hashes(file.path()).unwrap(), [good]);
        fs::write(file.path(), format!("{good}\nsecret\n")).unwrap();
        assert!(hashes(file.path()).unwrap_err().to_string().contains("line 2"));
        fs::write(file.path(), "# none\n").unwrap();
        assert!(hashes(file.path()).is_err());
    }

    #[test]
    fn token_is_hashed_without_its_line_break() {
        let expected = TokenHash::of("0123456789abcdef").unwrap();
        assert_eq!(hash(&b"0123456789abcdef\r\nmore"[..]).unwrap(), expected);
        assert!(hash(&b"short\n"[..]).is_err());
    }
}
