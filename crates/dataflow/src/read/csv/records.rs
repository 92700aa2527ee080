//! The records of a CSV file. A record over the limit is skipped without being held in memory; of a record whose quote
//! is never closed only the first line is lost.

use std::io::{self, BufRead, BufReader, Cursor, Read, Seek, Write};

use tempfile::SpooledTempFile;

use super::dialect::{Dialect, SAMPLE_BYTES};
use crate::source::spec::CsvSpec;

/// The largest number of fields in a record.
const MAX_FIELDS: usize = 1 << 16;
/// The largest number of quotes in a file that are never closed and after which the lines are read again.
const MAX_REREADS: usize = 1000;

/// A reader of records, with the last record that it read.
pub(super) struct Records<R> {
    /// Lines after an open quote that are read again before `input`, the last reader first.
    reread: Vec<BufReader<SpooledTempFile>>,
    input: BufReader<io::Chain<Cursor<Vec<u8>>, R>>,
    dialect: Dialect,
    line: Vec<u8>,
    /// The fields one after another, without their quotes.
    bytes: Vec<u8>,
    /// Where each field ends in `bytes`.
    ends: Vec<usize>,
    limit: usize,
    rereads: usize,
    first: bool,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    End,
    Whole,
    TooLong,
    /// A quote is never closed; the record has the fields before it.
    Unclosed,
}

/// The state of the parser between two bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    FieldStart,
    Plain,
    Quoted,
    /// After a quote that may close a field.
    Closed,
}

impl<R: Read> Records<R> {
    /// `limit` is the largest size of a record in bytes; `names` are columns that the header should have.
    pub(super) fn new(mut input: R, limit: usize, given: CsvSpec, names: &[String]) -> io::Result<Self> {
        let mut sample = Vec::new();
        input.by_ref().take(SAMPLE_BYTES as u64).read_to_end(&mut sample)?;
        let dialect = Dialect::detect(&sample, given, names);
        let input = BufReader::with_capacity(64 << 10, Cursor::new(sample).chain(input));
        let (reread, line, bytes, ends) = Default::default();
        Ok(Self { reread, input, dialect, line, bytes, ends, limit, rereads: 0, first: true })
    }

    /// Reads the next record.
    pub(super) fn read(&mut self) -> io::Result<Record> {
        loop {
            self.bytes.clear();
            self.ends.clear();
            if !self.next_line()? {
                return Ok(Record::End);
            }
            if std::mem::take(&mut self.first) && self.line.starts_with(b"\xef\xbb\xbf") {
                self.line.drain(..3);
            }
            // A blank line is no record.
            if !matches!(&self.line[..], b"\n" | b"\r\n" | b"\r" | b"") {
                return self.record();
            }
        }
    }

    /// The record that begins with the line.
    fn record(&mut self) -> io::Result<Record> {
        if self.parse(State::FieldStart) != State::Quoted {
            return Ok(self.whole());
        }
        let (fields, first_line) = (self.ends.len(), self.bytes.len());
        // The lines after the first one, in case the quote is never closed.
        let mut held = SpooledTempFile::new(self.limit.min(8 << 20));
        let (mut too_long, mut any) = (false, false);
        let unclosed = loop {
            if !self.next_line()? {
                break true;
            }
            any = true;
            held.write_all(&self.line)?;
            let state = self.parse(State::Quoted);
            too_long |= self.bytes.len() > self.limit || self.ends.len() > MAX_FIELDS;
            if too_long {
                self.bytes.truncate(first_line);
                self.ends.truncate(fields);
            }
            match state {
                State::Quoted => {}
                // A quote that closes a field precedes a delimiter or the end of a line; this one opens another field.
                State::Plain if self.line.is_empty() => break true,
                _ => break false,
            }
        };
        if unclosed && self.rereads < MAX_REREADS {
            if any {
                self.rereads += 1;
                held.rewind()?;
                self.reread.push(BufReader::new(held));
            }
            self.ends.truncate(fields);
            self.bytes.truncate(first_line);
            return Ok(Record::Unclosed);
        }
        Ok(if unclosed {
            Record::Unclosed
        } else if too_long {
            Record::TooLong
        } else {
            self.whole()
        })
    }

    fn whole(&mut self) -> Record {
        if self.bytes.len() <= self.limit && self.ends.len() <= MAX_FIELDS {
            return Record::Whole;
        }
        // The line was cut inside of the last field.
        self.ends.pop();
        Record::TooLong
    }

    /// Reads the next line with its end; a line over the limit is cut, but stays over it.
    fn next_line(&mut self) -> io::Result<bool> {
        self.line.clear();
        while let Some(lines) = self.reread.last_mut() {
            if read_line(lines, &mut self.line, self.dialect.end, self.limit)? {
                return Ok(true);
            }
            self.reread.pop();
        }
        read_line(&mut self.input, &mut self.line, self.dialect.end, self.limit)
    }

    /// Parses the fields of the line. The line is empty afterwards if a quote in it closes a field of several lines and
    /// no delimiter follows.
    fn parse(&mut self, mut state: State) -> State {
        let Dialect { delimiter, quote, escape, end: line_end } = self.dialect;
        let several_lines = state == State::Quoted;
        let mut on_first_field = several_lines;
        let line = std::mem::take(&mut self.line);
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            match state {
                State::Quoted => {
                    let special = |&byte: &u8| byte == quote || Some(byte) == escape;
                    let end = rest.iter().position(special).unwrap_or(rest.len());
                    self.bytes.extend_from_slice(&rest[..end]);
                    at += end;
                    let Some(&byte) = rest.get(end) else { break };
                    let next = rest.get(end + 1).copied();
                    at += 1;
                    if Some(byte) == escape && byte != quote {
                        match next {
                            Some(next) if next == quote || Some(next) == escape => {
                                self.bytes.push(next);
                                at += 1;
                            }
                            _ => self.bytes.push(byte),
                        }
                    } else if next == Some(quote) && escape.is_none_or(|escape| escape == quote) {
                        self.bytes.push(quote);
                        at += 1;
                    } else {
                        state = State::Closed;
                    }
                }
                State::FieldStart if rest[0] == quote => {
                    state = State::Quoted;
                    at += 1;
                }
                State::FieldStart | State::Plain | State::Closed => {
                    let end = rest.iter().position(|&byte| byte == delimiter || byte == line_end).unwrap_or(rest.len());
                    let last = rest.get(end) != Some(&delimiter);
                    let mut field = &rest[..end];
                    if last {
                        field = field.strip_suffix(b"\r").unwrap_or(field);
                    }
                    if state == State::Closed && on_first_field && !field.is_empty() {
                        return State::Plain;
                    }
                    on_first_field = false;
                    self.bytes.extend_from_slice(field);
                    at += end + 1;
                    self.ends.push(self.bytes.len());
                    state = if last { State::Plain } else { State::FieldStart };
                    if last {
                        self.line = line;
                        return State::Closed;
                    }
                }
            }
        }
        if state == State::Quoted {
            self.line = line;
            return State::Quoted;
        }
        // The last line of a file may have no end.
        self.ends.push(self.bytes.len());
        self.line = line;
        State::Closed
    }

    /// The number of fields of the record.
    pub(super) fn fields(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of the record.
    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// A field of the record, if it has that many.
    pub(super) fn field(&self, at: usize) -> Option<&[u8]> {
        let end = *self.ends.get(at)?;
        let start = at.checked_sub(1).map_or(0, |before| self.ends[before]);
        Some(&self.bytes[start..end])
    }
}

fn read_line(input: &mut impl BufRead, line: &mut Vec<u8>, end: u8, limit: usize) -> io::Result<bool> {
    // Quotes and delimiters are not part of the fields.
    let max_bytes = (limit as u64).saturating_mul(2).saturating_add(MAX_FIELDS as u64);
    if input.by_ref().take(max_bytes).read_until(end, line)? == 0 {
        return Ok(false);
    }
    if line.len() as u64 >= max_bytes && line.last() != Some(&end) {
        input.skip_until(end)?;
        line.push(end);
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Eq)]
    enum Found {
        Fields(Vec<String>),
        TooLong,
        Unclosed,
    }

    fn all(text: &str, limit: usize) -> Vec<Found> {
        let mut records =
            Records::new(text.as_bytes(), limit, CsvSpec::default(), &["a".to_owned(), "b".to_owned()]).unwrap();
        let mut found = Vec::new();
        loop {
            match records.read().unwrap() {
                Record::End => return found,
                Record::TooLong => found.push(Found::TooLong),
                Record::Unclosed => found.push(Found::Unclosed),
                Record::Whole => {
                    let fields = (0..records.fields())
                        .map(|at| String::from_utf8_lossy(records.field(at).unwrap()).into_owned());
                    found.push(Found::Fields(fields.collect()));
                }
            }
        }
    }

    fn record(fields: &[&str]) -> Found {
        Found::Fields(fields.iter().map(|&field| field.to_owned()).collect())
    }

    #[test]
    fn quotes_line_breaks_and_blank_lines() {
        let found = all("\u{feff}a,b\r\n\n\"x, \"\"y\"\"\nz\",\n1", 1 << 20);
        assert_eq!(found, [record(&["a", "b"]), record(&["x, \"y\"\nz", ""]), record(&["1"])]);
        let found = all("a,b\r\r\"x\ry\", z \r\"\",\r1,2", 1 << 20);
        assert_eq!(found, [record(&["a", "b"]), record(&["x\ry", " z "]), record(&["", ""]), record(&["1", "2"])]);
        let found = all("a,b\r\n\"x\r\ny\", z \r\n\"\",\"\"\"\"\n,\n", 1 << 20);
        assert_eq!(found, [record(&["a", "b"]), record(&["x\r\ny", " z "]), record(&["", "\""]), record(&["", ""])]);
        // A quote inside of a plain field is a character, and text after a closing quote belongs to the field.
        assert_eq!(all("a,b\n5\" disk,\"x\"y\n", 1 << 20)[1], record(&["5\" disk", "xy"]));
    }

    #[test]
    fn backslashes_before_quotes() {
        let found = all("a,b\n1,\"he said \\\"hi\\\", twice\"\n2,\"a\\\\\"\n3,\"c\\d\"\n", 1 << 20);
        let expected = [
            record(&["a", "b"]),
            record(&["1", "he said \"hi\", twice"]),
            record(&["2", "a\\"]),
            record(&["3", "c\\d"]),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_unclosed_quote_costs_its_record_alone() {
        let header = || record(&["a", "b"]);
        let three = record(&["3", "x"]);
        assert_eq!(all("a,b\n2,\"open\n3,x\n", 1 << 20), [header(), Found::Unclosed, record(&["3", "x"])]);
        // A quote that opens the next field does not close this one.
        let found = all("a,b\n2,\"open\n3,\"x\"\n4,\"y\nz\"\n", 1 << 20);
        assert_eq!(found, [header(), Found::Unclosed, three, record(&["4", "y\nz"])]);
        // A quote before a line break closes the field.
        let found = all("a,b\n1,\"\n2,\"\n3,\"", 1 << 20);
        assert_eq!(found, [header(), record(&["1", "\n2,"]), Found::Unclosed]);
        // The same far beyond the limit.
        let lines = "1,2\n".repeat(10_000);
        let found = all(&format!("a,b\n0,\"open\n{lines}"), 1000);
        assert_eq!((found.len(), &found[1]), (10_002, &Found::Unclosed));
    }

    #[test]
    fn a_long_record_is_skipped_and_the_next_one_is_read() {
        let (long, wide) = ("x\n".repeat(100_000), "1,".repeat(100_000));
        let found = all(&format!("a,b\n\"{long}\",2\n3,4\n{wide}\n5,6\n"), 10_000);
        assert_eq!(
            found,
            [record(&["a", "b"]), Found::TooLong, record(&["3", "4"]), Found::TooLong, record(&["5", "6"])]
        );
        let line = "x".repeat(1 << 20);
        assert_eq!(all(&format!("a,b\n{line},1\n5,6\n"), 10_000)[1..], [Found::TooLong, record(&["5", "6"])]);
        assert_eq!(all(&format!("a,b\n\"{line}\",1\n5,6\n"), 10_000)[2], record(&["5", "6"]));
    }

    #[test]
    fn a_record_as_long_as_the_limit_is_whole() {
        let text = "x".repeat(9_999);
        assert_eq!(all(&format!("{text}\n"), 10_000), [record(&[&text])]);
    }
}
