//! Linear heads on a frozen encoder.
//!
//! [`train()`] fits one linear map from features to classes, [`ClassificationReport`] scores it, and
//! [`SequenceHead::write`] writes it as a folder in Hugging Face's layout. Features are rows of numbers, without Arrow.
//!
//! ```
//! use polylance_fit::{Features, TrainOptions, train};
//!
//! let values = (0..40).flat_map(|row| [if row % 2 == 0 { 1.0 } else { -1.0 }, 0.5]).collect();
//! let features = Features { width: 2, values, classes: (0..40).map(|row| row % 2).collect() };
//! let fitted = train(&features, 2, &TrainOptions::default())?;
//! assert_eq!(fitted.head.predict(&[2.0, 0.5]), 0);
//! # Ok::<(), polylance_fit::FitError>(())
//! ```

mod classification;
mod conll;
mod entities;
mod error;
mod folder;
mod linear_head;
mod spans;
mod train;

pub use classification::{ClassScore, ClassificationReport, Confusion};
pub use conll::{TaggedSentence, read_conll};
pub use entities::{EntityReport, EntityScore};
pub use error::{FitError, Result};
pub use folder::{SequenceHead, TokenHead};
pub use linear_head::LinearHead;
pub use spans::{LabeledSpan, LabeledSpans, SpanTags};
pub use train::{Features, TrainOptions, TrainedHead, shuffle, train, train_on};
