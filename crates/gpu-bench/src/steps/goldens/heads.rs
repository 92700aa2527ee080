//! Every head: logits in f32 and bf16, and generated ids.

use std::{fs, path::Path, sync::Arc};

use anyhow::{Context as _, Result, ensure};
use polylance_encoder::{
    Generation, Gpu, HeadKind, HeadModel, LoadOptions, Logits, ModelFiles, PackedBatch,
    synthetic::{Checkpoint, Names},
};
use polylance_schema::Dtype;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Goldens, GoldensArguments, config, device, files_of, name, rows};
use crate::{arrays::largest_difference, report::Report};

/// How far logits may be from those of transformers, in f32 and in bf16.
const MAX_DIFFERENCE: [(Dtype, f32); 2] = [(Dtype::F32, 1e-4), (Dtype::Bf16, 0.1)];

pub(super) fn run(report: &Report, gpu: &Arc<Gpu>, arguments: &GoldensArguments) -> Result<()> {
    let goldens = Goldens::read(&arguments.folder, "heads")?;
    for case in goldens.cases()? {
        let name = name(case)?;
        if !arguments.takes(name) {
            continue;
        }
        let kind: HeadKind = serde_json::from_value(case["task"].clone())?;
        let (_folder, files) = files(case, kind, &arguments.folder)?;
        let batch = batch(case, &goldens.json["lengths"])?;
        let expected: Logits =
            (0..batch.sequences()).map(|at| goldens.numbers(&format!("{name}.{at}"))).collect::<Result<_>>()?;
        for (dtype, tolerance) in MAX_DIFFERENCE {
            report.doing(format_args!("computing {name} in {dtype}"));
            let options = LoadOptions { dtype: Some(dtype), ..LoadOptions::default() };
            let model = HeadModel::load(&files, kind, &options, &device(gpu))?;
            let found = logits(&model, &batch)?;
            let lengths = |logits: &Logits| logits.iter().map(Vec::len).collect::<Vec<_>>();
            ensure!(lengths(&found) == lengths(&expected), "{name}: {:?} logits", lengths(&found));
            let apart = largest_difference(found.iter().flatten(), expected.iter().flatten());
            let text = format!("largest difference {apart:.1e}");
            report.check(&format!("{name}, {dtype}"), apart <= tolerance, text, json!(apart));
            if dtype == Dtype::F32 && kind == HeadKind::CausalLm {
                generate(report, name, case, &model)?;
            }
        }
    }
    Ok(())
}

/// The case's model: by the formula, or as transformers saved it.
fn files(case: &Value, kind: HeadKind, folder: &Path) -> Result<(TempDir, ModelFiles)> {
    if case["saved"] == true {
        let folder = folder.join("saved").join(name(case)?);
        // The tokenizer is not part of the goldens, and nothing here reads one.
        let copy = tempfile::tempdir()?;
        for file in ["config.json", "model.safetensors"] {
            let from = folder.join(file);
            fs::copy(&from, copy.path().join(file)).with_context(|| from.display().to_string())?;
        }
        fs::write(copy.path().join("tokenizer.json"), "{}")?;
        let files = ModelFiles::find(copy.path().to_str().context("the folder's name is not UTF-8")?)?;
        return Ok((copy, files));
    }
    let mut checkpoint = Checkpoint::new(config(case)?).head(kind).key("eos_token_id", 2);
    if let Some(labels) = case["labels"].as_u64() {
        let labels: Vec<String> = (0..labels).map(|label| format!("L{label}")).collect();
        checkpoint = checkpoint.labels(&labels.iter().map(String::as_str).collect::<Vec<_>>());
    }
    if case["tied"] == false {
        checkpoint = checkpoint.untied();
    }
    checkpoint = checkpoint.names(if case["names"] == "bare" { Names::Bare } else { Names::Prefixed });
    files_of(&checkpoint)
}

/// The case's ids and token types.
fn batch(case: &Value, lengths: &Value) -> Result<PackedBatch> {
    let rows = rows(&config(case)?, lengths)?;
    if case["types"] == false {
        return Ok(PackedBatch::new(&rows)?);
    }
    let types = |row: &Vec<u32>| (0..row.len()).map(|at| u32::from(at > row.len() / 3)).collect();
    Ok(PackedBatch::with_token_types(&rows, &rows.iter().map(types).collect::<Vec<_>>())?)
}

/// As the goldens have them: a language model's at the last, the first and the middle token.
fn logits(model: &HeadModel, batch: &PackedBatch) -> Result<Logits> {
    if !matches!(model.head().kind(), HeadKind::MaskedLm | HeadKind::CausalLm) {
        return Ok(model.forward(batch)?);
    }
    let lengths = batch.cu_seqlens.windows(2).map(|pair| (pair[1] - pair[0]) as usize);
    let positions: Vec<Vec<usize>> =
        lengths.map(|length| [length - 1, 0, length / 2][..length.min(3)].to_vec()).collect();
    let mut rows = model.mask_logits(batch, &positions)?.into_iter();
    Ok(positions.iter().map(|positions| rows.by_ref().take(positions.len()).flatten().collect()).collect())
}

/// The likeliest ids after each prompt.
fn generate(report: &Report, name: &str, case: &Value, model: &HeadModel) -> Result<()> {
    let texts = case["generated"].as_array().context("a causal model generates")?;
    let mut same = 0;
    for text in texts {
        let ids = |key: &str| -> Result<Vec<u32>> { Ok(serde_json::from_value(text[key].clone())?) };
        let options = Generation { max_new_tokens: 32, ..Generation::default() };
        report.doing(format_args!("generating with {name}"));
        same += usize::from(model.generate(&ids("prompt")?, &options)? == ids("ids")?);
    }
    let text = format!("{same} of {} texts are those of transformers", texts.len());
    report.check(&format!("{name}, generated"), same == texts.len(), text, same);
    Ok(())
}
