//! The number of rows of a row group that are decoded at a time, so that a batch does not take too much memory.
//!
//! The metadata of a column chunk have its encoded size. A dictionary stores each value once, and rows refer to it by
//! number: a text of a few megabytes that many rows share is stored once and decoded once per row. So if that could be
//! much, the length of the longest value in the dictionary is read.

use std::{io::Read, sync::Arc};

use bytes::{Buf, Bytes};
use parquet::{
    arrow::{ProjectionMask, async_reader::AsyncFileReader},
    basic::{Encoding, Type},
    column::page::{Page, PageReader},
    errors::Result,
    file::{
        metadata::{ColumnChunkMetaData, RowGroupMetaData},
        reader::{ChunkReader, Length},
        serialized_reader::SerializedPageReader,
    },
};

use crate::read::rows::{BATCH_BYTES, BATCH_ROWS};

/// The largest size of a decoded batch in bytes, unless a single row has more.
const MAX_DECODED_BYTES: u64 = 64 << 20;

/// The number of rows of a batch so that it has about [`BATCH_BYTES`], and at most [`MAX_DECODED_BYTES`].
pub(super) async fn batch_rows(
    group: &RowGroupMetaData,
    mask: &ProjectionMask,
    reader: &mut impl AsyncFileReader,
) -> Result<usize> {
    let rows = group.num_rows().unsigned_abs().max(1);
    let read = group.columns().iter().enumerate().filter(|(at, _)| mask.leaf_included(*at));
    let read: Vec<&ColumnChunkMetaData> = read.map(|(_, column)| column).collect();
    let bytes: u64 = read.iter().map(|column| decoded_bytes(column)).sum();
    let mut batch_rows = (BATCH_BYTES as u64 / (bytes / rows).max(1)).clamp(1, BATCH_ROWS as u64);
    for column in read {
        // A list has several values per row.
        let values = (column.num_values().unsigned_abs() / rows).max(1);
        let longest = longest_value(column, MAX_DECODED_BYTES / (batch_rows * values), reader).await?;
        batch_rows = batch_rows.min(MAX_DECODED_BYTES / (longest * values).max(1)).max(1);
    }
    Ok(batch_rows as usize)
}

/// A lower bound of the decoded bytes of a column chunk.
fn decoded_bytes(column: &ColumnChunkMetaData) -> u64 {
    column.unencoded_byte_array_data_bytes().unwrap_or_else(|| column.uncompressed_size()).unsigned_abs()
}

/// An upper bound of the length of a value that many rows may share. It is read from the dictionary if it might be more
/// than `enough`.
async fn longest_value(column: &ColumnChunkMetaData, enough: u64, reader: &mut impl AsyncFileReader) -> Result<u64> {
    if column.column_type() != Type::BYTE_ARRAY {
        return Ok(0);
    }
    // No value is longer than the chunk, nor than all values together, whose size the file may have.
    let stored = column.uncompressed_size().unsigned_abs();
    let all = column.unencoded_byte_array_data_bytes().map_or(stored, |all| stored.min(all.unsigned_abs()));
    let is = |encoding| column.encodings().any(|found| found == encoding);
    if is(Encoding::DELTA_BYTE_ARRAY) || all <= enough {
        return Ok(all);
    }
    if !is(Encoding::RLE_DICTIONARY) && !is(Encoding::PLAIN_DICTIONARY) {
        return Ok(0);
    }
    let data = column.data_page_offset().unsigned_abs();
    match column.dictionary_page_offset().map(i64::unsigned_abs) {
        Some(start) if start < data => {
            let bytes = reader.get_bytes(start..data).await?;
            Ok(longest_of_dictionary(column, FilePart { start, bytes })?.unwrap_or(all))
        }
        _ => Ok(all),
    }
}

/// The length of the longest value of the dictionary at the beginning of a part of a file.
fn longest_of_dictionary(column: &ColumnChunkMetaData, part: FilePart) -> Result<Option<u64>> {
    let mut pages = SerializedPageReader::new(Arc::new(part), column, 0, None)?;
    let Some(Page::DictionaryPage { mut buf, .. }) = pages.get_next_page()? else { return Ok(None) };
    let mut longest = 0;
    while buf.remaining() >= size_of::<u32>() {
        let length = buf.get_u32_le();
        longest = longest.max(length);
        buf.advance(buf.remaining().min(length as usize));
    }
    Ok(Some(longest.into()))
}

/// A part of a file that is read like the whole file.
struct FilePart {
    start: u64,
    bytes: Bytes,
}

impl Length for FilePart {
    fn len(&self) -> u64 {
        self.start + self.bytes.len() as u64
    }
}

impl ChunkReader for FilePart {
    type T = Box<dyn Read>;

    fn get_read(&self, start: u64) -> Result<Self::T> {
        Ok(Box::new(self.from(start).reader()))
    }

    fn get_bytes(&self, start: u64, length: usize) -> Result<Bytes> {
        let bytes = self.from(start);
        Ok(bytes.slice(..length.min(bytes.len())))
    }
}

impl FilePart {
    fn from(&self, start: u64) -> Bytes {
        let at = usize::try_from(start.saturating_sub(self.start)).unwrap_or(usize::MAX);
        self.bytes.slice(at.min(self.bytes.len())..)
    }
}
