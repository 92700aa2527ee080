//! Numbers that depend on a seed and their index, the same on the device and on the host.

use half::{bf16, f16};
use polylance_cuda::NumberType;

/// `offset + scale · u`, with `u` uniform in `[-1, 1)`, rounded to the number type, like the kernel `fill`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Formula {
    pub(crate) number: NumberType,
    pub(crate) seed: u64,
    pub(crate) offset: f32,
    pub(crate) scale: f32,
}

impl Formula {
    /// Numbers about 0.
    pub(crate) fn new(number: NumberType, seed: u64, scale: f32) -> Self {
        // Adjacent seeds would otherwise give the same numbers, shifted by one.
        Self { number, seed: splitmix64(seed), offset: 0.0, scale }
    }

    /// The number at `index`.
    pub(crate) fn at(&self, index: usize) -> f32 {
        let bits = splitmix64(self.seed.wrapping_add(index as u64)) >> 40;
        rounded(self.number, self.offset + self.scale * (bits as f32 / (1 << 23) as f32 - 1.0))
    }
}

/// The nearest number that the type has.
pub(crate) fn rounded(number: NumberType, x: f32) -> f32 {
    match number {
        NumberType::F32 => x,
        NumberType::Bf16 => bf16::from_f32(x).to_f32(),
        NumberType::F16 => f16::from_f32(x).to_f32(),
    }
}

fn splitmix64(value: u64) -> u64 {
    let mut mixed = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Random numbers for lengths and orders; the same in every run.
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(splitmix64(seed))
    }

    /// A number below `end`, which is not 0.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(1);
        (splitmix64(self.0) % end as u64) as usize
    }

    /// Puts items into a random order.
    pub(crate) fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use polylance_encoder::synthetic;

    use super::*;

    #[test]
    fn numbers_are_those_of_synthetic_checkpoints() {
        let (name, shape) = ("encoder.layer.0.output.dense.weight", [3, 8]);
        let seed = name
            .bytes()
            .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let formula = Formula { number: NumberType::F32, seed, offset: 0.0, scale: (3.0f32 / 8.0).sqrt() };
        let numbers: Vec<f32> = (0..24).map(|index| formula.at(index)).collect();
        assert_eq!(numbers, synthetic::numbers(name, &shape, 0, 24));
    }

    #[test]
    fn a_shuffle_keeps_every_item() {
        let mut items: Vec<usize> = (0..50).collect();
        Random::new(7).shuffle(&mut items);
        assert_ne!(items, (0..50).collect::<Vec<_>>());
        items.sort_unstable();
        assert_eq!(items, (0..50).collect::<Vec<_>>());
    }
}
