//! The two principal axes of vectors, by power iteration.

/// Iterations: the axes of real vectors are exact to four digits after about twenty.
const POWER_ITERATIONS: usize = 40;

/// Two orthogonal directions, and the mean through which they run.
pub(super) struct PrincipalAxes {
    mean: Vec<f32>,
    directions: [Vec<f32>; 2],
    pub(super) explained: f32,
}

impl PrincipalAxes {
    /// The principal axes of `[rows, dim]` vectors, by power iteration on both axes at once.
    pub(super) fn compute(vectors: &[f32], dim: usize) -> Self {
        let rows = (vectors.len() / dim).max(1) as f32;
        let mut mean = vec![0.0; dim];
        for vector in vectors.chunks_exact(dim) {
            add(&mut mean, vector, 1.0 / rows);
        }
        let centred: Vec<f32> = vectors
            .chunks_exact(dim)
            .flat_map(|vector| vector.iter().zip(&mean).map(|(value, mean)| value - mean))
            .collect();
        // Any two directions that are not both orthogonal to the wanted ones.
        let mut axes =
            [0, 1].map(|axis| (0..dim).map(|at| ((at * (axis + 2) + axis) as f32).sin()).collect::<Vec<f32>>());
        orthonormalize(&mut axes);
        for _ in 0..POWER_ITERATIONS {
            let mut next = [vec![0.0; dim], vec![0.0; dim]];
            for vector in centred.chunks_exact(dim) {
                for (axis, next) in axes.iter().zip(&mut next) {
                    add(next, vector, dot(axis, vector));
                }
            }
            axes = next;
            orthonormalize(&mut axes);
        }
        let total: f32 = dot(&centred, &centred);
        let shown: f32 = centred
            .chunks_exact(dim)
            .map(|vector| axes.iter().map(|axis| dot(axis, vector).powi(2)).sum::<f32>())
            .sum();
        let explained = if total > 0.0 { (shown / total).min(1.0) } else { 0.0 };
        Self { mean, directions: axes, explained }
    }

    /// The position of each vector on the axes.
    pub(super) fn project<'a>(&'a self, vectors: &'a [f32]) -> impl Iterator<Item = [f32; 2]> + 'a {
        let mean = [0, 1].map(|axis: usize| dot(&self.directions[axis], &self.mean));
        vectors
            .chunks_exact(self.mean.len())
            .map(move |vector| [0, 1].map(|axis: usize| dot(&self.directions[axis], vector) - mean[axis]))
    }
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add(to: &mut [f32], vector: &[f32], times: f32) {
    for (to, value) in to.iter_mut().zip(vector) {
        *to += times * value;
    }
}

/// Makes the axes orthogonal and of length 1; a zero axis stays zero.
fn orthonormalize([first, second]: &mut [Vec<f32>; 2]) {
    let unit = |axis: &mut Vec<f32>| {
        let norm = dot(axis, axis).sqrt();
        if norm > f32::MIN_POSITIVE {
            for value in axis.iter_mut() {
                *value /= norm;
            }
        }
    };
    unit(first);
    let along = dot(first, second);
    add(second, first, -along);
    unit(second);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_are_the_directions_of_greatest_variance() {
        // Most variance along the third dimension, less along the first, almost none along the second.
        let vectors: Vec<f32> = (0..200)
            .flat_map(|at| {
                let angle = at as f32 * 0.7;
                [5.0 + 2.0 * angle.cos(), 1.0 + 0.01 * (angle * 3.0).sin(), 9.0 * angle.sin()]
            })
            .collect();
        let axes = PrincipalAxes::compute(&vectors, 3);
        assert!(axes.directions[0][2].abs() > 0.999 && axes.directions[1][0].abs() > 0.999, "{:?}", axes.directions);
        assert!((axes.mean[0] - 5.0).abs() < 0.1 && axes.explained > 0.999);
    }

    #[test]
    fn equal_vectors_have_no_variance() {
        let axes = PrincipalAxes::compute(&[0.5; 12], 4);
        assert_eq!(axes.explained, 0.0);
        assert!(axes.directions.iter().flatten().all(|value| value.is_finite()));
    }
}
