//! Which devices compute, and in which dtype.

mod machine;
mod resolve;
mod spec;

pub use machine::{Machine, NoGpu, VisibleGpu};
pub(crate) use resolve::resolve_cores;
pub use resolve::{SelectedDevices, Selection, SelectionNote, resolve, resolve_query};
pub use spec::DeviceSpec;
pub(crate) use spec::cores;
