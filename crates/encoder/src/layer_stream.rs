//! Layers that stay in their files: while one is computed, a thread of its own reads and packs the next.

use std::{
    sync::{Arc, mpsc::sync_channel},
    thread,
};

use polylance_kernels::Precision;

use crate::{
    config::ModelConfig,
    error::{ModelError, Result},
    layer::Layer,
    packing::Packing,
    weights::Weights,
};

/// The layers of a model, each of which is read from the mapped files when it is needed.
#[derive(Debug, Clone)]
pub(crate) struct LayerStream {
    weights: Arc<Weights>,
    config: ModelConfig,
    precision: Precision,
}

impl LayerStream {
    pub(crate) fn new(weights: &Arc<Weights>, config: &ModelConfig, precision: Precision) -> Self {
        Self { weights: Arc::clone(weights), config: config.clone(), precision }
    }

    /// Calls `step` with each layer and its number. At most two layers are in memory: the one that `step` has, and the
    /// next.
    pub(crate) fn each_layer(&self, mut step: impl FnMut(usize, &Layer) -> Result<()>) -> Result<()> {
        let vb = self.weights.var_builder().pp("encoder.layer");
        let packing = Packing::from_files(self.precision, &self.weights);
        let read = |number: usize| Layer::load(vb.pp(number), &self.config, Some(&packing));
        read_ahead(self.config.num_hidden_layers, read, |number, layer| step(number, &layer))
    }
}

/// Calls `step` with items `0..count` in order; a thread calls `read` for the next item while `step` has one. The first
/// error ends both.
fn read_ahead<T: Send>(
    count: usize,
    read: impl Fn(usize) -> Result<T> + Send,
    mut step: impl FnMut(usize, T) -> Result<()>,
) -> Result<()> {
    thread::scope(|scope| {
        // The channel holds nothing: an item waits in the thread until the step before it has dropped its own.
        let (sender, items) = sync_channel(0);
        let read_all = move || {
            for number in 0..count {
                let item = read(number);
                let failed = item.is_err();
                if sender.send(item).is_err() || failed {
                    return;
                }
            }
        };
        let failed = |error| ModelError::Device(Box::new(error));
        thread::Builder::new().name("layers".to_owned()).spawn_scoped(scope, read_all).map_err(failed)?;
        for (number, item) in items.into_iter().enumerate() {
            step(number, item?)?;
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// The number of items in memory, and its maximum.
    #[derive(Default)]
    struct Count {
        alive: Mutex<(usize, usize)>,
        changed: Condvar,
    }

    struct Item<'a> {
        number: usize,
        count: &'a Count,
    }

    impl Count {
        /// An item counts from the start of its reading.
        fn item(&self, number: usize) -> Item<'_> {
            let mut alive = self.alive.lock().unwrap();
            alive.0 += 1;
            alive.1 = alive.1.max(alive.0);
            self.changed.notify_all();
            Item { number, count: self }
        }

        fn wait_for(&self, items: usize) {
            drop(self.changed.wait_while(self.alive.lock().unwrap(), |alive| alive.0 < items).unwrap());
        }

        fn most(&self) -> usize {
            self.alive.lock().unwrap().1
        }
    }

    impl Drop for Item<'_> {
        fn drop(&mut self) {
            self.count.alive.lock().unwrap().0 -= 1;
        }
    }

    #[test]
    fn next_item_is_read_during_a_step_and_two_are_in_memory() {
        let (count, mut seen) = (Count::default(), Vec::new());
        let step = |number, item: Item<'_>| {
            if number < 8 {
                count.wait_for(2);
            }
            seen.push((number, item.number));
            Ok(())
        };
        read_ahead(9, |number| Ok(count.item(number)), step).unwrap();
        assert_eq!(seen, (0..9).map(|number| (number, number)).collect::<Vec<_>>());
        assert_eq!((count.most(), count.alive.lock().unwrap().0), (2, 0));
        read_ahead(0, |number| Ok(count.item(number)), |_, _| panic!("there is no item")).unwrap();
    }

    #[test]
    fn first_error_ends_reading_and_computing() {
        let error = || ModelError::Option("damaged".to_owned());
        let (count, mut steps) = (Count::default(), 0);
        let read = |number| if number == 3 { Err(error()) } else { Ok(count.item(number)) };
        let step = |_, _| {
            steps += 1;
            Ok(())
        };
        assert_eq!(read_ahead(9, read, step).unwrap_err().to_string(), "damaged");
        assert_eq!(steps, 3);

        let step = |number, _| if number == 1 { Err(error()) } else { Ok(()) };
        assert_eq!(read_ahead(9, |number| Ok(count.item(number)), step).unwrap_err().to_string(), "damaged");
        assert!(count.most() <= 2);
        assert_eq!(count.alive.lock().unwrap().0, 0);
    }
}
