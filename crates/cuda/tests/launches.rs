//! Launches through the checked interface: refused operands, empty launches, and rows that do not depend on their
//! batch.

#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{download, numbers, upload, upload_padded};
use half::bf16;
use polylance_cuda::{
    CudaError, DeviceBuffer, Gpu, NumberType, Result,
    ops::{
        Activation, AddNorm, Attention, Epilogue, Fill, GatherRowsF32, Gemm, Linear, Norm, NormRows, Placement, Pool,
        PoolMode,
    },
    padded_rows,
};
use polylance_fake_cuda::{FakeDriver, Session};

const EPS: f32 = 1e-5;

fn session() -> (Session, Arc<Gpu>) {
    let session = FakeDriver::session();
    let gpu = Gpu::open(0).unwrap_or_else(|error| panic!("{error}"));
    (session, gpu)
}

#[test]
fn launches_over_no_rows_do_nothing() -> Result<()> {
    let (session, gpu) = session();
    let buffer = upload(&gpu, &[1.0f32; 64])?;
    let all = buffer.all();
    let (number, hidden) = (NumberType::F32, 8);
    let norm = Norm { weight: all, bias: all, eps: EPS };
    session.take_log();
    let mut pass = gpu.begin()?;
    pass.norm_rows(&NormRows { number, y: all, norm, x: all, rows: 0, hidden })?;
    let (x, w, out, epilogue) = (all, all, all, Epilogue::None);
    pass.gemm(&Gemm { number, x, w, bias: None, out, epilogue, m: 0, n: 8, k: 8 })?;
    pass.gather_rows_f32(&GatherRowsF32 { states: all, rows: all, out, count: 0, hidden })?;
    pass.fill(&Fill { number, out, seed: 1, first: 0, count: 0, offset: 0.0, scale: 1.0 })?;
    drop(pass);
    assert_eq!(session.take_log(), []);
    Ok(())
}

#[test]
fn misfit_operands_are_refused_before_the_launch() -> Result<()> {
    let (session, gpu) = session();
    let buffer = DeviceBuffer::new(&gpu, 1 << 16)?;
    let (all, small) = (buffer.all(), buffer.slice(0..1024)?);
    let (number, hidden, tokens) = (NumberType::Bf16, 64, 16);
    let norm = Norm { weight: all, bias: all, eps: EPS };
    let add_norm = AddNorm {
        number,
        y: Some(all),
        bias: Some(all),
        placement: Placement::Pre(norm),
        states: all,
        x: Some(all),
        tokens,
        hidden,
    };
    let gemm = Gemm { number, x: all, w: all, bias: None, out: all, epilogue: Epilogue::None, m: 3, n: 64, k: 64 };
    let attention = Attention {
        number,
        qkv: all,
        cu_seqlens: all,
        tile_list: all,
        out: all,
        tokens,
        sequences: 2,
        tiles: 2,
        heads: 2,
        head_size: 64,
        scale: 1.0,
        causal: false,
    };
    let pool = Pool {
        states: all,
        cu_seqlens: all,
        out: all,
        tokens,
        sequences: 2,
        hidden,
        dim: hidden,
        mode: PoolMode::Mean,
        normalize: true,
    };
    let linear =
        Linear { number, x: all, w: all, bias: None, out: all, activation: Activation::None, m: 4, n: 3, k: 64 };
    session.take_log();
    let mut pass = gpu.begin()?;
    let results = [
        pass.add_norm(&AddNorm { states: small, ..add_norm }),
        pass.add_norm(&AddNorm { x: Some(small), ..add_norm }),
        pass.add_norm(&AddNorm { states: buffer.slice(8..1 << 16)?, ..add_norm }),
        pass.add_norm(&AddNorm { hidden: 60, ..add_norm }),
        pass.add_norm(&AddNorm { hidden: 8200, tokens: 1, ..add_norm }),
        pass.add_norm(&AddNorm { tokens: usize::MAX, ..add_norm }),
        pass.add_norm(&AddNorm { tokens: 1 << 30, ..add_norm }),
        pass.norm_rows(&NormRows {
            number,
            y: all,
            norm: Norm { weight: small.slice(0..16)?, ..norm },
            x: all,
            rows: 1,
            hidden,
        }),
        // The rows of `x` that pad the tiles count.
        pass.gemm(&Gemm { x: buffer.slice(0..255 * 128)?, ..gemm }),
        pass.gemm(&Gemm { out: buffer.slice(0..2 * 128)?, ..gemm }),
        pass.gemm(&Gemm { w: small, ..gemm }),
        pass.gemm(&Gemm { n: 12, ..gemm }),
        pass.gemm(&Gemm { k: 12, ..gemm }),
        pass.gemm(&Gemm { k: 0, ..gemm }),
        pass.attention(&Attention { head_size: 48, ..attention }),
        pass.attention(&Attention { out: small, ..attention }),
        pass.attention(&Attention { tiles: 1 << 20, ..attention }),
        pass.attention(&Attention { heads: 0, ..attention }),
        pass.pool(&Pool { dim: 65, ..pool }),
        pass.pool(&Pool { dim: 0, ..pool }),
        pass.pool(&Pool { sequences: usize::MAX, ..pool }),
        pass.linear(&Linear { k: 4, ..linear }),
        pass.linear(&Linear { m: 1 << 20, ..linear }),
        pass.fill(&Fill { number, out: small, seed: 1, first: 0, count: 513, offset: 0.0, scale: 1.0 }),
        pass.gather_rows_f32(&GatherRowsF32 { states: all, rows: all, out: small, count: 5, hidden }),
    ];
    for (case, result) in results.into_iter().enumerate() {
        let error = result.expect_err(&format!("case {case}"));
        assert!(matches!(error, CudaError::Misuse { .. }), "case {case}: {error}");
    }
    drop(pass);
    assert_eq!(session.take_log(), []);
    let example = gpu.begin()?.add_norm(&AddNorm { states: small, ..add_norm }).unwrap_err();
    assert_eq!(example.to_string(), "add_norm_bf16_4: states of [16, 64] numbers of 4 bytes does not fit 1024 bytes");
    Ok(())
}

#[test]
fn row_alone_equals_row_in_batch() -> Result<()> {
    let (_session, gpu) = session();
    let (m, n, k) = (150, 64, 136);
    let (x, w) = (numbers::<bf16>(17, m * k), numbers::<bf16>(18, n * k));
    let w = upload(&gpu, &w)?;
    let product = |x: &[bf16]| -> Result<Vec<bf16>> {
        let m = x.len() / k;
        let x = upload_padded(&gpu, x, padded_rows(m) * k * 2)?;
        let out = DeviceBuffer::new(&gpu, padded_rows(m) * n * 2)?;
        let mut pass = gpu.begin()?;
        let (number, epilogue) = (NumberType::Bf16, Epilogue::None);
        pass.gemm(&Gemm { number, x: x.all(), w: w.all(), bias: None, out: out.all(), epilogue, m, n, k })?;
        pass.finish()?.wait()?;
        download(&out, m * n)
    };
    let together = product(&x)?;
    for row in [0, 77, 149] {
        let alone = product(&x[row * k..(row + 1) * k])?;
        assert_eq!(alone, together[row * n..(row + 1) * n], "row {row}");
    }
    Ok(())
}
