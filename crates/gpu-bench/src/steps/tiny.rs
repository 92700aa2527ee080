//! One pass of a tiny model of each kind in each number type: small enough for compute-sanitizer, which slows down
//! every access, and with every kernel of a pass.

use anyhow::Result;
use polylance_encoder::{Gpu, ModelConfig, ModelKind, NormPlacement};
use polylance_schema::Dtype;
use serde_json::json;

use super::{Context, synthetic};
use crate::{
    arrays::cosine,
    geometry::Geometry,
    workload::{Batch, ids},
};

/// Kind, hidden size, heads: heads of 32, 64, 80, 96 and 128.
const MODELS: [(ModelKind, usize, usize); 5] = [
    (ModelKind::Bert, 128, 4),
    (ModelKind::XlmRoberta, 128, 2),
    (ModelKind::XlmRobertaXl, 160, 2),
    (ModelKind::XlmRobertaXl, 96, 1),
    (ModelKind::Bert, 128, 1),
];

/// Rows of ids: 200 together, with a tile of attention that is full and others that are not.
const LENGTHS: [usize; 5] = [1, 64, 3, 130, 2];

/// Computes the models.
///
/// # Errors
/// When the device fails.
pub(crate) fn run(context: &Context<'_>) -> Result<()> {
    let gpu = context.open()?;
    for (kind, hidden_size, num_attention_heads) in MODELS {
        let bert = kind == ModelKind::Bert;
        let config = ModelConfig {
            kind,
            hidden_size,
            num_attention_heads,
            intermediate_size: 2 * hidden_size,
            type_vocab_size: if bert { 2 } else { 1 },
            pad_token_id: usize::from(!bert),
            ..Geometry::Tiny.config(Some(2))
        };
        let rows: Vec<Vec<u32>> = LENGTHS.iter().enumerate().map(|(at, &length)| ids(&config, at, length)).collect();
        let mut batch = Batch::new(&rows)?.packed;
        if bert {
            batch.token_types = Some((0..batch.input_ids.len()).map(|at| (at % 2) as u32).collect());
        }
        let vectors = |gpu: &std::sync::Arc<Gpu>, dtype| -> Result<Vec<f32>> {
            context.report.doing(format_args!("computing {} in {dtype}", kind.model_type()));
            let model = synthetic(gpu, &config, dtype, Some(512))?;
            let vectors = model.embed(&batch)?;
            context.report.progress();
            Ok(vectors)
        };
        let exact = vectors(&gpu, Dtype::F32)?;
        let norms = match kind.norm_placement() {
            NormPlacement::Pre => "pre",
            NormPlacement::Post => "post",
        };
        // Elsewhere both are the same kernel.
        let families: &[bool] = if gpu.info().compute == (9, 0) { &[true, false] } else { &[false] };
        for &hopper in families {
            gpu.set_hopper_gemm(hopper);
            for dtype in [Dtype::Bf16, Dtype::F16] {
                let found = vectors(&gpu, dtype)?;
                let pairs = found.chunks(hidden_size).zip(exact.chunks(hidden_size));
                let least = pairs.map(|(found, exact)| cosine(found, exact)).fold(1.0, f64::min);
                let head = hidden_size / num_attention_heads;
                let name = format!("{norms}-norm, heads of {head}, {dtype}{}", if hopper { ", wgmma" } else { "" });
                // The rounded weights of a random model differ too.
                let holds = found.len() == exact.len() && least >= 0.999;
                context.report.check(&name, holds, format_args!("cosine to f32 {least:.6}"), json!(least));
            }
        }
        gpu.set_hopper_gemm(true);
    }
    Ok(())
}
