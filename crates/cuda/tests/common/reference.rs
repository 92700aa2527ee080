//! References of the kernels, in f64 and in the simplest form.

pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x / std::f64::consts::SQRT_2))
}

/// By a series of terms with one sign, which loses no digits.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * (-x * x).exp() * 2.0 / std::f64::consts::PI.sqrt()
}

pub fn layer_norm(row: &[f64], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f64> {
    let count = row.len() as f64;
    let mean = row.iter().sum::<f64>() / count;
    let variance = row.iter().map(|x| (x - mean) * (x - mean)).sum::<f64>() / count;
    let scale = 1.0 / (variance + f64::from(eps)).sqrt();
    let norm = |(x, (w, b)): (&f64, (&f32, &f32))| (x - mean) * scale * f64::from(*w) + f64::from(*b);
    row.iter().zip(weight.iter().zip(bias)).map(norm).collect()
}

/// `x wᵀ + bias`, `[m, n]`.
pub fn product(x: &[f32], w: &[f32], bias: Option<&[f32]>, k: usize) -> Vec<f64> {
    let mut out = Vec::new();
    for row in x.chunks(k) {
        for (column, weights) in w.chunks(k).enumerate() {
            let dot: f64 = row.iter().zip(weights).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum();
            out.push(dot + bias.map_or(0.0, |bias| f64::from(bias[column])));
        }
    }
    out
}

/// Attention within sequences: `qkv` is `[tokens, 3 heads head_size]`, the result `[tokens, heads head_size]`.
pub fn attention(qkv: &[f32], starts: &[u32], heads: usize, head_size: usize, scale: f32, causal: bool) -> Vec<f64> {
    let width = heads * head_size;
    let part = |token: usize, which: usize, head: usize| {
        let start = (token * 3 + which) * width + head * head_size;
        &qkv[start..start + head_size]
    };
    let tokens = qkv.len() / (3 * width);
    let mut out = vec![0.0; tokens * width];
    for range in starts.windows(2) {
        let (first, end) = (range[0] as usize, range[1] as usize);
        for token in first..end {
            let last = if causal { token + 1 } else { end };
            for head in 0..heads {
                let query = part(token, 0, head);
                let score = |key: usize| -> f64 {
                    let dot: f64 =
                        query.iter().zip(part(key, 1, head)).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum();
                    dot * f64::from(scale)
                };
                let scores: Vec<f64> = (first..last).map(score).collect();
                let most = scores.iter().copied().fold(f64::MIN, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - most).exp()).collect();
                let sum: f64 = weights.iter().sum();
                for (key, weight) in (first..last).zip(&weights) {
                    for (column, value) in part(key, 2, head).iter().enumerate() {
                        out[token * width + head * head_size + column] += weight / sum * f64::from(*value);
                    }
                }
            }
        }
    }
    out
}

/// The numbers of `fill`.
pub fn fill(seed: u64, first: u64, count: usize, offset: f32, scale: f32) -> Vec<f64> {
    let number = |index: u64| {
        let mut x = seed.wrapping_add(first).wrapping_add(index).wrapping_add(0x9e37_79b9_7f4a_7c15);
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^= x >> 31;
        f64::from(offset) + f64::from(scale) * ((x >> 40) as f64 / f64::from(1 << 23) - 1.0)
    };
    (0..count as u64).map(number).collect()
}
