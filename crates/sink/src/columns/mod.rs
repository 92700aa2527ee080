//! Annotation columns: added to an existing table and filled commit by commit.
//!
//! A column is declared first: one commit changes the schema and no data, after which the column is null in every row.
//! Then rows with a null are read ([`TableRowsExec`]), annotated, and written back ([`LanceFillExec`]): the column's
//! values of a fragment are a data file of their own, so the files with texts and vectors are never touched. The table
//! itself records the progress: another run finds the remaining nulls.

mod declare;
mod fill;
mod missing;
mod rows;

pub use declare::{Declared, declare_columns};
pub use fill::{FillTarget, LanceFillExec};
pub use missing::missing_rows;
pub use rows::TableRowsExec;
