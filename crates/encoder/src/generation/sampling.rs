//! Samples the next token: the most likely one, or one drawn from the most likely ones.

use polylance_schema::Generation;

use crate::{
    error::{ModelError, Result},
    synthetic::splitmix64,
};

/// Samples tokens. Its draws are a pure function of the seed.
pub(super) struct Sampler {
    temperature: f32,
    top_k: usize,
    top_p: f32,
    seed: u64,
    draws: u64,
}

impl Sampler {
    /// Checks the options.
    pub(super) fn new(generation: &Generation) -> Result<Self> {
        let &Generation { temperature, top_k, top_p, seed, .. } = generation;
        if !(temperature.is_finite() && temperature >= 0.0) {
            return Err(ModelError::Option(format!("temperature is {temperature}, expected a number from 0")));
        }
        if !(0.0..=1.0).contains(&top_p) {
            return Err(ModelError::Option(format!("top_p is {top_p}, expected a number from 0 to 1")));
        }
        Ok(Self { temperature, top_k, top_p, seed, draws: 0 })
    }

    /// The next id; `logits`: `[vocab]`.
    pub(super) fn next(&mut self, logits: &[f32]) -> u32 {
        if self.temperature == 0.0 {
            return most_likely(logits);
        }
        let candidates = self.candidates(logits);
        let total: f64 = candidates.iter().map(|(_, weight)| weight).sum();
        let mut left = self.draw() * total;
        for (id, weight) in &candidates {
            left -= weight;
            if left < 0.0 {
                return *id;
            }
        }
        candidates.last().map_or(0, |(id, _)| *id)
    }

    /// The ids to draw from, least likely first, with their remaining probabilities as weights.
    ///
    /// Source: `TemperatureLogitsWarper`, `TopKLogitsWarper` and `TopPLogitsWarper` in transformers 5.23, in this
    /// order.
    fn candidates(&self, logits: &[f32]) -> Vec<(u32, f64)> {
        let scores = logits.iter().map(|logit| logit / self.temperature);
        let mut scores: Vec<(u32, f32)> = scores.enumerate().map(|(id, score)| (id as u32, score)).collect();
        // Equal scores keep the order of their ids, so that the draw does not depend on the sorting.
        scores.sort_by(|(_, a), (_, b)| a.total_cmp(b));
        if self.top_k > 0
            && let Some(&(_, least)) = scores.get(scores.len().saturating_sub(self.top_k))
        {
            scores.retain(|(_, score)| *score >= least);
        }
        let highest = scores.last().map_or(0.0, |(_, score)| *score);
        let weight = |score: f32| f64::from(score - highest).exp();
        let total: f64 = scores.iter().map(|(_, score)| weight(*score)).sum();
        let mut weighted: Vec<(u32, f64)> = scores.iter().map(|(id, score)| (*id, weight(*score) / total)).collect();
        if self.top_p < 1.0 {
            let mut below = 0.0;
            let unlikely = weighted.iter().take_while(|(_, weight)| {
                below += weight;
                below <= 1.0 - f64::from(self.top_p)
            });
            let unlikely = unlikely.count().min(weighted.len().saturating_sub(1));
            weighted.drain(..unlikely);
        }
        weighted
    }

    /// A number in `[0, 1)`.
    fn draw(&mut self) -> f64 {
        self.draws += 1;
        let bits = splitmix64(splitmix64(self.seed).wrapping_add(self.draws)) >> 11;
        bits as f64 / (1_u64 << 53) as f64
    }
}

/// The first id with the highest logit.
fn most_likely(logits: &[f32]) -> u32 {
    let mut best = (0, f32::NEG_INFINITY);
    for (id, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (id, *logit);
        }
    }
    best.0 as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(temperature: f32, top_k: usize, top_p: f32) -> Sampler {
        Sampler::new(&Generation { temperature, top_k, top_p, seed: 7, ..Generation::default() }).unwrap()
    }

    /// Temperature, top k, top p; then the ids that are left with their probabilities, as the three warpers of
    /// transformers 5.23 and a softmax give them for the logits of the test.
    type Golden = (f32, usize, f32, &'static [(u32, f64)]);

    const GOLDENS: &[Golden] = &[
        (
            1.0,
            0,
            1.0,
            &[
                (0, 0.030_279_4),
                (1, 0.135_702_8),
                (2, 0.006_756_2),
                (3, 0.608_177_6),
                (4, 0.018_365_4),
                (5, 0.135_702_8),
                (6, 0.064_101_5),
                (7, 0.000_914_4),
            ],
        ),
        (0.5, 0, 0.9, &[(3, 0.952_574_1), (5, 0.047_425_9)]),
        (2.0, 4, 1.0, &[(1, 0.208_147_3), (3, 0.440_647_9), (5, 0.208_147_3), (6, 0.143_057_4)]),
        (1.3, 6, 0.8, &[(1, 0.193_410_0), (3, 0.613_180_0), (5, 0.193_410_0)]),
        (1.0, 2, 1.0, &[(1, 0.154_280_8), (3, 0.691_438_5), (5, 0.154_280_8)]),
        (1.0, 0, 0.3, &[(3, 1.000_000_0)]),
    ];

    #[test]
    fn candidates_match_transformers() {
        let logits = [0.5, 2.0, -1.0, 3.5, 0.0, 2.0, 1.25, -3.0];
        for (temperature, top_k, top_p, expected) in GOLDENS {
            let sampler = sampler(*temperature, *top_k, *top_p);
            let mut found = sampler.candidates(&logits);
            let total: f64 = found.iter().map(|(_, weight)| weight).sum();
            found.sort_by_key(|(id, _)| *id);
            assert_eq!(
                found.iter().map(|(id, _)| *id).collect::<Vec<_>>(),
                expected.iter().map(|(id, _)| *id).collect::<Vec<_>>()
            );
            for ((_, weight), (_, probability)) in found.iter().zip(*expected) {
                assert!((weight / total - probability).abs() < 1e-6, "{weight} {probability}");
            }
        }
    }

    #[test]
    fn draws_follow_the_probabilities_and_the_seed() {
        let logits: Vec<f32> = [0.5_f32, 0.3, 0.2].iter().map(|p| p.ln()).collect();
        let mut counts = [0_i32; 3];
        let mut one = sampler(1.0, 0, 1.0);
        let drawn: Vec<u32> = (0..20_000).map(|_| one.next(&logits)).collect();
        for id in &drawn {
            counts[*id as usize] += 1;
        }
        for (count, expected) in counts.iter().zip([10_000, 6_000, 4_000]) {
            assert!((count - expected).abs() < 300, "{counts:?}");
        }
        let mut again = sampler(1.0, 0, 1.0);
        assert_eq!(drawn, (0..20_000).map(|_| again.next(&logits)).collect::<Vec<_>>());
    }

    #[test]
    fn temperature_zero_takes_the_most_likely() {
        assert_eq!(sampler(0.0, 0, 1.0).next(&[1.0, 4.0, 4.0, f32::NAN]), 1);
        assert_eq!(sampler(2.0, 1, 1.0).next(&[1.0, 4.0, 3.0]), 1);
        assert_eq!(sampler(2.0, 0, 0.0).next(&[1.0, 4.0, 3.0]), 1);
    }

    #[test]
    fn options_out_of_range_are_refused_by_name() {
        let refused = |temperature, top_p| {
            let generation = Generation { temperature, top_p, ..Generation::default() };
            Sampler::new(&generation).err().unwrap().to_string()
        };
        assert_eq!(refused(-1.0, 1.0), "temperature is -1, expected a number from 0");
        assert_eq!(refused(f32::NAN, 1.0), "temperature is NaN, expected a number from 0");
        assert_eq!(refused(1.0, 1.5), "top_p is 1.5, expected a number from 0 to 1");
    }
}
