//! Annotation columns: added to a table that exists, filled a commit at a time.
//!
//! A column is declared first: one commit that changes the schema and no data, after which every row has a null. Then
//! rows that have a null are read ([`TableRowsExec`]), annotated, and written back ([`LanceFillExec`]): the column's
//! values of a fragment are one data file of their own, so the files with texts and vectors are never touched. What is
//! done is in the table itself; another run finds the nulls that are left.

mod declare;
mod fill;
mod missing;
mod rows;

pub use declare::{Declared, declare_columns};
pub use fill::{FillTarget, LanceFillExec};
pub use missing::missing_rows;
pub use rows::TableRowsExec;
