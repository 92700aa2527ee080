//! Matrix products on compute capability 9.0.

#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{Stored, assert_near, download, numbers, reference, upload, upload_padded};
use half::{bf16, f16};
use polylance_cuda::{
    CudaError, DeviceBuffer, Gpu, NumberType, Result,
    ops::{Epilogue, Gemm},
    padded_rows,
};
use polylance_fake_cuda::{Entry, FakeDriver, Session};

fn session() -> (Session, Arc<Gpu>) {
    let session = FakeDriver::session_with(&[("FAKE_CUDA_COMPUTE", "9.0")]);
    let gpu = Gpu::open(0).unwrap_or_else(|error| panic!("{error}"));
    (session, gpu)
}

/// Names of the kernels launched since the last time.
fn launched(session: &Session) -> Vec<String> {
    let name = |entry| match entry {
        Entry::Launch { name, .. } => Some(name),
        _ => None,
    };
    session.take_log().into_iter().filter_map(name).collect()
}

#[test]
fn output_must_have_padded_rows() -> Result<()> {
    let (session, gpu) = session();
    let buffer = DeviceBuffer::new(&gpu, 1 << 16)?;
    let all = buffer.all();
    let (m, n, k) = (3, 64, 64);
    let gemm =
        Gemm { number: NumberType::Bf16, x: all, w: all, bias: None, out: all, epilogue: Epilogue::None, m, n, k };
    session.take_log();
    let error = gpu.begin()?.gemm(&Gemm { out: buffer.slice(0..255 * n * 2)?, ..gemm }).unwrap_err();
    assert!(matches!(&error, CudaError::Misuse { reason, .. } if reason.starts_with("out of [256, 64]")), "{error}");
    assert_eq!(launched(&session), Vec::<String>::new());
    Ok(())
}

#[test]
fn products_use_the_hopper_kernel() -> Result<()> {
    let (session, gpu) = session();
    for (m, n, k) in [(1, 8, 8), (300, 264, 136)] {
        gemm::<bf16>(&session, &gpu, m, n, k)?;
        gemm::<f16>(&session, &gpu, m, n, k)?;
    }
    Ok(())
}

fn gemm<T: Stored>(session: &Session, gpu: &Arc<Gpu>, m: usize, n: usize, k: usize) -> Result<()> {
    let number = T::TYPE;
    let (x, w, bias) = (numbers::<T>(1, m * k), numbers::<T>(2, n * k), numbers::<f32>(3, n));
    let values = |numbers: &[T]| numbers.iter().map(|number| number.value()).collect::<Vec<f32>>();
    let biased = reference::product(&values(&x), &values(&w), Some(&bias), k);
    let activated: Vec<f64> = biased.iter().copied().map(reference::gelu).collect();
    let x = upload_padded(gpu, &x, padded_rows(m) * k * 2)?;
    let (w, bias) = (upload(gpu, &w)?, upload(gpu, &bias)?);
    let out = DeviceBuffer::new(gpu, padded_rows(m) * n * 2)?;
    let cases = [
        (Epilogue::None, true, "gemm_sm90", &biased),
        (Epilogue::Gelu, true, "gemm_gelu_sm90", &activated),
        (Epilogue::None, false, "gemm", &biased),
    ];
    for (epilogue, hopper, family, expected) in cases {
        gpu.set_hopper_gemm(hopper);
        session.take_log();
        let mut pass = gpu.begin()?;
        let (x, w, bias) = (x.all(), w.all(), Some(bias.all()));
        pass.gemm(&Gemm { number, x, w, bias, out: out.all(), epilogue, m, n, k })?;
        pass.finish()?.wait()?;
        assert_eq!(launched(session), [format!("{family}_{number}")]);
        assert_near(&download::<T>(&out, m * n)?, expected, family);
    }
    Ok(())
}
