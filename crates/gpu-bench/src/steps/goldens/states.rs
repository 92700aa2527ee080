//! Hidden states in f32, and mean vectors in bf16 and f16.

use std::sync::Arc;

use anyhow::{Result, ensure};
use polylance_encoder::{Gpu, LoadOptions, ModelFiles, PackedBatch, Pooling, SentenceEncoder, synthetic::Checkpoint};
use polylance_schema::Dtype;
use serde_json::json;

use super::{Goldens, GoldensArguments, config, device, files_of, name, product_families, rows};
use crate::{
    arrays::{cosine, largest_difference},
    report::Report,
};

/// The largest allowed difference of a hidden state from that of transformers.
const MAX_DIFFERENCE: f32 = 1e-4;

/// The smallest allowed cosine of a vector in 16 bits to that of transformers in f32.
const MIN_COSINE: f64 = 0.9999;

pub(super) fn run(report: &Report, gpu: &Arc<Gpu>, arguments: &GoldensArguments) -> Result<()> {
    let goldens = Goldens::read(&arguments.folder, "goldens")?;
    for case in goldens.cases()? {
        let name = name(case)?;
        if !arguments.takes(name) {
            continue;
        }
        report.doing(format_args!("writing {name}"));
        let config = config(case)?;
        let batch = PackedBatch::new(&rows(&config, &case["lengths"])?)?;
        let (_folder, files) = files_of(&Checkpoint::new(config))?;
        report.doing(format_args!("computing {name} in f32"));
        let states = load(&files, gpu, Dtype::F32)?.hidden_states(&batch)?.flatten_all()?.to_vec1::<f32>()?;
        let expected = goldens.numbers(&format!("{name}.hidden_states"))?;
        ensure!(states.len() == expected.len(), "{name}: {} states, not {}", states.len(), expected.len());
        let apart = largest_difference(&states, &expected);
        let text = format!("largest difference {apart:.1e}");
        report.check(&format!("{name}, f32"), apart <= MAX_DIFFERENCE, text, json!(apart));

        let expected = goldens.numbers(&format!("{name}.mean"))?;
        for &hopper in product_families(gpu) {
            gpu.set_hopper_gemm(hopper);
            for dtype in [Dtype::Bf16, Dtype::F16] {
                report.doing(format_args!("computing {name} in {dtype}"));
                let model = load(&files, gpu, dtype)?;
                let found = model.embed(&batch)?;
                ensure!(found.len() == expected.len(), "{name}: {} numbers, not {}", found.len(), expected.len());
                let pairs = found.chunks(model.dim()).zip(expected.chunks(model.dim()));
                // A NaN counts as less than any cosine.
                let least = pairs.map(|(a, b)| cosine(a, b)).fold(1.0, |least, x| if x >= least { least } else { x });
                let name = format!("{name}, {dtype}{}", if hopper { ", wgmma" } else { "" });
                report.check(&name, least >= MIN_COSINE, format_args!("cosine {least:.6}"), json!(least));
            }
        }
        gpu.set_hopper_gemm(true);
    }
    Ok(())
}

fn load(files: &ModelFiles, gpu: &Arc<Gpu>, dtype: Dtype) -> Result<SentenceEncoder> {
    let options = LoadOptions { dtype: Some(dtype), pooling: Some(Pooling::Mean), ..LoadOptions::default() };
    Ok(SentenceEncoder::load(files, &options, &device(gpu))?)
}
