//! Rows and plans on stdout.

use std::io::{self, BufWriter};

use arrow::array::AsArray;
use datafusion::execution::SendableRecordBatchStream;
use futures::TryStreamExt;
use polylance_search::SearchError;

use super::{file, format::Format};
use crate::{
    error::Result,
    output::{Printer, rows},
};

/// Maximum number of rows of a printed table; the other formats have no limit.
const MAX_PRINTED_ROWS: usize = 1000;

/// Writes rows to stdout.
pub(super) async fn print(rows: SendableRecordBatchStream, format: Format, printer: &mut Printer) -> Result<()> {
    match format {
        Format::Table => print_table(rows, printer).await,
        format => {
            file::check(format, &rows.schema())?;
            file::write(rows, format, Box::new(BufWriter::new(io::stdout()))).await
        }
    }
}

/// Prints an aligned table.
async fn print_table(mut batches: SendableRecordBatchStream, printer: &mut Printer) -> Result<()> {
    let header = batches.schema().fields().iter().map(|field| field.name().clone()).collect::<Vec<_>>();
    if header == PLAN_COLUMNS {
        return print_plans(batches, printer).await;
    }
    let mut rows = Vec::new();
    while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
        let room = MAX_PRINTED_ROWS - rows.len();
        rows.extend(rows::cells(&batch.slice(0, batch.num_rows().min(room)))?);
        if batch.num_rows() > room {
            printer.table(&header, rows)?;
            printer.warning(format_args!("only the first {MAX_PRINTED_ROWS} rows are printed; --json prints all"));
            return Ok(());
        }
    }
    Ok(printer.table(&header, rows)?)
}

/// The columns of `EXPLAIN`.
const PLAN_COLUMNS: [&str; 2] = ["plan_type", "plan"];

/// Prints plans as indented lines.
async fn print_plans(mut batches: SendableRecordBatchStream, printer: &mut Printer) -> Result<()> {
    while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
        let (kinds, plans) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        for (kind, plan) in kinds.iter().zip(plans) {
            printer.line(kind.unwrap_or_default())?;
            for line in plan.unwrap_or_default().lines() {
                printer.line(format_args!("  {}", without_vectors(line)))?;
            }
        }
    }
    Ok(())
}

/// Cuts each list of more than two numbers after the second one: the numbers of a vector are of no use to a reader.
fn without_vectors(line: &str) -> String {
    let mut short = String::new();
    let mut rest = line;
    while let Some((before, after)) = rest.split_once('[') {
        short.push_str(before);
        short.push('[');
        rest = after;
        let Some((list, after_list)) = after.split_once(']') else { break };
        let mut items = list.splitn(3, ',');
        let numbers = list.split(',').all(|item| item.trim().parse::<f64>().is_ok());
        if let (true, Some(first), Some(second), Some(_)) = (numbers, items.next(), items.next(), items.next()) {
            short.extend([first, ",", second, ", …]"]);
            rest = after_list;
        }
    }
    short + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_in_plans_are_cut() {
        let line = "SortExec: expr=[similarity(embedding@1, [0.5, -1e-3, 2, 4]) DESC], fetch=[3]";
        assert_eq!(without_vectors(line), "SortExec: expr=[similarity(embedding@1, [0.5, -1e-3, …]) DESC], fetch=[3]");
        for line in ["no list", "an [open one", "projection=[doc_id, chunk, text]", "[1, 2]"] {
            assert_eq!(without_vectors(line), line);
        }
    }
}
