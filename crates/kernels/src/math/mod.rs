//! Elementwise functions: powers of two, and GELU.
//!
//! Each is one formula over [`Simd`], without branches, so that all widths compute the same. The functions
//! named `_bf16` are for results that are rounded to bf16; their error is less than a third of that rounding.

use crate::simd::Simd;

/// `2^f` on `[0, 1]`, exact at 0 and elsewhere to a relative error of 8.3e-8. Coefficients start with the constant, as
/// in all tables here.
const EXP2: [f32; 6] = [1.0, 0.693_151_3, 0.240_164_44, 0.055_799_913, 0.009_017_03, 0.001_867_13];

/// `2^f` on `[0, 1]`, exact at 0 and elsewhere to a relative error of 8.6e-5.
const EXP2_BF16: [f32; 4] = [1.0, 0.695_116_76, 0.227_645, 0.077_067_05];

/// `log2 Φ(-a)` on `[0, 10]`, where `Φ` is the normal distribution: `a · Φ(-a)` has an absolute error of 2.1e-7, and
/// a relative one of 5e-5 below 6.5.
const LOG2_TAIL: [f32; 9] = [
    -0.999_983_13,
    -1.151_309_6,
    -0.458_401_02,
    -0.053_972_64,
    0.008_503_927,
    -0.000_932_614_26,
    6.359_476_5e-5,
    -2.244_048_8e-6,
    2.590_348e-8,
];

/// `log2 Φ(-a)`: `a · Φ(-a)` has a relative error of 5e-4 below 6, and keeps falling beyond.
const LOG2_TAIL_BF16: [f32; 6] =
    [-1.000_721_6, -1.142_492_5, -0.475_743_92, -0.041_270_636, 0.004_137_882, -0.000_177_712_92];

/// `2^t` for `t ≤ 0`, to two units in the last place; 1 at 0, and 0 or a subnormal number below -126.
#[inline(always)]
pub(crate) fn exp2<S: Simd>(simd: S, t: S::F32) -> S::F32 {
    let (fraction, power) = simd.split(t);
    simd.scale_by_power(polynomial(simd, fraction, &EXP2), power)
}

/// As [`exp2`], for results that are rounded to bf16: to a relative error of 8.6e-5; 1 at 0.
#[inline(always)]
pub(crate) fn exp2_bf16<S: Simd>(simd: S, t: S::F32) -> S::F32 {
    let (fraction, power) = simd.split(t);
    simd.scale_by_power(polynomial(simd, fraction, &EXP2_BF16), power)
}

/// `x · Φ(x)`, to an absolute error of 3e-7 or a relative one of 1e-7, whichever is larger.
///
/// `x Φ(x) = max(x, 0) − |x| Φ(−|x|)`: the logarithm of the tail is smooth, so small results are precise too.
#[inline(always)]
pub(crate) fn gelu<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    // Beyond its range the polynomial is not the tail, which is below 1e-22 from 10 on.
    let a = simd.min(simd.splat(10.0), simd.abs(x));
    let tail = exp2(simd, polynomial(simd, a, &LOG2_TAIL));
    simd.neg_mul_add(a, tail, simd.max(simd.splat(0.0), x))
}

/// As [`gelu`], for results that are rounded to bf16: to a relative error of 6e-4 above -6, which is 6e-9 from 0.
#[inline(always)]
pub(crate) fn gelu_bf16<S: Simd>(simd: S, x: S::F32) -> S::F32 {
    let a = simd.min(simd.splat(10.0), simd.abs(x));
    let tail = exp2_bf16(simd, polynomial(simd, a, &LOG2_TAIL_BF16));
    simd.neg_mul_add(a, tail, simd.max(simd.splat(0.0), x))
}

#[inline(always)]
fn polynomial<S: Simd, const N: usize>(simd: S, x: S::F32, coefficients: &[f32; N]) -> S::F32 {
    let mut value = simd.splat(coefficients[N - 1]);
    let mut at = N - 1;
    while at > 0 {
        at -= 1;
        value = simd.mul_add(value, x, simd.splat(coefficients[at]));
    }
    value
}

#[cfg(test)]
mod tests;
