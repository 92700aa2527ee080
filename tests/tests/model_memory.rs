//! A model that is larger than `model.memory` is streamed by layers, and a run writes the same table.

use std::{collections::BTreeMap, fs};

use polylance_encoder::{ModelConfig, ModelKind, synthetic::Checkpoint};
use polylance_tests::{Outcome, Row, polylance, polylance_with, read_table, strings, vectors, write_parquet};

/// The pipelines of this test with a corpus and a model of six layers.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = ModelConfig {
            kind: ModelKind::XlmRobertaXl,
            vocab_size: 250_002,
            hidden_size: 16,
            num_hidden_layers: 6,
            num_attention_heads: 2,
            intermediate_size: 40,
            max_position_embeddings: 130,
            type_vocab_size: 1,
            layer_norm_eps: 1e-5,
            pad_token_id: 1,
        };
        let model = folder.path().join("model");
        Checkpoint::new(config).write(&model).unwrap();
        fs::write(model.join("tokenizer.json"), polylance_builtin::tokenizer_json()).unwrap();
        let texts = ["Everyone has the right to education.", "ทุกคนมีสิทธิในการศึกษา", "Tout individu a droit à la vie."];
        let text = |n: usize| texts[n % 3].repeat(1 + n % 5);
        let rows: Vec<Row> = (0..40).map(|n| Row::new(format!("doc-{n}"), text(n))).collect();
        write_parquet(&folder.path().join("docs.parquet"), &rows);
        Self(folder)
    }

    fn at(&self, name: &str) -> String {
        self.0.path().join(name).display().to_string()
    }

    /// Runs the pipeline with these keys of `[model]` into a table.
    fn run(&self, table: &str, keys: &str) -> Outcome {
        let (docs, model, job) = (self.at("docs.parquet"), self.at("model"), self.at("job.toml"));
        let pipeline = format!(
            "version = 1\n[source]\nuri = \"{docs}\"\n[model]\nid = \"{model}\"\n{keys}\n[table]\nuri = \"{}\"\n",
            self.at(table)
        );
        fs::write(&job, pipeline).unwrap();
        polylance_with(&["run", &job, "--json"], &[("POLYLANCE_LOG", "info")], b"")
    }

    /// The vector of each document.
    fn table(&self, name: &str) -> BTreeMap<String, Vec<f32>> {
        let batch = read_table(&self.at(name), &["doc_id", "embedding"]);
        strings(&batch, "doc_id").into_iter().zip(vectors(&batch)).collect()
    }

    /// The smallest limit that works for a dtype, as the error about a smaller one names it.
    fn smallest(&self, dtype: &str) -> u64 {
        let refused =
            self.run(&format!("refused-{dtype}.lance"), &format!("dtype = \"{dtype}\"\nmemory = 1000")).exits_with(2);
        let (_, rest) = refused.stderr.split_once("model.memory (--model-memory) to \"").expect("a hint");
        let (bytes, _) = rest.split_once(" B\" or more").expect("a number of bytes");
        bytes.parse().unwrap()
    }
}

const STREAMED: &str = "its layers are read again for every window of tokens";

#[test]
fn run_with_streamed_layers_writes_the_table_of_a_run_in_memory() {
    let place = Place::new();
    for dtype in ["f32", "bf16", "int8"] {
        let resident = place.run(&format!("{dtype}.lance"), &format!("dtype = \"{dtype}\"")).exits_with(0);
        assert_eq!(resident.json()["rows_written"], 40);
        assert!(!resident.stderr.contains(STREAMED), "{}", resident.stderr);
        let expected = place.table(&format!("{dtype}.lance"));
        assert_eq!(expected.len(), 40);
        let smallest = place.smallest(dtype);
        for (name, keys) in [("whole", ""), ("parts", "batch_tokens = 64\n"), ("one", "devices = [\"cpu\"]\n")] {
            let table = format!("{dtype}-{name}.lance");
            let keys = format!("dtype = \"{dtype}\"\n{keys}memory = \"{smallest} B\"");
            let streamed = place.run(&table, &keys).exits_with(0).stderr_contains(&[STREAMED]);
            assert_eq!(streamed.json()["rows_written"], 40);
            assert!(place.table(&table) == expected, "{dtype} {name}: other vectors");
        }
        let keys = format!("dtype = \"{dtype}\"\nmemory = {}", smallest - 1);
        drop(
            place
                .run(&format!("refused-{dtype}.lance"), &keys)
                .exits_with(2)
                .stderr_contains(&[&format!("\"{smallest} B\" or more")]),
        );
    }
}

#[test]
fn limit_is_a_flag_of_the_commands_that_load_a_model() {
    let place = Place::new();
    let (model, limit) = (place.at("model"), format!("{}B", place.smallest("f32")));
    let check = ["model", "check", &model, "--dtype", "f32", "--json"];
    let resident = polylance(&check).exits_with(0).json();
    assert!(resident["weights"]["streaming"].is_null(), "{resident}");
    let streamed = polylance(&[&check[..], &["--model-memory", &limit]].concat()).exits_with(0).json();
    assert_eq!(streamed["weights"]["streaming"]["state_tokens"], 0);
    assert_eq!(streamed["test_norm"], resident["test_norm"]);

    let (docs, resident, table) = (place.at("docs.parquet"), place.at("resident.lance"), place.at("streamed.lance"));
    let embed = ["embed", "--source", &docs, "--model", &model];
    drop(polylance(&[&embed[..], &["--table", &resident]].concat()).exits_with(0));
    drop(polylance(&[&embed[..], &["--table", &table, "--model-memory", &limit]].concat()).exits_with(0));
    assert!(place.table("streamed.lance") == place.table("resident.lance"));

    let refused = polylance(&[&check[..], &["--model-memory", "1kB"]].concat()).exits_with(2);
    drop(refused.stderr_contains(&["the model may take 1000 B of memory", &limit.replace('B', " B")]));
}
