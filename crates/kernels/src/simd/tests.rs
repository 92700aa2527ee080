use super::*;

/// Every method, on numbers for which it is exact in all forms, so that all widths must agree to the bit.
struct EveryMethod {
    x: [f32; 16],
}

impl Kernel for EveryMethod {
    type Output = Vec<u32>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<u32> {
        let mut found = Vec::new();
        let mut keep = |value: S::F32| {
            let mut lanes = [0.0_f32; 16];
            // SAFETY: no vector is longer than sixteen lanes.
            unsafe { simd.store(lanes.as_mut_ptr(), value) };
            found.extend(lanes[..S::WIDTH].iter().map(|x| if x.is_nan() { u32::MAX } else { x.to_bits() }));
        };
        for start in (0..16).step_by(S::WIDTH) {
            // SAFETY: `start + WIDTH` is at most 16.
            let x = unsafe { simd.load(self.x[start..].as_ptr()) };
            let three = simd.splat(3.0);
            keep(simd.add(x, three));
            keep(simd.sub(x, three));
            keep(simd.mul(x, three));
            keep(simd.div(three, three));
            keep(simd.min(three, x));
            keep(simd.max(three, x));
            keep(simd.abs(x));
            keep(simd.mul_add(x, three, three));
            keep(simd.neg_mul_add(x, three, three));
            let (fraction, power) = simd.split(x);
            keep(simd.scale_by_power(simd.add(fraction, three), power));
            let mut halves = [bf16::ZERO; 16];
            // SAFETY: no vector is longer than sixteen lanes.
            unsafe {
                simd.store_bf16(halves.as_mut_ptr(), x);
                keep(simd.load_bf16(halves.as_ptr()));
            }
            let sums: [i32; 16] = std::array::from_fn(|at| at as i32 * 100_003 - 700_000);
            // SAFETY: as above.
            keep(unsafe { simd.load_i32(sums[start..].as_ptr()) });
            let mut steps = [0_u8; 16];
            // SAFETY: as above.
            unsafe {
                simd.store_u8(steps.as_mut_ptr(), simd.mul(x, simd.splat(2.0)));
                keep(simd.load(steps.map(f32::from).as_ptr()));
            }
        }
        found
    }
}

/// The results of `isa` for `x`, method by method.
fn by_method(isa: Isa, x: [f32; 16]) -> Vec<u32> {
    let width = match isa {
        Isa::Portable | Isa::Avx2 => 8,
        Isa::Avx512 | Isa::Avx512Vnni | Isa::Avx512Bf16 | Isa::Amx => 16,
    };
    let values = run(isa, EveryMethod { x });
    let methods = values.len() / 16;
    (0..methods)
        .flat_map(|method| (0..16).map(move |i| (i / width) * methods * width + method * width + i % width))
        .map(|at| values[at])
        .collect()
}

#[test]
fn all_widths_agree_to_the_bit() {
    let x =
        [0.0, 1.0, -1.0, 2.5, -2.5, 126.0, -100.0, -126.0, 100.25, 101.0, -257.0, 1e-3, -200.0, -1e5, f32::NAN, 0.5];
    let expected = by_method(Isa::Portable, x);
    for isa in Isa::available() {
        assert_eq!(by_method(isa, x), expected, "{isa}");
    }
}

#[test]
fn bf16_rounds_to_nearest_even_and_keeps_nan() {
    struct Round([f32; 16]);
    impl Kernel for Round {
        type Output = [bf16; 16];
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [bf16; 16] {
            let mut halves = [bf16::ZERO; 16];
            for start in (0..16).step_by(S::WIDTH) {
                // SAFETY: `start + WIDTH` is at most 16.
                unsafe { simd.store_bf16(halves[start..].as_mut_ptr(), simd.load(self.0[start..].as_ptr())) };
            }
            halves
        }
    }
    let nan = f32::from_bits(0x7FFF_FFFF);
    let quiet = f32::from_bits(0x7F80_0001);
    let tie = f32::from_bits(0x3F80_8000);
    let above = f32::from_bits(0x3F81_8000);
    let x = [
        tie,
        above,
        -tie,
        -above,
        3.0e38,
        f32::MAX,
        f32::INFINITY,
        f32::NEG_INFINITY,
        1.0,
        -0.0,
        0.1,
        -0.3,
        7e7,
        nan,
        quiet,
        -nan,
    ];
    for isa in Isa::available() {
        let found = run(isa, Round(x));
        for (found, x) in found.into_iter().zip(x) {
            let expected = bf16::from_f32(x);
            assert!(found.to_bits() == expected.to_bits() || (found.is_nan() && x.is_nan()), "{isa}: {x} {found}");
        }
    }
}

#[test]
fn transpose_handles_blocks_of_any_size() {
    struct Block {
        rows: usize,
        columns: usize,
    }
    impl Kernel for Block {
        type Output = ();
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) {
            let from: Vec<f32> = (0..20 * 16).map(|i| i as f32).collect();
            let mut to = vec![-1.0_f32; 24 * 16];
            let (rows, columns) = (self.rows.min(S::WIDTH), self.columns.min(S::WIDTH));
            let block =
                Transpose { from: from.as_ptr(), from_stride: 20, to: to.as_mut_ptr(), to_stride: 24, rows, columns };
            // SAFETY: sixteen rows of twenty and of twenty-four words hold any block.
            unsafe { simd.transpose(block) };
            for (i, found) in to.into_iter().enumerate() {
                let (row, column) = (i % 24, i / 24);
                let inside = row < rows && column < columns;
                assert_eq!(found, if inside { (row * 20 + column) as f32 } else { -1.0 }, "{row} {column}");
            }
        }
    }
    for isa in Isa::available() {
        for (rows, columns) in [(16, 16), (1, 1), (16, 3), (5, 16), (8, 8), (15, 14)] {
            run(isa, Block { rows, columns });
        }
    }
}

#[test]
fn reduce_sum_adds_halves() {
    struct Sum([f32; 16]);
    impl Kernel for Sum {
        type Output = f32;
        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> f32 {
            // SAFETY: no vector is longer than sixteen lanes.
            simd.reduce_sum(unsafe { simd.load(self.0.as_ptr()) })
        }
    }
    let x = std::array::from_fn(|i| 1.0 / (i as f32 + 3.0));
    for isa in Isa::available() {
        let expected = if isa <= Isa::Avx2 { Portable::<8>.run(Sum(x)) } else { Portable::<16>.run(Sum(x)) };
        assert_eq!(run(isa, Sum(x)), expected, "{isa}");
    }
}
