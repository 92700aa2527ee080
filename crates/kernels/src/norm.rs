//! Layer norm.

use std::slice;

use half::bf16;

use crate::{
    Isa,
    reduce::{Identity, SquaredDeviation, sum},
    simd::{Kernel, Portable, Simd, run},
};

/// `(x − mean) / sqrt(variance + eps) · weight + bias` of each row of `[rows, width]`, where the variance is that of
/// the whole row (no Bessel correction).
///
/// The mean is computed first, then the variance, in f32: a large mean costs no digits of the variance.
///
/// Source: `torch.nn.LayerNorm`.
///
/// ```
/// use polylance_kernels::{Isa, LayerNorm, NormOutput};
///
/// let norm = LayerNorm::new(&[1.0, 1.0], &[0.0, 1.0], 0.0);
/// let mut y = [0.0; 4];
/// norm.forward(Isa::detect(), &[1.0, 3.0, 5.0, 3.0], NormOutput::F32(&mut y));
/// assert_eq!(y, [-1.0, 2.0, 1.0, 0.0]);
/// ```
#[derive(Debug, Clone, Copy)]
pub struct LayerNorm<'a> {
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

/// The output of a norm: `[rows, width]` each.
#[derive(Debug)]
pub enum NormOutput<'a> {
    /// As they are.
    F32(&'a mut [f32]),
    /// Rounded, for a matrix product in bf16.
    Bf16(&'a mut [bf16]),
    /// As they are, for the residual, and rounded, for the product.
    Both(&'a mut [f32], &'a mut [bf16]),
}

impl<'a> LayerNorm<'a> {
    /// A norm of rows as long as `weight` and `bias`.
    ///
    /// # Panics
    ///
    /// The two differ in length or are empty.
    pub fn new(weight: &'a [f32], bias: &'a [f32], eps: f32) -> Self {
        assert_eq!(weight.len(), bias.len(), "a layer norm has a bias for every weight");
        assert!(!weight.is_empty(), "a layer norm has at least one weight");
        Self { weight, bias, eps }
    }

    /// Numbers in a row.
    pub fn width(&self) -> usize {
        self.weight.len()
    }

    /// Normalizes the rows of `x` into `out`.
    ///
    /// # Panics
    ///
    /// `x` or `out` is not whole rows, or they differ in length.
    pub fn forward(&self, isa: Isa, x: &[f32], out: NormOutput<'_>) {
        let to = Self::pointers(x.len(), out);
        self.run(isa, x.as_ptr(), to, x.len());
    }

    /// Normalizes the rows of `x` in place, and into `rounded` where it is given.
    ///
    /// # Panics
    ///
    /// `x` or `rounded` is not whole rows, or they differ in length.
    pub fn forward_in_place(&self, isa: Isa, x: &mut [f32], rounded: Option<&mut [bf16]>) {
        let (len, x) = (x.len(), x.as_mut_ptr());
        let rounded = rounded.map(|rounded| checked_ptr(rounded, len));
        self.run(isa, x, OutputPtrs { exact: Some(x), rounded }, len);
    }

    fn pointers(len: usize, out: NormOutput<'_>) -> OutputPtrs {
        let (exact, rounded) = match out {
            NormOutput::F32(exact) => (Some(exact), None),
            NormOutput::Bf16(rounded) => (None, Some(rounded)),
            NormOutput::Both(exact, rounded) => (Some(exact), Some(rounded)),
        };
        OutputPtrs {
            exact: exact.map(|exact| checked_ptr(exact, len)),
            rounded: rounded.map(|rounded| checked_ptr(rounded, len)),
        }
    }

    /// Every pointer is to `len` numbers.
    fn run(&self, isa: Isa, x: *const f32, to: OutputPtrs, len: usize) {
        assert_eq!(len % self.width(), 0, "rows are as long as the norm is wide");
        run(isa, Rows { norm: self, x, to, count: len / self.width() });
    }
}

fn checked_ptr<T>(out: &mut [T], len: usize) -> *mut T {
    assert_eq!(out.len(), len, "the output of a layer norm is as large as its input");
    out.as_mut_ptr()
}

/// The output. Pointers, because `exact` may be the input row.
#[derive(Debug, Clone, Copy)]
struct OutputPtrs {
    exact: Option<*mut f32>,
    rounded: Option<*mut bf16>,
}

/// All rows. Every pointer is to `count` rows of the norm's width.
struct Rows<'a> {
    norm: &'a LayerNorm<'a>,
    x: *const f32,
    to: OutputPtrs,
    count: usize,
}

impl Kernel for Rows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let width = self.norm.width();
        for start in (0..self.count * width).step_by(width) {
            // SAFETY: each pointer is to `count` rows, checked where it was made, so row `start / width` is inside. The
            // shared slice ends with the last read of the row, before its memory is written to.
            unsafe {
                let x = self.x.add(start);
                let mean = sum(simd, slice::from_raw_parts(x, width), Identity) / width as f32;
                let squares = sum(simd, slice::from_raw_parts(x, width), SquaredDeviation { mean });
                let scale = 1.0 / (squares / width as f32 + self.norm.eps).sqrt();
                let to = OutputPtrs {
                    exact: self.to.exact.map(|to| to.add(start)),
                    rounded: self.to.rounded.map(|to| to.add(start)),
                };
                self.norm.write(simd, x, Moments { mean, scale }, to);
            }
        }
    }
}

/// Mean, and the inverse of the standard deviation.
#[derive(Debug, Clone, Copy)]
struct Moments {
    mean: f32,
    scale: f32,
}

impl LayerNorm<'_> {
    /// # Safety
    ///
    /// All pointers are to a row of the norm's width. `to.exact` may be `x`.
    #[inline(always)]
    unsafe fn write<S: Simd>(&self, simd: S, x: *const f32, moments: Moments, to: OutputPtrs) {
        let vectors = self.width() / S::WIDTH;
        // SAFETY: the vectors end where the row ends or before.
        unsafe {
            for i in 0..vectors {
                self.write_at(simd, x, moments, to, i * S::WIDTH);
            }
            for i in vectors * S::WIDTH..self.width() {
                self.write_at(Portable::<1>, x, moments, to, i);
            }
        }
    }

    /// # Safety
    ///
    /// As for `write`, and a vector from `at` ends inside the row.
    #[inline(always)]
    unsafe fn write_at<S: Simd>(&self, simd: S, x: *const f32, moments: Moments, to: OutputPtrs, at: usize) {
        // SAFETY: the caller's promise; the numbers are read before their memory is written.
        unsafe {
            let centered = simd.sub(simd.load(x.add(at)), simd.splat(moments.mean));
            let scaled = simd.mul(centered, simd.splat(moments.scale));
            let weight = simd.load(self.weight.as_ptr().add(at));
            let y = simd.mul_add(scaled, weight, simd.load(self.bias.as_ptr().add(at)));
            if let Some(exact) = to.exact {
                simd.store(exact.add(at), y);
            }
            if let Some(rounded) = to.rounded {
                simd.store_bf16(rounded.add(at), y);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::testing::{Random, assert_near};

    const EPS: f32 = 1e-5;

    /// The reference, in f64.
    fn reference(x: &[f32], weight: &[f32], bias: &[f32]) -> Vec<f32> {
        let width = weight.len() as f64;
        let mut out = Vec::new();
        for row in x.chunks_exact(weight.len()) {
            let mean = row.iter().map(|x| f64::from(*x)).sum::<f64>() / width;
            let variance = row.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum::<f64>() / width;
            let scale = 1.0 / (variance + f64::from(EPS)).sqrt();
            let scaled = row.iter().map(|x| (f64::from(*x) - mean) * scale);
            out.extend(
                scaled.zip(weight.iter().zip(bias)).map(|(x, (w, b))| (x * f64::from(*w) + f64::from(*b)) as f32),
            );
        }
        out
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn every_isa_matches_the_reference(
            seed: u64,
            rows in 0_usize..5,
            width in 1_usize..200,
            mean in -30.0_f32..30.0,
        ) {
            let mut random = Random::new(seed);
            let x: Vec<f32> = random.numbers(rows * width, 3.0).into_iter().map(|x| x + mean).collect();
            let (weight, bias) = (random.numbers(width, 1.0), random.numbers(width, 1.0));
            let norm = LayerNorm::new(&weight, &bias, EPS);
            for isa in Isa::available() {
                let (mut exact, mut rounded) = (vec![f32::NAN; x.len()], vec![bf16::NAN; x.len()]);
                norm.forward(isa, &x, NormOutput::Both(&mut exact, &mut rounded));
                assert_near(&exact, &reference(&x, &weight, &bias), 2e-4);
                let expected: Vec<bf16> = exact.iter().map(|x| bf16::from_f32(*x)).collect();
                prop_assert_eq!(&rounded, &expected);

                let mut found = x.clone();
                norm.forward_in_place(isa, &mut found, None);
                prop_assert_eq!(&found, &exact);
            }
        }
    }

    #[test]
    fn row_alone_equals_row_in_batch() {
        let width = 100;
        let mut random = Random::new(5);
        let (weight, bias) = (random.numbers(width, 1.0), random.numbers(width, 1.0));
        let norm = LayerNorm::new(&weight, &bias, EPS);
        let row = random.numbers(width, 1.0);
        for isa in Isa::available() {
            let mut alone = row.clone();
            norm.forward_in_place(isa, &mut alone, None);
            let mut among = random.numbers(3 * width, 9.0);
            among.extend(&row);
            norm.forward_in_place(isa, &mut among, None);
            assert_eq!(among[3 * width..], alone);
        }
    }

    #[test]
    fn nan_stays_in_its_row() {
        let mut x = vec![1.0, 2.0, f32::NAN, 4.0, 1.0, 2.0, 3.0, 4.0];
        LayerNorm::new(&[1.0; 4], &[0.0; 4], EPS).forward_in_place(Isa::detect(), &mut x, None);
        assert!(x[..4].iter().all(|x| x.is_nan()) && x[4..].iter().all(|x| x.is_finite()));
    }

    #[test]
    #[should_panic(expected = "the output of a layer norm is as large as its input")]
    fn output_must_be_as_large_as_the_input() {
        LayerNorm::new(&[1.0; 4], &[0.0; 4], EPS).forward(Isa::detect(), &[0.0; 8], NormOutput::F32(&mut [0.0; 4]));
    }
}
