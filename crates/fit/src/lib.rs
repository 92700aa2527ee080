//! Linear heads on a frozen encoder.
//!
//! [`train()`] fits one linear map from features to classes, [`Report`] measures it, and [`SequenceHead::write`] keeps it as
//! a folder in Hugging Face's layout. No Arrow here: features come as rows of numbers.
//!
//! ```
//! use polylance_fit::{Features, Options, train};
//!
//! let values = (0..40).flat_map(|row| [if row % 2 == 0 { 1.0 } else { -1.0 }, 0.5]).collect();
//! let features = Features { width: 2, values, classes: (0..40).map(|row| row % 2).collect() };
//! let fitted = train(&features, 2, &Options::default())?;
//! assert_eq!(fitted.head.predict(&[2.0, 0.5]), 0);
//! # Ok::<(), polylance_fit::FitError>(())
//! ```

mod conll;
mod entities;
mod error;
mod folder;
mod linear_head;
mod measures;
mod spans;
mod train;

pub use conll::{TaggedSentence, read_conll};
pub use entities::{EntityReport, EntityScore};
pub use error::{FitError, Result};
pub use folder::{SequenceHead, TokenHead};
pub use linear_head::LinearHead;
pub use measures::{ClassScore, Confused, Report};
pub use spans::{Span, SpanTags, Spans};
pub use train::{Features, Fitted, Options, shuffle, train, train_on};
