//! The built-in model on this machine: a local run, and clusters of one and of two executors with a core each.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use arrow::array::AsArray;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use polylance_tests::{
    Process, Row, free_port, polylance_command, repository, start_scheduler, wait_for_executors, write_parquet,
};

use crate::{Run, run};

const FILES: usize = 64;
/// One of this many articles of the Universal Declaration of Human Rights is embedded.
const ARTICLES: usize = 8;
const SPLITS: u64 = 24;
const TURNS: usize = 2;
const TURNS_UNCHANGED: usize = 5;

pub(crate) fn measure(folder: &Path) {
    let corpus = Corpus::write(folder.join("articles"));
    let (_scheduler, url) = start_scheduler("127.0.0.1:0");
    let on_cluster = ["--cluster", &url];
    let first = executor(&url, 0);
    wait_for_executors(&url, 1);
    drop(corpus.run("warm-up", &on_cluster));
    let (mut local, mut one) = (Vec::new(), Vec::new());
    for turn in 0..TURNS {
        local.push(corpus.run(&format!("local-{turn}"), &[]).seconds);
        one.push(corpus.run(&format!("one-{turn}"), &on_cluster).seconds);
    }
    let second = executor(&url, 1);
    wait_for_executors(&url, 2);
    drop(corpus.run("warm-up-of-two", &on_cluster));
    let two: Vec<f64> = (0..TURNS).map(|turn| corpus.run(&format!("two-{turn}"), &on_cluster).seconds).collect();
    drop((first, second));
    let unchanged = |table: &str, options: &[&str]| {
        mean((0..TURNS_UNCHANGED).map(|_| corpus.run(table, options).seconds).collect())
    };
    let (unchanged_local, unchanged_cluster) = (unchanged("local-0", &[]), unchanged("two-0", &on_cluster));

    let [local, one, two] = [local, one, two].map(mean);
    println!("\n| the built-in model in bf16, {} articles in {FILES} files | seconds | |\n|---|---|---|", corpus.rows);
    println!("| local, one core | {local:.1} | |");
    println!(
        "| a cluster of one executor with one core | {one:.1} | {:.2} of the speed of the local run |",
        local / one
    );
    println!("| of two executors with a core each | {two:.1} | {:.2} times as fast as one |", one / two);
    println!("| unchanged, local | {unchanged_local:.3} | |");
    println!("| unchanged, on the cluster without executors | {unchanged_cluster:.3} | |");
}

fn executor(url: &str, core: usize) -> Process {
    let mut command = polylance_command();
    command.args(["executor", "--scheduler", url, "--bind", "127.0.0.1", "--advertise", "127.0.0.1"]);
    command.args(["--port", &free_port().to_string(), "--devices", &format!("cpu:{core}")]);
    Process::start(command)
}

fn mean(seconds: Vec<f64>) -> f64 {
    seconds.iter().sum::<f64>() / seconds.len() as f64
}

struct Corpus {
    folder: PathBuf,
    rows: usize,
    split_bytes: u64,
}

impl Corpus {
    fn write(folder: PathBuf) -> Self {
        fs::create_dir(&folder).expect("a writable folder");
        let file = File::open(repository().join("crates/builtin/assets/udhr.parquet")).expect("the built-in corpus");
        let batches = ParquetRecordBatchReaderBuilder::try_new(file).expect("Parquet").build().expect("Parquet");
        let articles = batches.flat_map(|batch| {
            let batch = batch.expect("Parquet");
            let [ids, texts] = ["id", "text"].map(|column| batch[column].as_string::<i32>().clone());
            let row = |at: usize| Row::new(ids.value(at), texts.value(at));
            (0..batch.num_rows()).map(row).collect::<Vec<_>>()
        });
        let rows: Vec<Row> = articles.step_by(ARTICLES).collect();
        for (number, rows) in rows.chunks(rows.len().div_ceil(FILES)).enumerate() {
            write_parquet(&folder.join(format!("{number:02}.parquet")), rows);
        }
        let bytes = |entry: fs::DirEntry| entry.metadata().expect("a file").len();
        let total: u64 = fs::read_dir(&folder).expect("a folder").map(|entry| bytes(entry.expect("a file"))).sum();
        Self { folder, rows: rows.len(), split_bytes: total / SPLITS }
    }

    /// Runs into a table.
    fn run(&self, table: &str, options: &[&str]) -> Run {
        let next_to_it = self.folder.with_file_name(table);
        let pipeline = format!(
            "version = 1\nsource.uri = {:?}\nmodel = {{ dtype = \"bf16\", devices = [\"cpu:0\"] }}\n\
             table.uri = \"{}.lance\"\nindex.kind = \"none\"\n\
             cluster = {{ shared_files = true, split = \"{} B\" }}\n",
            self.folder.display().to_string(),
            next_to_it.display(),
            self.split_bytes,
        );
        let path = next_to_it.with_extension("toml");
        fs::write(&path, pipeline).expect("a writable folder");
        let mut command: Command = polylance_command();
        command.arg("run").arg(path).args(["--json", "--progress", "none"]).args(options);
        run(command)
    }
}
