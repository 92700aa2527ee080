//! The targets: the product's readers as functions of bytes.

use std::{
    fs,
    io::{Cursor, Write},
    path::{Path, PathBuf},
    sync::{Arc, LazyLock},
};

use datafusion::{execution::TaskContext, physical_plan::ExecutionPlan};
use futures::StreamExt;
use polylance_backend::{Backend, TokenizeSpec};
use polylance_config::Pipeline;
use polylance_dataflow::{Source, SourceScanExec, SourceSpec};
use polylance_encoder::{
    Device, HeadKind, HeadModel, LoadOptions, ModelConfig, ModelFiles, PackedBatch, SentenceEncoder,
    synthetic::Checkpoint,
};
use polylance_schema::{Chunking, Explain, SourceFormat};
use polylance_worker::{DevicePool, PoolOptions};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

/// A reader of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// A pipeline file.
    Pipeline,
    /// Rows of a CSV file, all columns kept.
    Csv,
    /// Rows of a JSONL file, all columns kept.
    Jsonl,
    /// `config.json` next to good weights.
    Config,
    /// `model.safetensors`.
    Safetensors,
    /// A GGUF file: configuration and weights.
    Gguf,
    /// `pytorch_model.bin`; bytes that are not an archive become the pickle of one.
    Pytorch,
    /// `tokenizer.json`, which then tokenizes texts.
    Tokenizer,
}

/// The folder for models, one per process: a run of millions of inputs leaves at most one behind.
static FOLDER: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().expect("a writable folder"));
/// One runtime for all inputs, because starting threads would take most of the time.
static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("threads"));

impl Target {
    /// All targets.
    pub const ALL: [Self; 8] = [
        Self::Pipeline,
        Self::Csv,
        Self::Jsonl,
        Self::Config,
        Self::Safetensors,
        Self::Gguf,
        Self::Pytorch,
        Self::Tokenizer,
    ];

    /// The name of the corpus and of the fuzzer.
    pub fn name(self) -> &'static str {
        match self {
            Self::Pipeline => "pipeline",
            Self::Csv => "csv",
            Self::Jsonl => "jsonl",
            Self::Config => "config",
            Self::Safetensors => "safetensors",
            Self::Gguf => "gguf",
            Self::Pytorch => "pytorch",
            Self::Tokenizer => "tokenizer",
        }
    }

    /// The folder of the corpus.
    pub fn corpus(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(self.name())
    }

    /// Runs the reader over the bytes; returns whether it accepted them.
    ///
    /// # Panics
    /// When the reader panics, which is what tests look for, or when a temporary folder is not writable.
    pub fn run(self, bytes: &[u8]) -> bool {
        match self {
            Self::Pipeline => pipeline(bytes),
            Self::Csv => rows(bytes, SourceFormat::Csv),
            Self::Jsonl => rows(bytes, SourceFormat::Jsonl),
            Self::Config => with_file(self, "config.json", bytes, |folder| {
                // Heads are configured here too.
                let classifier = ModelFiles::find(folder).and_then(|files| {
                    HeadModel::load(&files, HeadKind::SequenceClassification, &options(), &Device::Cpu)
                });
                drop(classifier);
                embeds(folder)
            }),
            Self::Safetensors => with_file(self, "model.safetensors", bytes, embeds),
            Self::Gguf => with_file(self, "model.gguf", bytes, |folder| embeds(&format!("{folder}/model.gguf"))),
            Self::Pytorch if bytes.starts_with(b"PK") => with_file(self, "pytorch_model.bin", bytes, embeds),
            Self::Pytorch => with_file(self, "pytorch_model.bin", &archive(bytes), embeds),
            Self::Tokenizer => with_file(self, "tokenizer.json", bytes, tokenizes),
        }
    }
}

fn pipeline(bytes: &[u8]) -> bool {
    let path = FOLDER.path().join("pipeline.toml");
    fs::write(&path, bytes).expect("a writable folder");
    match Pipeline::read(&path, &[] as &[&str]) {
        Ok(_) => true,
        Err(error) => {
            // The message and the hint must not panic either.
            assert!(!error.to_string().is_empty());
            drop(error.hint());
            false
        }
    }
}

fn rows(bytes: &[u8], format: SourceFormat) -> bool {
    let path = FOLDER.path().join("rows");
    fs::write(&path, bytes).expect("a writable folder");
    let spec = SourceSpec {
        format: Some(format),
        keep: vec!["*".to_owned()],
        max_bytes: 1 << 20,
        ..SourceSpec::new(path.display().to_string())
    };
    RUNTIME.block_on(async {
        let Ok(source) = Source::open(spec).await else { return false };
        let scan = SourceScanExec::new(source);
        let Ok(mut batches) = scan.execute(0, Arc::new(TaskContext::default())) else { return false };
        let mut whole = true;
        while let Some(batch) = batches.next().await {
            // A panic that the reader's thread caught is a defect too.
            match batch {
                Ok(batch) => drop(batch),
                Err(error) => {
                    assert!(!error.to_string().contains("the reader failed"), "{error}");
                    whole = false;
                }
            }
        }
        whole
    })
}

/// A small model with one file replaced.
fn with_file(target: Target, name: &str, bytes: &[u8], read: impl FnOnce(&str) -> bool) -> bool {
    let folder = FOLDER.path().join(target.name());
    if !folder.exists() {
        write_model(&folder, target);
    }
    // Replace the file instead of writing into it, because the old one may still be mapped.
    let path = folder.join(name);
    drop(fs::remove_file(&path));
    fs::write(&path, bytes).expect("a writable folder");
    read(&folder.display().to_string())
}

fn write_model(folder: &Path, target: Target) {
    fs::create_dir_all(folder).expect("a writable folder");
    Checkpoint::new(small()).write(folder).expect("a writable folder");
    // A model is read from the first kind of weight file that exists.
    if target == Target::Pytorch {
        fs::remove_file(folder.join("model.safetensors")).expect("a writable folder");
    }
    let seed = Target::Tokenizer.corpus().join("unigram.json");
    fs::copy(seed, folder.join("tokenizer.json")).expect("the corpus of the tokenizer");
}

/// The geometry of the corpus, as in `tests/fuzz/make_corpus.py`.
fn small() -> ModelConfig {
    ModelConfig {
        vocab_size: 16,
        hidden_size: 4,
        num_hidden_layers: 1,
        num_attention_heads: 2,
        intermediate_size: 4,
        max_position_embeddings: 8,
        ..ModelConfig::tiny()
    }
}

fn options() -> LoadOptions {
    LoadOptions::default()
}

fn embeds(model: &str) -> bool {
    let Ok(files) = ModelFiles::find(model) else { return false };
    let Ok(encoder) = SentenceEncoder::load(&files, &options(), &Device::Cpu) else { return false };
    let Ok(batch) = PackedBatch::new(&[vec![0, 5, 2], vec![1]]) else { return false };
    encoder.embed(&batch).is_ok()
}

fn tokenizes(model: &str) -> bool {
    let Ok(files) = ModelFiles::find(model) else { return false };
    let options = PoolOptions { devices: vec!["cpu".to_owned()], tokenizer_threads: Some(1), ..PoolOptions::default() };
    let Ok(pool) = DevicePool::open(&files, &options) else { return false };
    let spec = TokenizeSpec { prefix: String::new(), chunking: Chunking::Truncate { max_tokens: 8 } };
    let texts = ["cat and dot", "", "\u{2581}\u{0301} \u{fffd}\n\u{1f9d1}\u{200d}\u{1f680}"];
    RUNTIME.block_on(pool.tokenize(texts.map(str::to_owned).to_vec(), &spec)).is_ok()
}

/// An archive in PyTorch's layout, with this pickle and one storage.
fn archive(pickle: &[u8]) -> Vec<u8> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let stored = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in [("archive/data.pkl", pickle), ("archive/data/0", &[0; 2048])] {
        archive.start_file(name, stored).expect("a name that is not taken");
        archive.write_all(bytes).expect("memory");
    }
    archive.finish().expect("memory").into_inner()
}
