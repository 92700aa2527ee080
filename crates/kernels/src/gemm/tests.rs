use proptest::prelude::*;

use super::*;
use crate::{
    Buffer,
    testing::{Random, rounded, widened},
};

const PRECISIONS: [Precision; 3] = [Precision::F32, Precision::Bf16, Precision::Int8];

struct Product {
    n: usize,
    k: usize,
    x: Vec<f32>,
    weights: Vec<f32>,
    bias: Vec<f32>,
    residual: Vec<f32>,
}

impl Product {
    fn new(m: usize, n: usize, k: usize, seed: u64) -> Self {
        let mut random = Random::new(seed);
        let mut numbers = |count| random.numbers(count, 1.0);
        Self { n, k, x: numbers(m * k), weights: numbers(n * k), bias: numbers(n), residual: numbers(m * n) }
    }

    fn packed(&self, precision: Precision) -> PackedWeights {
        PackedWeights::new(precision, self.n, self.k, |row, numbers| {
            numbers.copy_from_slice(&self.weights[row * self.k..][..self.k]);
        })
    }

    /// The reference: in f64, from numbers rounded as the precision rounds them.
    fn reference(&self, precision: Precision) -> Vec<f64> {
        let as_used = |numbers: &[f32], row: bool| -> Vec<f64> {
            let rounded = |x: &f32| f64::from(bf16::from_f32(*x).to_f32());
            match precision {
                Precision::F32 => numbers.iter().map(|x| f64::from(*x)).collect(),
                Precision::Bf16 => numbers.iter().map(rounded).collect(),
                Precision::Int8 => numbers.chunks_exact(self.k).flat_map(|part| steps(part, row)).collect(),
            }
        };
        let (x, weights) = (as_used(&self.x, true), as_used(&self.weights, false));
        let mut out = Vec::new();
        for x in x.chunks_exact(self.k) {
            for (weights, bias) in weights.chunks_exact(self.k).zip(&self.bias) {
                out.push(x.iter().zip(weights).map(|(x, w)| x * w).sum::<f64>() + f64::from(*bias));
            }
        }
        out
    }

    fn run(&self, isa: Isa, precision: Precision, epilogue: Epilogue<'_>) -> Vec<f32> {
        let mut out = vec![f32::NAN; self.x.len() / self.k * self.n];
        matmul(isa, Rows::F32(&self.x), &self.packed(precision), epilogue, RowsMut::F32(&mut out));
        out
    }
}

/// A row or a column rounded to int8, as the numbers that it stands for.
fn steps(numbers: &[f32], row: bool) -> Vec<f64> {
    if row {
        let least = numbers.iter().fold(0.0_f32, |a, x| a.min(*x));
        let greatest = numbers.iter().fold(0.0_f32, |a, x| a.max(*x));
        let scale = (greatest - least) / 255.0;
        let zero = (-least / scale).round();
        numbers.iter().map(|x| f64::from(((x / scale + zero).round() - zero) * scale)).collect()
    } else {
        let scale = numbers.iter().fold(0.0_f32, |a, x| a.max(x.abs())) / 127.0;
        numbers.iter().map(|x| f64::from((x / scale).round() * scale)).collect()
    }
}

fn normal(x: f64) -> f64 {
    // Φ by its series, which converges for every x that tests use.
    let (mut term, mut sum) = (x, x);
    for i in 1..200 {
        term *= x * x / f64::from(2 * i + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / std::f64::consts::TAU.sqrt()
}

fn assert_close(found: &[f32], expected: &[f64], tolerance: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    for (at, (found, expected)) in found.iter().zip(expected).enumerate() {
        let difference = (f64::from(*found) - expected).abs();
        assert!(difference <= tolerance, "{what}: number {at} is {found}, expected {expected}");
    }
}

/// The largest error of `k` rounded products of numbers below 1. A step of int8 may round either way at a half.
fn tolerance(precision: Precision, k: usize) -> f64 {
    let k = k as f64;
    match precision {
        Precision::F32 | Precision::Bf16 => 1e-6 * k.max(8.0),
        Precision::Int8 => 1e-5 * k.max(8.0) + 2e-2,
    }
}

fn check(m: usize, n: usize, k: usize, seed: u64) {
    let product = Product::new(m, n, k, seed);
    for precision in PRECISIONS {
        let expected = product.reference(precision);
        for isa in Isa::available() {
            let what = format!("{isa} {precision:?} {m}x{n}x{k}");
            let tolerance = tolerance(precision, k);
            let bias = product.run(isa, precision, Epilogue::Bias(&product.bias));
            assert_close(&bias, &expected, tolerance, &what);
            let gelu = product.run(isa, precision, Epilogue::BiasGelu(&product.bias));
            let expected_gelu: Vec<f64> = expected.iter().map(|x| x * normal(x.clamp(-12.0, 12.0))).collect();
            assert_close(&gelu, &expected_gelu, 1.2 * tolerance + 1e-5, &what);
            let mut added = product.residual.clone();
            let (x, weights) = (Rows::F32(&product.x), product.packed(precision));
            matmul(isa, x, &weights, Epilogue::BiasAdd(&product.bias), RowsMut::F32(&mut added));
            let sums: Vec<f64> = expected.iter().zip(&product.residual).map(|(x, r)| x + f64::from(*r)).collect();
            assert_close(&added, &sums, tolerance, &what);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn every_isa_matches_the_reference(m in 0_usize..70, n in 1_usize..90, k in 1_usize..150, seed: u64) {
        check(m, n, k, seed);
    }
}

#[test]
fn edge_sizes_match_the_reference() {
    for (m, n, k) in [(1, 1, 1), (1, 1, 1025), (513, 17, 31), (33, 129, 384), (3, 64, 2600), (600, 48, 1536)] {
        check(m, n, k, 3);
    }
}

#[test]
fn bytes_are_known_before_packing() {
    for precision in PRECISIONS {
        for (n, k) in [(1, 1), (16, 16), (17, 65), (90, 150)] {
            let packed = Product::new(1, n, k, 7).packed(precision);
            assert_eq!(PackedWeights::bytes_for(precision, n, k), packed.bytes(), "{precision:?}, {n}x{k}");
        }
    }
}

#[test]
fn row_alone_equals_row_in_batch() {
    let product = Product::new(67, 70, 1100, 11);
    for precision in PRECISIONS {
        let packed = product.packed(precision);
        for isa in Isa::available() {
            let all = product.run(isa, precision, Epilogue::Bias(&product.bias));
            for row in [0, 1, 5, 31, 32, 47, 66] {
                let mut alone = vec![0.0; product.n];
                let x = Rows::F32(&product.x[row * product.k..][..product.k]);
                matmul(isa, x, &packed, Epilogue::Bias(&product.bias), RowsMut::F32(&mut alone));
                assert_eq!(alone, all[row * product.n..][..product.n], "{isa} {precision:?} row {row}");
            }
        }
    }
}

#[test]
fn bf16_input_and_output_match_f32() {
    for (m, k) in [(37, 128), (64, 128), (5, 30), (40, 1024)] {
        let mut product = Product::new(m, 33, k, 7);
        product.x = widened(&rounded(&product.x));
        let x = rounded(&product.x);
        for precision in PRECISIONS {
            let packed = product.packed(precision);
            for isa in Isa::available() {
                let expected = product.run(isa, precision, Epilogue::Bias(&product.bias));
                let mut out = vec![bf16::NAN; expected.len()];
                let epilogue = Epilogue::Bias(&product.bias);
                matmul(isa, Rows::Bf16(&x), &packed, epilogue, RowsMut::Bf16(&mut out));
                assert_eq!(out, rounded(&expected), "{isa} {precision:?} {m}x{k}");
            }
        }
    }
}

/// Rows in whole cache lines, followed by others, so that tiles read them where they are.
#[test]
fn rows_beyond_the_output_are_ignored() {
    let (m, n, k) = (37, 40, 384);
    let mut product = Product::new(m, n, k, 5);
    product.x = widened(&rounded(&product.x));
    let mut buffer = Buffer::default();
    for precision in PRECISIONS {
        let packed = product.packed(precision);
        for isa in Isa::available() {
            let expected = product.run(isa, precision, Epilogue::Bias(&product.bias));
            let mut out = vec![0.0; m * n];
            let x = buffer.f32(64 * k);
            x.fill(f32::NAN);
            x[..m * k].copy_from_slice(&product.x);
            let bias = Epilogue::Bias(&product.bias);
            matmul(isa, Rows::F32(buffer.f32(64 * k)), &packed, bias, RowsMut::F32(&mut out));
            assert_eq!(out, expected, "{isa} {precision:?} f32");
            let x = buffer.bf16(64 * k);
            x.fill(bf16::NAN);
            x[..m * k].copy_from_slice(&rounded(&product.x));
            matmul(isa, Rows::Bf16(buffer.bf16(64 * k)), &packed, bias, RowsMut::F32(&mut out));
            assert_eq!(out, expected, "{isa} {precision:?} bf16");
        }
    }
}

/// The step for 0 is 100.5 rounded up, so the largest number would be step 256.
#[test]
fn int8_steps_do_not_overflow() {
    let k = 20;
    let mut x = vec![0.0; k];
    (x[3], x[17]) = (-100.5, 154.5);
    for (at, expected) in [(3, -100.5), (17, 154.5)] {
        let weights = PackedWeights::new(Precision::Int8, 1, k, |_, numbers| numbers[at] = 1.0);
        for isa in Isa::available() {
            let mut out = [0.0];
            matmul(isa, Rows::F32(&x), &weights, Epilogue::Bias(&[0.0]), RowsMut::F32(&mut out));
            assert!((out[0] - expected).abs() <= 0.5, "{isa}: {} for {expected}", out[0]);
        }
    }
}

#[test]
fn nan_stays_in_its_row() {
    for bad in [f32::NAN, f32::INFINITY] {
        let mut product = Product::new(40, 20, 100, 2);
        product.x[7 * 100 + 3] = bad;
        for precision in PRECISIONS {
            for isa in Isa::available() {
                let out = product.run(isa, precision, Epilogue::Bias(&product.bias));
                for (row, numbers) in out.chunks_exact(20).enumerate() {
                    assert_eq!(numbers.iter().all(|x| x.is_finite()), row != 7, "{isa} {precision:?} row {row}");
                    assert!(row != 7 || numbers.iter().all(|x| !x.is_finite()));
                }
            }
        }
    }
}

#[test]
#[should_panic(expected = "the bias has a number for each column")]
fn bias_of_another_length_panics() {
    Product::new(2, 3, 4, 1).run(Isa::detect(), Precision::F32, Epilogue::Bias(&[0.0; 2]));
}
