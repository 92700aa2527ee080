use proptest::prelude::*;

use super::*;
use crate::{
    Isa,
    simd::{Kernel, Portable, run},
};

/// The function that [`Elementwise`] applies.
#[derive(Debug, Clone, Copy)]
enum Function {
    Exp2,
    Exp2Bf16,
    Gelu,
    GeluBf16,
}

impl Function {
    const ALL: [Self; 4] = [Self::Exp2, Self::Exp2Bf16, Self::Gelu, Self::GeluBf16];

    #[inline(always)]
    fn apply<S: Simd>(self, simd: S, x: S::F32) -> S::F32 {
        match self {
            Self::Exp2 => exp2(simd, x),
            Self::Exp2Bf16 => exp2_bf16(simd, x),
            Self::Gelu => gelu(simd, x),
            Self::GeluBf16 => gelu_bf16(simd, x),
        }
    }
}

/// Applies a function to each number, a multiple of sixteen of them.
struct Elementwise<'a>(Function, &'a mut [f32]);

impl Kernel for Elementwise<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for x in self.1.chunks_exact_mut(S::WIDTH) {
            // SAFETY: the chunk is one vector.
            unsafe { simd.store(x.as_mut_ptr(), self.0.apply(simd, simd.load(x.as_ptr()))) };
        }
    }
}

fn elementwise(isa: Isa, function: Function, x: &[f32]) -> Vec<f32> {
    let mut y = x.to_vec();
    run(isa, Elementwise(function, &mut y));
    y
}

fn scalar(function: Function, x: f32) -> f32 {
    let [y] = function.apply(Portable::<1>, [x]);
    y
}

/// `x · Φ(x)`, with `erfc` by its continued fraction or its series, whichever converges.
fn exact_gelu(x: f64) -> f64 {
    let z = x.abs() / std::f64::consts::SQRT_2;
    let erfc = if z < 2.0 {
        let (mut term, mut sum) = (z, z);
        for n in 1..80 {
            let n = f64::from(n);
            term *= -z * z / n;
            sum += term / (2.0 * n + 1.0);
        }
        1.0 - std::f64::consts::FRAC_2_SQRT_PI * sum
    } else {
        let fraction = (1..200).rev().fold(z, |below, n| z + f64::from(n) / 2.0 / below);
        (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    x.max(0.0) - x.abs() * erfc / 2.0
}

#[test]
fn exp2_is_within_two_ulps() {
    let x: Vec<f32> = (0..126_000 / 16 * 16).map(|i| i as f32 / -1000.0).collect();
    for isa in Isa::available() {
        for (x, found) in x.iter().zip(elementwise(isa, Function::Exp2, &x)) {
            let expected = f64::from(*x).exp2();
            assert!((f64::from(found) - expected).abs() <= 2.4e-7 * expected, "{isa}: {x}: {found} {expected}");
        }
        for (x, found) in x.iter().zip(elementwise(isa, Function::Exp2Bf16, &x)) {
            let expected = f64::from(*x).exp2();
            assert!((f64::from(found) - expected).abs() <= 8.7e-5 * expected, "{isa}: {x}: {found} {expected}");
        }
    }
}

#[test]
fn gelu_matches_the_erf_form() {
    let x: Vec<f32> = (-64_000..64_000).map(|i| i as f32 / 4000.0).collect();
    for isa in Isa::available() {
        for (x, found) in x.iter().zip(elementwise(isa, Function::Gelu, &x)) {
            let expected = exact_gelu(f64::from(*x));
            let allowed = 3e-7_f64.max(1e-7 * expected.abs());
            assert!((f64::from(found) - expected).abs() <= allowed, "{isa}: {x}: {found} {expected}");
        }
        for (x, found) in x.iter().zip(elementwise(isa, Function::GeluBf16, &x)) {
            let expected = exact_gelu(f64::from(*x));
            let allowed = 6e-9_f64.max(6e-4 * expected.abs());
            assert!((f64::from(found) - expected).abs() <= allowed, "{isa}: {x}: {found} {expected}");
        }
    }
}

#[test]
fn extreme_inputs_give_their_limits() {
    let x = [0.0, -0.0, -1e-30, -126.5, -1e4, f32::MIN, f32::NEG_INFINITY, f32::NAN];
    let exp2_of = [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0];
    let gelu_of = [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let x: Vec<f32> = x.into_iter().chain(x).collect();
    for isa in Isa::available() {
        for function in Function::ALL {
            let found = elementwise(isa, function, &x);
            let expected = match function {
                Function::Exp2 | Function::Exp2Bf16 => exp2_of,
                Function::Gelu | Function::GeluBf16 => gelu_of,
            };
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-4, "{isa} {function:?}: {found} {expected}");
            }
            assert!(found[7].is_nan(), "{isa} {function:?}: {}", found[7]);
        }
        let found = elementwise(isa, Function::Gelu, &[1e30; 16]);
        assert_eq!(found, [1e30; 16]);
    }
}

proptest! {
    /// Some instruction sets round a product once and others twice, so the last bits may differ.
    #[test]
    fn every_isa_matches_the_scalar_form(x in prop::collection::vec(-20.0_f32..20.0, 16)) {
        for isa in Isa::available() {
            for function in Function::ALL {
                for (x, found) in x.iter().zip(elementwise(isa, function, &x)) {
                    let expected = scalar(function, *x);
                    prop_assert!((found - expected).abs() <= 2e-6 * expected.abs() + 2e-7, "{isa} {function:?} {x}: {found} {expected}");
                }
            }
        }
    }
}
