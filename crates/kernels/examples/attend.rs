//! Prints what one core reaches in attention.
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::time::Instant;

use half::bf16;
use polylance_kernels::{Isa, SelfAttention};

fn main() {
    for (heads, size) in [(12, 32), (32, 80)] {
        let attention = SelfAttention::new(heads, size, 0.2);
        for tokens in [12, 103, 512] {
            let sequences = 1000 / tokens + 1;
            let borders: Vec<u32> = (0..=sequences).map(|s| (s * tokens) as u32).collect();
            let total = sequences * tokens;
            let qkv: Vec<f32> =
                (0..total * 3 * attention.hidden()).map(|at| ((at * 31) % 101) as f32 / 101.0 - 0.5).collect();
            let halves: Vec<bf16> = qkv.iter().map(|x| bf16::from_f32(*x)).collect();
            let operations = (4 * sequences * tokens * tokens * attention.hidden()) as f64;
            for isa in Isa::available().filter(|isa| *isa >= Isa::Avx2) {
                let (mut a, mut b) =
                    (vec![0.0; total * attention.hidden()], vec![bf16::ZERO; total * attention.hidden()]);
                let f = best(|| attention.forward_f32(isa, &qkv, &borders, &mut a));
                let h = best(|| attention.forward_bf16(isa, &halves, &borders, &mut b));
                println!(
                    "{heads} x {size}, {tokens} tokens, {isa}: f32 {:.0} G/s ({:.2} us a token), bf16 {:.0} G/s ({:.2})",
                    operations / f / 1e9,
                    f * 1e6 / total as f64,
                    operations / h / 1e9,
                    h * 1e6 / total as f64
                );
            }
        }
    }
}

fn best(mut run: impl FnMut()) -> f64 {
    (0..8)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed().as_secs_f64()
        })
        .fold(f64::INFINITY, f64::min)
}
