//! Training: `AdamW` on the logistic loss, with early stopping on held-out rows.

use std::collections::HashSet;

use candle_core::{D, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};

use crate::{FitError, LinearHead, Result};

/// Rows of features with their classes.
#[derive(Debug, Clone, Default)]
pub struct Features {
    /// The numbers of a row.
    pub width: usize,
    /// `[rows, width]`, row major.
    pub values: Vec<f32>,
    /// `[rows]`.
    pub classes: Vec<u32>,
}

impl Features {
    /// The features of a row.
    pub fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.width..][..self.width]
    }
}

/// How a head is trained.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// The share of the rows that is held out to decide when to stop.
    pub held_out: f64,
    /// The largest number of passes over the rows.
    pub epochs: usize,
    /// Training stops after this many passes without progress on the held-out rows.
    pub patience: usize,
    /// Rows in a step.
    pub batch: usize,
    /// Step size of `AdamW`.
    pub learning_rate: f64,
    /// Weight decay of `AdamW`.
    pub weight_decay: f64,
    /// Decides which rows are held out, and the order of the others.
    pub seed: u64,
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self { held_out: 0.1, epochs: 200, patience: 10, batch: 64, learning_rate: 2e-3, weight_decay: 0.1, seed: 0 }
    }
}

/// A trained head, and the report of its training.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainedHead {
    /// The head, for the given features.
    pub head: LinearHead,
    /// Rows trained on.
    pub trained_rows: usize,
    /// The rows that were held out.
    pub held_out: Vec<usize>,
    /// The number of passes.
    pub epochs: usize,
    /// The pass whose weights were kept, counted from 1.
    pub best_epoch: usize,
    /// The mean loss of the held-out rows with these weights.
    pub held_out_loss: f32,
}

/// Fits a linear map from features to `classes` classes. The same rows, options and seed give the same head.
///
/// Features are standardized for training, and the scaling is folded back into the map.
///
/// # Errors
/// [`FitError::Data`] for too few rows or classes, or for an impossible class or number.
pub fn train(features: &Features, classes: usize, options: &TrainOptions) -> Result<TrainedHead> {
    check(features, classes)?;
    let (held_out, trained) = split(features.classes.len(), options)?;
    train_on(features, classes, held_out, trained, options)
}

/// Like [`train()`], with given rows to hold out and to train on.
///
/// # Errors
/// As [`train()`].
pub fn train_on(
    features: &Features,
    classes: usize,
    held_out: Vec<usize>,
    trained: Vec<usize>,
    options: &TrainOptions,
) -> Result<TrainedHead> {
    check(features, classes)?;
    check_parts(features.classes.len(), &held_out, &trained)?;
    if options.epochs == 0 {
        return Err(FitError::Data("0 passes train nothing: at least 1 is needed".to_owned()));
    }
    let scaling = Scaling::of(features, &trained);
    let rows = |chosen: &[usize]| -> Result<(Tensor, Tensor)> {
        let values: Vec<f32> = chosen.iter().flat_map(|&row| scaling.apply(features.row(row))).collect();
        let classes: Vec<u32> = chosen.iter().map(|&row| features.classes[row]).collect();
        let values = Tensor::from_vec(values, (chosen.len(), features.width), &Device::Cpu)?;
        Ok((values, Tensor::from_vec(classes, chosen.len(), &Device::Cpu)?))
    };
    let (held_x, held_y) = rows(&held_out)?;
    let weight = Var::zeros((classes, features.width), candle_core::DType::F32, &Device::Cpu)?;
    let bias = Var::zeros(classes, candle_core::DType::F32, &Device::Cpu)?;
    let parameters =
        ParamsAdamW { lr: options.learning_rate, weight_decay: options.weight_decay, ..ParamsAdamW::default() };
    let mut optimizer = AdamW::new(vec![weight.clone(), bias.clone()], parameters)?;
    let loss = |x: &Tensor, y: &Tensor| -> Result<Tensor> {
        let logits = x.matmul(&weight.as_tensor().t()?)?.broadcast_add(bias.as_tensor())?;
        let log_probabilities = candle_nn::ops::log_softmax(&logits, D::Minus1)?;
        Ok(candle_nn::loss::nll(&log_probabilities, y)?)
    };
    let mut best: Option<(f32, usize, LinearHead)> = None;
    let (mut order, mut epoch) = (trained.clone(), 0);
    while epoch < options.epochs && best.as_ref().is_none_or(|(_, at, _)| epoch - at < options.patience) {
        epoch += 1;
        shuffle(&mut order, options.seed.wrapping_add(epoch as u64));
        for batch in order.chunks(options.batch.max(1)) {
            let (x, y) = rows(batch)?;
            optimizer.backward_step(&loss(&x, &y)?)?;
        }
        let held = loss(&held_x, &held_y)?.to_scalar::<f32>()?;
        if !held.is_finite() {
            break;
        }
        if best.as_ref().is_none_or(|(lowest, ..)| held < *lowest) {
            let head =
                LinearHead { weight: weight.as_tensor().flatten_all()?.to_vec1()?, bias: bias.as_tensor().to_vec1()? };
            best = Some((held, epoch, head));
        }
    }
    let diverged = || format!("training diverged in pass {epoch}: a smaller learning rate may help");
    let (held_out_loss, best_epoch, head) = best.ok_or_else(|| FitError::Data(diverged()))?;
    Ok(TrainedHead {
        head: scaling.fold(&head),
        trained_rows: trained.len(),
        held_out,
        epochs: epoch,
        best_epoch,
        held_out_loss,
    })
}

fn check(features: &Features, classes: usize) -> Result<()> {
    let refuse = |message: String| Err(FitError::Data(message));
    let rows = features.classes.len();
    if features.width == 0 || features.values.len() != rows * features.width {
        return refuse(format!("{} numbers for {rows} rows of {}", features.values.len(), features.width));
    }
    if classes < 2 {
        return refuse(format!("{classes} label: at least two are needed to tell them apart"));
    }
    if rows < 10 {
        return refuse(format!("{rows} labelled rows: at least 10 are needed"));
    }
    if let Some(row) = features.classes.iter().position(|&class| class as usize >= classes) {
        return refuse(format!("row {row} has class {}, there are {classes}", features.classes[row]));
    }
    match features.values.iter().position(|value| !value.is_finite()) {
        Some(at) => refuse(format!("row {} has a number that is not finite", at / features.width)),
        None => Ok(()),
    }
}

/// Refuses empty parts, and parts that overlap.
fn check_parts(rows: usize, held_out: &[usize], trained: &[usize]) -> Result<()> {
    let refuse = |message: String| Err(FitError::Data(message));
    if held_out.is_empty() {
        return refuse("no row is held out to decide when to stop".to_owned());
    }
    if trained.is_empty() {
        return refuse("no row is left to train on".to_owned());
    }
    for (part, what) in [(held_out, "held out"), (trained, "trained on")] {
        if let Some(row) = part.iter().find(|row| **row >= rows) {
            return refuse(format!("row {row} is to be {what}, there are {rows}"));
        }
    }
    let kept: HashSet<&usize> = held_out.iter().collect();
    match trained.iter().find(|row| kept.contains(row)) {
        Some(row) => refuse(format!("row {row} is both trained on and held out")),
        None => Ok(()),
    }
}

/// The rows to hold out and the rows to train on, each ascending.
fn split(rows: usize, options: &TrainOptions) -> Result<(Vec<usize>, Vec<usize>)> {
    if !(options.held_out > 0.0 && options.held_out < 1.0) {
        return Err(FitError::Data(format!("a share of {} cannot be held out", options.held_out)));
    }
    let mut all: Vec<usize> = (0..rows).collect();
    shuffle(&mut all, options.seed);
    let count = ((rows as f64 * options.held_out).round() as usize).clamp(1, rows - 1);
    let (mut held_out, mut trained) = (all[..count].to_vec(), all[count..].to_vec());
    held_out.sort_unstable();
    trained.sort_unstable();
    Ok((held_out, trained))
}

/// Shuffles items by a seed: Fisher–Yates with splitmix64, the same on every machine.
pub fn shuffle(items: &mut [usize], seed: u64) {
    let mut state = seed.wrapping_mul(0xd134_2543_de82_ef95).wrapping_add(1);
    for end in (1..items.len()).rev() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let value = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        items.swap(end, ((value ^ (value >> 31)) % (end as u64 + 1)) as usize);
    }
}

/// Mean and spread of each feature.
struct Scaling {
    mean: Vec<f32>,
    inverse: Vec<f32>,
}

impl Scaling {
    fn of(features: &Features, rows: &[usize]) -> Self {
        let (mut sum, mut squares) = (vec![0.0_f64; features.width], vec![0.0_f64; features.width]);
        for &row in rows {
            for ((sum, square), x) in sum.iter_mut().zip(&mut squares).zip(features.row(row)) {
                *sum += f64::from(*x);
                *square += f64::from(*x).powi(2);
            }
        }
        let count = rows.len().max(1) as f64;
        let mean: Vec<f64> = sum.iter().map(|sum| sum / count).collect();
        // A constant feature carries no information: it is scaled to zero.
        let inverse = mean.iter().zip(&squares).map(|(mean, square)| {
            let spread = (square / count - mean.powi(2)).max(0.0).sqrt();
            if spread > 1e-8 { (1.0 / spread) as f32 } else { 0.0 }
        });
        Self { inverse: inverse.collect(), mean: mean.iter().map(|mean| *mean as f32).collect() }
    }

    fn apply<'a>(&'a self, row: &'a [f32]) -> impl Iterator<Item = f32> + 'a {
        row.iter().zip(&self.mean).zip(&self.inverse).map(|((x, mean), inverse)| (x - mean) * inverse)
    }

    /// Folds the scaling into a map, so that it applies to unscaled features.
    fn fold(&self, head: &LinearHead) -> LinearHead {
        let width = self.mean.len();
        let mut folded = head.clone();
        for (row, bias) in folded.weight.chunks_mut(width).zip(&mut folded.bias) {
            // The shifts of many features may cancel out: in f32 their sum would lose the bias.
            let mut shift = 0.0;
            for ((weight, mean), inverse) in row.iter_mut().zip(&self.mean).zip(&self.inverse) {
                *weight *= inverse;
                shift += f64::from(*weight) * f64::from(*mean);
            }
            *bias = (f64::from(*bias) - shift) as f32;
        }
        folded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three clusters, far from zero and of unequal spread.
    fn clusters() -> Features {
        let mut state = 1_usize;
        let mut noise = || {
            state = state * 48_271 % 2_147_483_647;
            state as f32 / 2_147_483_647.0 - 0.5
        };
        let mut features = Features { width: 3, ..Features::default() };
        for row in 0..300_u32 {
            let class = row % 3;
            let center = [[100.0, 0.0], [101.0, 0.001], [100.0, 0.002]][class as usize];
            features.values.extend([center[0] + noise() * 0.8, center[1] + noise() * 0.0008, 7.0]);
            features.classes.push(class);
        }
        features
    }

    #[test]
    fn training_separates_classes_and_depends_only_on_the_seed() {
        let features = clusters();
        let fitted = train(&features, 3, &TrainOptions::default()).unwrap();
        let right = (0..300).filter(|&row| fitted.head.predict(features.row(row)) == features.classes[row]).count();
        assert!(right >= 295, "{right} of 300");
        assert_eq!(fitted.held_out.len(), 30);
        assert_eq!(train(&features, 3, &TrainOptions::default()).unwrap(), fitted);
        let other = train(&features, 3, &TrainOptions { seed: 7, ..TrainOptions::default() }).unwrap();
        assert_ne!(other.held_out, fitted.held_out);
    }

    #[test]
    fn invalid_training_sets_are_refused() {
        let refused =
            |features: &Features, classes| train(features, classes, &TrainOptions::default()).unwrap_err().to_string();
        assert!(refused(&clusters(), 1).contains("at least two"));
        assert!(refused(&clusters(), 2).contains("row 2 has class 2"));
        let mut damaged = clusters();
        damaged.values[4] = f32::NAN;
        assert!(refused(&damaged, 3).contains("row 1 has a number that is not finite"));
        let few = Features { width: 1, values: vec![0.0; 4], classes: vec![0, 1, 0, 1] };
        assert!(refused(&few, 2).contains("at least 10"));
    }

    #[test]
    fn diverging_training_is_an_error() {
        let train = |options| train(&clusters(), 3, &options).map_err(|error| error.to_string());
        for learning_rate in [1e38, f64::NAN] {
            let message = train(TrainOptions { learning_rate, ..TrainOptions::default() }).unwrap_err();
            assert!(message.starts_with("training diverged in pass 1"), "{message}");
        }
        let message = train(TrainOptions { epochs: 0, ..TrainOptions::default() }).unwrap_err();
        assert!(message.contains("0 passes"), "{message}");
    }

    #[test]
    fn invalid_parts_are_refused() {
        let refused = |held_out: Vec<usize>, trained: Vec<usize>| {
            train_on(&clusters(), 3, held_out, trained, &TrainOptions::default()).unwrap_err().to_string()
        };
        assert_eq!(refused(vec![], (0..300).collect()), "no row is held out to decide when to stop");
        assert_eq!(refused((0..300).collect(), vec![]), "no row is left to train on");
        assert_eq!(refused(vec![0], vec![1, 300]), "row 300 is to be trained on, there are 300");
        assert_eq!(refused(vec![300], vec![1]), "row 300 is to be held out, there are 300");
        assert_eq!(refused(vec![4, 9], vec![1, 9]), "row 9 is both trained on and held out");
    }

    #[test]
    fn scaling_is_folded_into_the_map() {
        // Far from zero in units of the spread: the sum of the shifts must not lose the bias.
        let scaling = Scaling { mean: vec![1000.0; 64], inverse: vec![50.0; 64] };
        let weight: Vec<f32> = (0..64).map(|at| if at % 2 == 0 { 0.7 } else { -0.7 }).collect();
        let folded = scaling.fold(&LinearHead { weight: weight.clone(), bias: vec![0.25] });
        assert!((folded.bias[0] - 0.25).abs() < 1e-6, "{}", folded.bias[0]);
        assert_eq!(folded.weight, weight.iter().map(|weight| weight * 50.0).collect::<Vec<_>>());
    }
}
