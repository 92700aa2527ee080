//! One linear map from features to classes.

/// `weight · x + bias`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinearHead {
    /// `[classes, width]`, row major.
    pub weight: Vec<f32>,
    /// `[classes]`.
    pub bias: Vec<f32>,
}

impl LinearHead {
    /// The numbers of a row of features.
    pub fn width(&self) -> usize {
        self.weight.len() / self.bias.len().max(1)
    }

    /// The class with the highest logit; the first of equal ones.
    pub fn predict(&self, features: &[f32]) -> u32 {
        let mut best = (0, f32::NEG_INFINITY);
        for (class, (row, bias)) in self.weight.chunks(self.width().max(1)).zip(&self.bias).enumerate() {
            let logit = bias + row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>();
            if logit > best.1 {
                best = (class as u32, logit);
            }
        }
        best.0
    }
}
