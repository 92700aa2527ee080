//! Every kernel, launched through the checked interface, against a plain reference: names, parameters and grids fit.

#![cfg(target_os = "linux")]

mod common;

use std::sync::Arc;

use common::{Stored, assert_near, download, numbers, reference, upload, upload_padded};
use half::{bf16, f16};
use polylance_cuda::{
    DeviceBuffer, Gpu, NumberType, Result,
    ops::{
        Activation, AddNorm, Attention, Embed, Epilogue, Fill, GatherRows, GatherRowsF32, Gemm, Linear, Norm, NormRows,
        Placement, Pool, PoolMode,
    },
    padded_rows,
};
use polylance_fake_cuda::{FakeDriver, Session};

const EPS: f32 = 1e-5;

/// Memory is enough for the tests, and its poison shows what a kernel does not write.
fn session() -> (Session, Arc<Gpu>) {
    let session = FakeDriver::session();
    let gpu = Gpu::open(0).unwrap_or_else(|error| panic!("{error}"));
    (session, gpu)
}

fn values<T: Stored>(numbers: &[T]) -> Vec<f32> {
    numbers.iter().map(|number| number.value()).collect()
}

fn wide(numbers: &[f32]) -> Vec<f64> {
    numbers.iter().copied().map(f64::from).collect()
}

/// A norm's weights, on the host and on the device.
struct NormWeights {
    weight: Vec<f32>,
    bias: Vec<f32>,
    buffers: [DeviceBuffer; 2],
}

impl NormWeights {
    fn new(gpu: &Arc<Gpu>, hidden: usize) -> Result<Self> {
        let (weight, bias) = (numbers::<f32>(91, hidden), numbers::<f32>(92, hidden));
        let buffers = [upload(gpu, &weight)?, upload(gpu, &bias)?];
        Ok(Self { weight, bias, buffers })
    }

    fn on_device(&self) -> Norm<'_> {
        Norm { weight: self.buffers[0].all(), bias: self.buffers[1].all(), eps: EPS }
    }

    fn of(&self, row: &[f64]) -> Vec<f64> {
        reference::layer_norm(row, &self.weight, &self.bias, EPS)
    }
}

#[test]
fn add_norm_matches_the_reference() -> Result<()> {
    let (_session, gpu) = session();
    for hidden in [8, 512, 520, 2560, 8192] {
        add_norm::<f32>(&gpu, hidden)?;
    }
    add_norm::<bf16>(&gpu, 1032)?;
    add_norm::<f16>(&gpu, 64)
}

fn add_norm<T: Stored>(gpu: &Arc<Gpu>, hidden: usize) -> Result<()> {
    let tokens = 5;
    let norm = NormWeights::new(gpu, hidden)?;
    let (states, y) = (numbers::<f32>(1, tokens * hidden), numbers::<T>(2, tokens * hidden));
    let bias = numbers::<f32>(3, hidden);
    let sums: Vec<f64> = (0..tokens * hidden)
        .map(|place| f64::from(states[place]) + f64::from(y[place].value()) + f64::from(bias[place % hidden]))
        .collect();
    let norms: Vec<f64> = sums.chunks(hidden).flat_map(|row| norm.of(row)).collect();
    let (y, bias) = (upload(gpu, &y)?, upload(gpu, &bias)?);
    let cases = [
        (Placement::Pre(norm.on_device()), &sums, &norms),
        (Placement::Post(norm.on_device()), &norms, &norms),
        (Placement::None, &sums, &sums),
    ];
    for (placement, expected_states, expected_x) in cases {
        let states = upload(gpu, &states)?;
        let x = DeviceBuffer::new(gpu, tokens * hidden * T::TYPE.bytes())?;
        let mut pass = gpu.begin()?;
        pass.add_norm(&AddNorm {
            number: T::TYPE,
            y: Some(y.all()),
            bias: Some(bias.all()),
            placement,
            states: states.all(),
            x: Some(x.all()),
            tokens,
            hidden,
        })?;
        pass.finish()?.wait()?;
        assert_near(&download::<f32>(&states, tokens * hidden)?, expected_states, "states");
        assert_near(&download::<T>(&x, tokens * hidden)?, expected_x, "x");
    }
    Ok(())
}

#[test]
fn norm_rows_matches_the_reference() -> Result<()> {
    let (_session, gpu) = session();
    let (rows, hidden) = (6, 264);
    let norm = NormWeights::new(&gpu, hidden)?;
    let y = numbers::<bf16>(4, rows * hidden);
    let expected: Vec<f64> = wide(&values(&y)).chunks(hidden).flat_map(|row| norm.of(row)).collect();
    let y = upload(&gpu, &y)?;
    let x = DeviceBuffer::new(&gpu, rows * hidden * 2)?;
    let mut pass = gpu.begin()?;
    let (number, norm) = (NumberType::Bf16, norm.on_device());
    pass.norm_rows(&NormRows { number, y: y.all(), norm, x: x.all(), rows, hidden })?;
    pass.finish()?.wait()?;
    assert_near(&download::<bf16>(&x, rows * hidden)?, &expected, "x");
    Ok(())
}

#[test]
fn embed_sums_rows_of_the_tables() -> Result<()> {
    let (_session, gpu) = session();
    embed::<f32>(&gpu)?;
    embed::<bf16>(&gpu)?;
    embed::<f16>(&gpu)
}

fn embed<T: Stored>(gpu: &Arc<Gpu>) -> Result<()> {
    let (tokens, hidden) = (7, 72);
    let norm = NormWeights::new(gpu, hidden)?;
    let tables = [numbers::<T>(5, 11 * hidden), numbers::<T>(6, 9 * hidden), numbers::<T>(7, 2 * hidden)];
    let ids: Vec<u32> = vec![3, 0, 10, 10, 7, 1, 2];
    let positions: Vec<u32> = vec![0, 1, 2, 8, 0, 1, 2];
    let types: Vec<u32> = vec![0, 0, 1, 1, 0, 1, 0];
    let table_buffers = [upload(gpu, &tables[0])?, upload(gpu, &tables[1])?, upload(gpu, &tables[2])?];
    let index_buffers = [upload(gpu, &ids)?, upload(gpu, &positions)?, upload(gpu, &types)?];
    for with_types in [true, false] {
        let place =
            |table: usize, row: u32, column: usize| f64::from(tables[table][row as usize * hidden + column].value());
        let sums: Vec<f64> = (0..tokens * hidden)
            .map(|at| {
                let (token, column) = (at / hidden, at % hidden);
                let token_type = if with_types { types[token] } else { 0 };
                place(0, ids[token], column) + place(1, positions[token], column) + place(2, token_type, column)
            })
            .collect();
        let norms: Vec<f64> = sums.chunks(hidden).flat_map(|row| norm.of(row)).collect();
        let states = DeviceBuffer::new(gpu, tokens * hidden * 4)?;
        let x = DeviceBuffer::new(gpu, tokens * hidden * T::TYPE.bytes())?;
        let mut pass = gpu.begin()?;
        pass.embed(&Embed {
            number: T::TYPE,
            words: table_buffers[0].all(),
            position_table: table_buffers[1].all(),
            type_table: table_buffers[2].all(),
            ids: index_buffers[0].all(),
            positions: index_buffers[1].all(),
            types: with_types.then(|| index_buffers[2].all()),
            placement: Placement::Post(norm.on_device()),
            states: states.all(),
            x: Some(x.all()),
            tokens,
            hidden,
        })?;
        pass.finish()?.wait()?;
        assert_near(&download::<f32>(&states, tokens * hidden)?, &norms, "states");
        assert_near(&download::<T>(&x, tokens * hidden)?, &norms, "x");
    }
    Ok(())
}

#[test]
fn gemm_matches_the_reference() -> Result<()> {
    let (_session, gpu) = session();
    for (m, n, k) in [(1, 8, 8), (130, 136, 72)] {
        gemm::<f32>(&gpu, m, n, k)?;
        gemm::<bf16>(&gpu, m, n, k)?;
        gemm::<f16>(&gpu, m, n, k)?;
    }
    Ok(())
}

fn gemm<T: Stored>(gpu: &Arc<Gpu>, m: usize, n: usize, k: usize) -> Result<()> {
    let (x, w, bias) = (numbers::<T>(8, m * k), numbers::<T>(9, n * k), numbers::<f32>(10, n));
    let plain = reference::product(&values(&x), &values(&w), None, k);
    let biased = reference::product(&values(&x), &values(&w), Some(&bias), k);
    let activated: Vec<f64> = biased.iter().copied().map(reference::gelu).collect();
    let x = upload_padded(gpu, &x, padded_rows(m) * k * T::TYPE.bytes())?;
    let (w, bias) = (upload(gpu, &w)?, upload(gpu, &bias)?);
    let out = DeviceBuffer::new(gpu, padded_rows(m) * n * 4)?;
    let cases = [(Epilogue::None, &biased), (Epilogue::Gelu, &activated), (Epilogue::F32, &plain)];
    for (epilogue, expected) in cases {
        let mut pass = gpu.begin()?;
        pass.gemm(&Gemm {
            number: T::TYPE,
            x: x.all(),
            w: w.all(),
            bias: (epilogue != Epilogue::F32).then(|| bias.all()),
            out: out.all(),
            epilogue,
            m,
            n,
            k,
        })?;
        pass.finish()?.wait()?;
        match epilogue {
            Epilogue::F32 => assert_near(&download::<f32>(&out, m * n)?, expected, "out in f32"),
            _ => assert_near(&download::<T>(&out, m * n)?, expected, "out"),
        }
    }
    Ok(())
}

#[test]
fn linear_matches_the_reference() -> Result<()> {
    let (_session, gpu) = session();
    linear::<f32>(&gpu)?;
    linear::<bf16>(&gpu)?;
    linear::<f16>(&gpu)
}

fn linear<T: Stored>(gpu: &Arc<Gpu>) -> Result<()> {
    type Function = fn(f64) -> f64;
    let (m, n, k) = (5, 11, 96);
    let (x, w, bias) = (numbers::<f32>(11, m * k), numbers::<T>(12, n * k), numbers::<f32>(13, n));
    let sums = reference::product(&x, &values(&w), Some(&bias), k);
    let (x, w, bias) = (upload(gpu, &x)?, upload(gpu, &w)?, upload(gpu, &bias)?);
    let out = DeviceBuffer::new(gpu, m * n * 4)?;
    let cases: [(Activation, Function); 3] =
        [(Activation::None, |x| x), (Activation::Gelu, reference::gelu), (Activation::Tanh, f64::tanh)];
    for (activation, function) in cases {
        let mut pass = gpu.begin()?;
        pass.linear(&Linear {
            number: T::TYPE,
            x: x.all(),
            w: w.all(),
            bias: Some(bias.all()),
            out: out.all(),
            activation,
            m,
            n,
            k,
        })?;
        pass.finish()?.wait()?;
        let expected: Vec<f64> = sums.iter().copied().map(function).collect();
        assert_near(&download::<f32>(&out, m * n)?, &expected, "out");
    }
    Ok(())
}

#[test]
fn attention_stays_within_sequences() -> Result<()> {
    let (_session, gpu) = session();
    for head_size in [32, 64, 80, 96, 128] {
        attention::<bf16>(&gpu, head_size, false)?;
    }
    attention::<f16>(&gpu, 32, true)?;
    attention::<f32>(&gpu, 40, false)?;
    attention::<f32>(&gpu, 33, true)
}

fn attention<T: Stored>(gpu: &Arc<Gpu>, head_size: usize, causal: bool) -> Result<()> {
    let heads = 2;
    let starts: Vec<u32> = vec![0, 3, 3, 70, 71];
    let tile_list: Vec<[u32; 2]> = vec![[0, 0], [2, 0], [2, 64], [3, 0]];
    let tokens = 71;
    let width = heads * head_size;
    let scale = 1.0 / (head_size as f32).sqrt();
    let qkv = numbers::<T>(14, tokens * 3 * width);
    let expected = reference::attention(&values(&qkv), &starts, heads, head_size, scale, causal);
    let (qkv, cu_seqlens, tiles) = (upload(gpu, &qkv)?, upload(gpu, &starts)?, upload(gpu, &tile_list)?);
    let out = DeviceBuffer::new(gpu, tokens * width * T::TYPE.bytes())?;
    let mut pass = gpu.begin()?;
    pass.attention(&Attention {
        number: T::TYPE,
        qkv: qkv.all(),
        cu_seqlens: cu_seqlens.all(),
        tile_list: tiles.all(),
        out: out.all(),
        tokens,
        sequences: starts.len() - 1,
        tiles: tile_list.len(),
        heads,
        head_size,
        scale,
        causal,
    })?;
    pass.finish()?.wait()?;
    assert_near(&download::<T>(&out, tokens * width)?, &expected, "attention");
    Ok(())
}

#[test]
fn pool_returns_one_vector_per_sequence() -> Result<()> {
    type OfColumn = fn(&[f64]) -> f64;
    let (_session, gpu) = session();
    let (tokens, hidden, dim) = (9, 64, 50);
    let starts: Vec<u32> = vec![0, 4, 5, 9];
    let states = numbers::<f32>(15, tokens * hidden);
    let (buffer, cu_seqlens) = (upload(&gpu, &states)?, upload(&gpu, &starts)?);
    let out = DeviceBuffer::new(&gpu, 3 * dim * 4)?;
    let cases: [(PoolMode, OfColumn); 6] = [
        (PoolMode::Cls, |column| column[0]),
        (PoolMode::Mean, |column| column.iter().sum::<f64>() / column.len() as f64),
        (PoolMode::Max, |column| column.iter().copied().fold(f64::MIN, f64::max)),
        (PoolMode::MeanSqrtLen, |column| column.iter().sum::<f64>() / (column.len() as f64).sqrt()),
        (PoolMode::WeightedMean, |column| {
            let weighted = |(place, x): (usize, &f64)| (place + 1) as f64 * x;
            column.iter().enumerate().map(weighted).sum::<f64>() / (1..=column.len()).sum::<usize>() as f64
        }),
        (PoolMode::LastToken, |column| column[column.len() - 1]),
    ];
    for (mode, of_column) in cases {
        for normalize in [false, true] {
            let mut expected = Vec::new();
            for range in starts.windows(2) {
                let column = |column: usize| -> Vec<f64> {
                    (range[0]..range[1]).map(|row| f64::from(states[row as usize * hidden + column])).collect()
                };
                let vector: Vec<f64> = (0..dim).map(|place| of_column(&column(place))).collect();
                let length = if normalize { vector.iter().map(|x| x * x).sum::<f64>().sqrt() } else { 1.0 };
                expected.extend(vector.iter().map(|x| x / length));
            }
            let mut pass = gpu.begin()?;
            pass.pool(&Pool {
                states: buffer.all(),
                cu_seqlens: cu_seqlens.all(),
                out: out.all(),
                tokens,
                sequences: 3,
                hidden,
                dim,
                mode,
                normalize,
            })?;
            pass.finish()?.wait()?;
            assert_near(&download::<f32>(&out, 3 * dim)?, &expected, "pooled");
        }
    }
    Ok(())
}

#[test]
fn rows_are_gathered() -> Result<()> {
    let (_session, gpu) = session();
    let (hidden, count) = (40, 3);
    let rows: Vec<u32> = vec![4, 0, 4];
    let states = numbers::<f32>(16, 5 * hidden);
    let expected: Vec<f64> =
        rows.iter().flat_map(|&row| wide(&states[row as usize * hidden..(row as usize + 1) * hidden])).collect();
    let (states, rows) = (upload(&gpu, &states)?, upload(&gpu, &rows)?);
    let out = DeviceBuffer::new(&gpu, count * hidden * 4)?;
    let (states, rows) = (states.all(), rows.all());
    let gather = |number| GatherRows { number, states, rows, x: out.all(), count, hidden };

    let mut pass = gpu.begin()?;
    pass.gather_rows_f32(&GatherRowsF32 { states, rows, out: out.all(), count, hidden })?;
    pass.finish()?.wait()?;
    assert_near(&download::<f32>(&out, count * hidden)?, &expected, "out");
    let mut pass = gpu.begin()?;
    pass.gather_rows(&gather(NumberType::Bf16))?;
    pass.finish()?.wait()?;
    assert_near(&download::<bf16>(&out, count * hidden)?, &expected, "x");
    let mut pass = gpu.begin()?;
    pass.gather_rows(&gather(NumberType::F16))?;
    pass.finish()?.wait()?;
    assert_near(&download::<f16>(&out, count * hidden)?, &expected, "x");
    Ok(())
}

#[test]
fn fill_follows_its_formula() -> Result<()> {
    let (_session, gpu) = session();
    fill::<f32>(&gpu)?;
    fill::<bf16>(&gpu)?;
    fill::<f16>(&gpu)
}

fn fill<T: Stored>(gpu: &Arc<Gpu>) -> Result<()> {
    let (seed, first, count, offset, scale) = (u64::MAX - 3, 77, 1027, 1.0, 0.5);
    let out = DeviceBuffer::new(gpu, count * T::TYPE.bytes())?;
    let mut pass = gpu.begin()?;
    pass.fill(&Fill { number: T::TYPE, out: out.all(), seed, first, count, offset, scale })?;
    pass.finish()?.wait()?;
    assert_near(&download::<T>(&out, count)?, &reference::fill(seed, first, count, offset, scale), "out");
    Ok(())
}
