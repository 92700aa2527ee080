//! Tokens per second, on as many threads as a device has lanes.

use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use serde_json::{Value, json};

use crate::{report::Report, workload::Batch};

/// The length of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Effort {
    /// Batches before the clock starts.
    pub(crate) warmup: usize,
    /// The largest number of batches.
    pub(crate) batches: usize,
    /// The time after which the measurement ends, once a quarter of the batches is done.
    pub(crate) time: Duration,
}

impl Effort {
    fn is_enough(&self, done: usize, elapsed: Duration) -> bool {
        done > self.batches || (elapsed >= self.time && done > self.batches.div_ceil(4))
    }
}

/// Tokens per second.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Rate {
    /// The rate of the median batch.
    pub(crate) median: f64,
    /// The 10th and the 90th percentile.
    pub(crate) low: f64,
    pub(crate) high: f64,
    /// All tokens divided by the whole time.
    pub(crate) overall: f64,
    /// The number of measured batches.
    pub(crate) batches: usize,
    /// The time of the median batch, in milliseconds.
    pub(crate) milliseconds: f64,
}

impl Rate {
    /// The rate from the ends of batches: the first only starts the clock.
    fn from_ends(mut ends: Vec<(Instant, usize)>) -> Result<Self> {
        ends.sort_by_key(|(end, _)| *end);
        let intervals: Vec<(f64, usize)> =
            ends.windows(2).map(|pair| (pair[1].0.duration_since(pair[0].0).as_secs_f64(), pair[1].1)).collect();
        let mut rates: Vec<f64> =
            intervals.iter().map(|(seconds, tokens)| *tokens as f64 / seconds.max(1e-9)).collect();
        let mut times: Vec<f64> = intervals.iter().map(|(seconds, _)| *seconds).collect();
        rates.sort_by(f64::total_cmp);
        times.sort_by(f64::total_cmp);
        let at =
            |numbers: &[f64], share: f64| numbers.get((share * (numbers.len() as f64 - 1.0)).round() as usize).copied();
        let quantile = |share| at(&rates, share).ok_or_else(|| anyhow!("fewer than two batches were computed"));
        let tokens: usize = intervals.iter().map(|(_, tokens)| tokens).sum();
        Ok(Self {
            median: quantile(0.5)?,
            low: quantile(0.1)?,
            high: quantile(0.9)?,
            overall: tokens as f64 / times.iter().sum::<f64>().max(1e-9),
            batches: intervals.len(),
            milliseconds: 1e3 * at(&times, 0.5).unwrap_or_default(),
        })
    }

    /// The distance between the percentiles, as a share of the median.
    pub(crate) fn spread(&self) -> f64 {
        (self.high - self.low) / self.median
    }

    pub(crate) fn to_json(self) -> Value {
        json!({
            "tokens_per_second": self.median,
            "low": self.low,
            "high": self.high,
            "overall": self.overall,
            "batches": self.batches,
            "milliseconds": self.milliseconds,
        })
    }
}

/// Computes batches in turn on `lanes` threads until the effort is reached.
///
/// # Errors
/// The first error of a batch; too few batches.
pub(crate) fn measure(
    report: &Report,
    batches: &[Batch],
    lanes: usize,
    effort: Effort,
    compute: impl Fn(&Batch) -> Result<()> + Sync,
) -> Result<Rate> {
    for batch in batches.iter().cycle().take(effort.warmup) {
        compute(batch)?;
        report.progress();
    }
    let (next, stop) = (AtomicUsize::new(0), AtomicBool::new(false));
    let ends = Mutex::new(Vec::new());
    let started = Instant::now();
    let lane = || -> Result<()> {
        while !stop.load(Ordering::Relaxed) {
            let batch = &batches[next.fetch_add(1, Ordering::Relaxed) % batches.len()];
            compute(batch).inspect_err(|_| stop.store(true, Ordering::Relaxed))?;
            let mut ends = ends.lock().unwrap_or_else(PoisonError::into_inner);
            ends.push((Instant::now(), batch.tokens()));
            if effort.is_enough(ends.len(), started.elapsed()) {
                stop.store(true, Ordering::Relaxed);
            }
            report.progress();
        }
        Ok(())
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes.max(1)).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().unwrap_or_else(|_| Err(anyhow!("a lane panicked"))))
    })?;
    Rate::from_ends(ends.into_inner().unwrap_or_else(PoisonError::into_inner))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_use_the_time_between_ends() {
        let start = Instant::now();
        let end = |milliseconds, tokens| (start + Duration::from_millis(milliseconds), tokens);
        // Out of order, as two lanes can report them.
        let rate = Rate::from_ends(vec![end(300, 100), end(100, 999), end(200, 100), end(500, 100)]).unwrap();
        assert_eq!(
            (rate.batches, rate.median.round(), rate.low.round(), rate.high.round()),
            (3, 1000.0, 500.0, 1000.0)
        );
        assert_eq!((rate.overall.round(), rate.milliseconds.round()), (750.0, 100.0));
        assert!((rate.spread() - 0.5).abs() < 1e-6);
        assert!(Rate::from_ends(vec![end(0, 1)]).is_err());
    }

    #[test]
    fn measurement_ends_after_its_batches_or_its_time() {
        let effort = Effort { warmup: 1, batches: 20, time: Duration::from_secs(2) };
        let cases = [(20, 1, false), (21, 1, true), (5, 3, false), (6, 3, true)];
        for (done, seconds, expected) in cases {
            assert_eq!(effort.is_enough(done, Duration::from_secs(seconds)), expected, "{done} in {seconds} s");
        }
    }
}
