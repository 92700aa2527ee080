//! The records of a CSV file. A record over the limit is passed over and never held.

use std::io::{self, BufRead, BufReader, Read};

use csv_core::{ReadRecordResult, Reader};

/// Fields of a record at most.
const FIELDS: usize = 1 << 16;

/// A reader of records, and the record it read last.
pub(super) struct Records<R> {
    input: BufReader<R>,
    core: Reader,
    /// The fields one after another, without their quotes.
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    ends: Vec<usize>,
    fields: usize,
    limit: usize,
}

pub(super) enum Record {
    End,
    Whole,
    TooLong,
}

impl<R: Read> Records<R> {
    /// `limit`: bytes of a record at most.
    pub(super) fn new(input: R, limit: usize) -> Self {
        let input = BufReader::with_capacity(64 << 10, input);
        Self { input, core: Reader::new(), bytes: vec![0; 4 << 10], ends: vec![0; 64], fields: 0, limit }
    }

    /// Reads the next record.
    pub(super) fn read(&mut self) -> io::Result<Record> {
        let (mut written, mut fields, mut too_long) = (0, 0, false);
        loop {
            let input = self.input.fill_buf()?;
            let (result, read, bytes, ends) =
                self.core.read_record(input, &mut self.bytes[written..], &mut self.ends[fields..]);
            self.input.consume(read);
            (written, fields) = (written + bytes, fields + ends);
            match result {
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if self.bytes.len() < self.limit => {
                    self.bytes.resize(self.limit.min(2 * self.bytes.len()), 0);
                }
                ReadRecordResult::OutputEndsFull if self.ends.len() < FIELDS => {
                    self.ends.resize(2 * self.ends.len(), 0);
                }
                // The parser goes on to the record's end; what it gives until then is overwritten.
                ReadRecordResult::OutputFull | ReadRecordResult::OutputEndsFull => {
                    (written, fields, too_long) = (0, 0, true);
                }
                ReadRecordResult::Record if too_long => return Ok(Record::TooLong),
                ReadRecordResult::Record => {
                    self.fields = fields;
                    return Ok(Record::Whole);
                }
                ReadRecordResult::End => return Ok(Record::End),
            }
        }
    }

    /// Fields of the record.
    pub(super) fn fields(&self) -> usize {
        self.fields
    }

    /// Bytes of the record.
    pub(super) fn len(&self) -> usize {
        self.fields.checked_sub(1).map_or(0, |last| self.ends[last])
    }

    /// A field of the record, if it has so many.
    pub(super) fn field(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends[..self.fields].get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &str, limit: usize) -> Vec<Option<Vec<String>>> {
        let mut records = Records::new(text.as_bytes(), limit);
        let mut found = Vec::new();
        loop {
            match records.read().unwrap() {
                Record::End => return found,
                Record::TooLong => found.push(None),
                Record::Whole => {
                    let fields = (0..records.fields())
                        .map(|at| String::from_utf8_lossy(records.field(at).unwrap()).into_owned());
                    found.push(Some(fields.collect()));
                }
            }
        }
    }

    #[expect(clippy::unnecessary_wraps, reason = "it stands among records that are missing")]
    fn record(fields: &[&str]) -> Option<Vec<String>> {
        Some(fields.iter().map(|&field| field.to_owned()).collect())
    }

    #[test]
    fn quotes_line_breaks_and_blank_lines() {
        let found = all("\u{feff}a,b\r\n\n\"x, \"\"y\"\"\nz\",\n1", 1 << 20);
        assert_eq!(found, [record(&["a", "b"]), record(&["x, \"y\"\nz", ""]), record(&["1"])]);
    }

    #[test]
    fn a_long_record_is_passed_over_and_the_next_one_is_read() {
        let (long, wide) = ("x\n".repeat(100_000), "1,".repeat(100_000));
        let found = all(&format!("a,b\n\"{long}\",2\n3,4\n{wide}\n5,6\n\"{long}"), 10_000);
        let expected = [record(&["a", "b"]), None, record(&["3", "4"]), None, record(&["5", "6"]), None];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_record_as_long_as_the_limit_is_whole() {
        let text = "x".repeat(9_999);
        assert_eq!(all(&format!("{text}\n"), 10_000), [record(&[&text])]);
    }
}
