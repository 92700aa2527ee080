//! Reads tables back with Lance itself.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    compute::concat_batches,
    datatypes::Float32Type,
};
use futures::TryStreamExt;
use lance::{Dataset, io::RecordBatchStream};

/// Reads columns of a table, in the table's row order.
pub fn read_table(uri: &str, columns: &[&str]) -> RecordBatch {
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let dataset = Dataset::open(uri).await.unwrap_or_else(|error| panic!("{uri}: {error}"));
        let mut scan = dataset.scan();
        scan.project(columns).expect("the columns exist").scan_in_order(true);
        let stream = scan.try_into_stream().await.expect("the table can be read");
        let schema = RecordBatchStream::schema(&stream);
        let batches: Vec<_> = stream.try_collect().await.expect("the table can be read");
        concat_batches(&schema, &batches).expect("batches of one schema")
    })
}

/// A text column as strings.
pub fn strings(batch: &RecordBatch, column: &str) -> Vec<String> {
    let array = batch.column_by_name(column).unwrap_or_else(|| panic!("no column {column}"));
    array.as_string::<i32>().iter().map(|value| value.expect("no nulls").to_owned()).collect()
}

/// The vectors of the `embedding` column.
pub fn vectors(batch: &RecordBatch) -> Vec<Vec<f32>> {
    let column = batch.column_by_name("embedding").expect("the column was read").as_fixed_size_list();
    (0..column.len()).map(|row| column.value(row).as_primitive::<Float32Type>().values().to_vec()).collect()
}
