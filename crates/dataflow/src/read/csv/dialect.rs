//! The separators, quotes and escapes of a CSV file: given, or detected at its beginning.

use crate::source::spec::CsvSpec;

/// The bytes at the beginning of a file from which its dialect is detected.
pub(super) const SAMPLE_BYTES: usize = 256 << 10;
/// The delimiters that are detected, the likeliest first.
const DELIMITERS: [u8; 4] = *b",\t;|";
/// The number of records that are compared with the header.
const SAMPLE_RECORDS: usize = 50;

/// The separators of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    pub(super) delimiter: u8,
    pub(super) quote: u8,
    /// Precedes a quote inside of quotes, if quotes are not doubled.
    pub(super) escape: Option<u8>,
    /// The last byte of a line's end: a line feed, or old Macs' carriage return alone.
    pub(super) end: u8,
}

impl Dialect {
    /// Detects the dialect at the beginning of a file; `names` are columns that its header should have.
    pub(super) fn detect(sample: &[u8], given: CsvSpec, names: &[String]) -> Self {
        let quote = given.quote.unwrap_or(b'"');
        let end = if sample.contains(&b'\r') && !sample.contains(&b'\n') { b'\r' } else { b'\n' };
        let plain = |delimiter, escape| Self { delimiter, quote, escape, end };
        let best = || {
            // `max_by_key` returns the last of equal maxima: the likeliest comes last.
            DELIMITERS
                .into_iter()
                .rev()
                .max_by_key(|&delimiter| plain(delimiter, given.escape).likelihood(sample, names))
        };
        let delimiter = given.delimiter.or_else(best).unwrap_or(b',');
        let escape = given.escape.filter(|&escape| escape != quote);
        let detected = given.escape.is_none() && plain(delimiter, None).has_backslashes(sample);
        plain(delimiter, if detected { Some(b'\\') } else { escape })
    }

    /// The number of `names` in the header, whether a record has as many fields as the header, and that number.
    fn likelihood(self, sample: &[u8], names: &[String]) -> (usize, bool, usize) {
        let mut records = sample.split(|&byte| byte == self.end).map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        let header = records.next().unwrap_or_default();
        let header = header.strip_prefix(b"\xef\xbb\xbf").unwrap_or(header);
        let fields: Vec<_> = header.split(|&byte| byte == self.delimiter).collect();
        let unquoted = |field: &[u8]| {
            let inner = field.strip_prefix(&[self.quote]).and_then(|field| field.strip_suffix(&[self.quote]));
            inner.unwrap_or(field).to_vec()
        };
        let named = names.iter().filter(|name| fields.iter().any(|field| unquoted(field) == name.as_bytes())).count();
        let as_many = |line: &[u8]| line.split(|byte| *byte == self.delimiter).count() >= fields.len();
        let steady = fields.len() > 1 && records.take(SAMPLE_RECORDS).filter(|line| !line.is_empty()).any(as_many);
        (named, steady, fields.len())
    }

    /// Whether quotes inside of quotes follow backslashes, as Spark and `PostgreSQL` write them, and none is doubled.
    fn has_backslashes(self, sample: &[u8]) -> bool {
        let ends = |byte: Option<&u8>| byte.is_none_or(|&byte| byte == self.delimiter || matches!(byte, b'\r' | b'\n'));
        let (mut escaped, mut at, mut starts) = (false, 0, true);
        while let Some(&byte) = sample.get(at) {
            if !(starts && byte == self.quote) {
                starts = byte == self.delimiter || byte == self.end || at < 3 && !byte.is_ascii();
                at += 1;
                continue;
            }
            // In a quoted field, up to a quote before a delimiter.
            at += 1;
            while let Some(&byte) = sample.get(at) {
                let next = sample.get(at + 1);
                if byte == b'\\' && next == Some(&self.quote) {
                    // `"C:\"` ends there; `\""` may be either.
                    if ends(sample.get(at + 2)) {
                        at += 1;
                        continue;
                    }
                    escaped |= sample.get(at + 2) != Some(&self.quote);
                    at += 2;
                } else if byte == self.quote && next == Some(&self.quote) {
                    if !ends(sample.get(at + 2)) || sample.get(at.wrapping_sub(1)) != Some(&b'\\') {
                        return false;
                    }
                    at += 2;
                } else if byte == self.quote {
                    at += 1;
                    break;
                } else {
                    at += 1;
                }
            }
            starts = false;
        }
        escaped
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dialect_is_detected_at_the_beginning() {
        let dialect = |delimiter, escape| Dialect { delimiter, quote: b'"', escape, end: b'\n' };
        let names = ["id".to_owned(), "text".to_owned()];
        for (sample, expected) in [
            ("id,text\n1,a;b\n", dialect(b',', None)),
            ("id\ttext\n1\ta, b\n", dialect(b'\t', None)),
            ("\u{feff}id;text;a,b\r\n1;x;y\r\n", dialect(b';', None)),
            ("id|text\n1|a\n", dialect(b'|', None)),
            ("id;text;a,b\r1;x;y\r", Dialect { end: b'\r', ..dialect(b';', None) }),
            ("text\r\"he said \\\"hi\\\" twice\"\r", Dialect { end: b'\r', ..dialect(b',', Some(b'\\')) }),
            ("\"id\";\"text\"\n1;\"a\"\n", dialect(b';', None)),
            ("text\nx;y\n", dialect(b',', None)),
            ("id,text\n1,\"he said \\\"hi\\\" twice\"\n", dialect(b',', Some(b'\\'))),
            ("id,text\n1,\"C:\\dir\\\"\n2,\"a \"\"b\"\" c\"\n", dialect(b',', None)),
            ("id,text\n1,\"C:\\dir\\\",x\n", dialect(b',', None)),
        ] {
            assert_eq!(Dialect::detect(sample.as_bytes(), CsvSpec::default(), &names), expected, "{sample:?}");
        }
        let given = CsvSpec { delimiter: Some(b'~'), quote: Some(b'\''), escape: Some(b'^') };
        let expected = Dialect { delimiter: b'~', quote: b'\'', escape: Some(b'^'), end: b'\n' };
        assert_eq!(Dialect::detect(b"id,text", given, &names), expected);
    }
}
