//! Recognizes the format and the compression of a file by its content.

use std::io;

use async_compression::{
    tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder},
    zstd::DParameter,
};
use async_stream::try_stream;
use bytes::BytesMut;
use polylance_schema::SourceFormat;
use serde_json::{Value, error::Category};
use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};
use tokio_util::io::StreamReader;

/// The compression around a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// The bytes at the beginning of a file from which its format is recognized.
pub(super) const HEAD_BYTES: u64 = 64 << 10;

/// The bytes of memory that an xz decoder may take in addition to the decompressed bytes.
const MAX_XZ_MEMORY: u64 = 256 << 20;

/// The largest window of zstd as a power of two: that of `zstd --ultra --long=31`.
const MAX_ZSTD_WINDOW_LOG: u32 = 31;

/// The bytes that are decompressed at a time.
const PLAIN_BYTES: usize = 64 << 10;

/// The plain bytes of concatenated compressed members. Zeros after a member pad a block of a tape or of an archive.
macro_rules! members {
    ($bytes:expr, $decoder:expr) => {{
        let mut bytes = $bytes;
        let plain = try_stream! {
            loop {
                let mut decoder = $decoder(bytes);
                loop {
                    let mut plain = BytesMut::with_capacity(PLAIN_BYTES);
                    if decoder.read_buf(&mut plain).await? == 0 {
                        break;
                    }
                    yield plain.freeze();
                }
                bytes = decoder.into_inner();
                if skip_zeros(&mut bytes).await? {
                    break;
                }
            }
        };
        // The stream holds references into itself.
        let plain: futures::stream::BoxStream<'static, io::Result<bytes::Bytes>> = Box::pin(plain);
        Box::new(StreamReader::new(plain))
    }};
}

impl Compression {
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            // A frame of data, or a skippable one, which parallel and seekable zstd write first.
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// The plain bytes of a compressed stream, which may consist of several compressed members.
    pub(crate) fn plain(self, bytes: impl AsyncBufRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
        match self {
            Self::None => Box::new(bytes),
            Self::Gzip => members!(bytes, GzipDecoder::new),
            Self::Zstd => {
                let mut decoder = ZstdDecoder::with_params(bytes, &[DParameter::window_log_max(MAX_ZSTD_WINDOW_LOG)]);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
            Self::Bzip2 => {
                let mut decoder = BzDecoder::new(bytes);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
            // The header of an xz file sets the memory of its decoder, up to 4 GiB; with `xz -9` it is 65 MiB.
            Self::Xz => members!(bytes, xz_decoder),
        }
    }
}

/// Skips zeros. Returns whether nothing follows them.
async fn skip_zeros(bytes: &mut (impl AsyncBufRead + Unpin)) -> io::Result<bool> {
    loop {
        let buffer = bytes.fill_buf().await?;
        if buffer.is_empty() {
            return Ok(true);
        }
        let zeros = buffer.iter().take_while(|byte| **byte == 0).count();
        let is_at_more = zeros < buffer.len();
        bytes.consume(zeros);
        if is_at_more {
            return Ok(false);
        }
    }
}

fn xz_decoder<R: AsyncBufRead>(bytes: R) -> XzDecoder<R> {
    XzDecoder::with_mem_limit(bytes, MAX_XZ_MEMORY)
}

/// The format by the extension of a file, before the extension of its compression.
pub(crate) fn named_format(name: &str) -> Option<SourceFormat> {
    let name = name.rsplit('/').next().unwrap_or(name).to_ascii_lowercase();
    let mut endings = name.rsplit('.');
    let mut ending = endings.next()?;
    if matches!(ending, "gz" | "gzip" | "zst" | "zstd" | "bz2" | "xz") {
        ending = endings.next()?;
    }
    match ending {
        "parquet" | "pq" | "parq" => Some(SourceFormat::Parquet),
        "arrow" | "arrows" | "feather" | "ipc" => Some(SourceFormat::Arrow),
        "jsonl" | "ndjson" | "json" | "jsonlines" | "ldjson" => Some(SourceFormat::Jsonl),
        "csv" | "tsv" | "tab" | "psv" => Some(SourceFormat::Csv),
        _ => None,
    }
}

/// Whether a text has no row: only white space, and the byte order mark of UTF-8.
pub(crate) fn is_blank(plain: &[u8]) -> bool {
    let text = plain.strip_prefix(UTF8_BOM).unwrap_or(plain);
    text.iter().all(u8::is_ascii_whitespace)
}

const UTF8_BOM: &[u8] = b"\xef\xbb\xbf";

/// The format of a file whose plain bytes begin with `plain`.
pub(crate) fn sniff(plain: &[u8], compression: Compression, given: Option<SourceFormat>) -> io::Result<SourceFormat> {
    let unsupported = |message: String| Err(io::Error::new(io::ErrorKind::Unsupported, message));
    let text = plain.strip_prefix(UTF8_BOM).unwrap_or(plain);
    let trimmed = text.trim_ascii_start();
    let format = match text {
        [b'P', b'A', b'R', b'1', ..] => SourceFormat::Parquet,
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => SourceFormat::Arrow,
        [] => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")),
        _ if let Some(encoding) = wide_encoding(plain) => {
            return unsupported(format!("the file is {encoding}: convert it to UTF-8: iconv -f {encoding} -t UTF-8"));
        }
        _ if trimmed.starts_with(b"{") => {
            if given != Some(SourceFormat::Csv) && is_spread_over_lines(trimmed) {
                return unsupported(
                    "a JSON object over several lines: write one object a line: jq -c . in.json > out.jsonl".to_owned(),
                );
            }
            SourceFormat::Jsonl
        }
        _ if given != Some(SourceFormat::Csv) && is_array(trimmed) => {
            return unsupported("a JSON array: write one object a line: jq -c '.[]' in.json > out.jsonl".to_owned());
        }
        _ => SourceFormat::Csv,
    };
    if compression != Compression::None && matches!(format, SourceFormat::Parquet | SourceFormat::Arrow) {
        return unsupported(
            "a compressed Parquet or Arrow file: decompress it, it compresses its columns itself".to_owned(),
        );
    }
    Ok(format)
}

/// The encoding of a UTF-16 or UTF-32 text, by its byte order mark or by the zeros between its characters.
fn wide_encoding(plain: &[u8]) -> Option<&'static str> {
    match plain {
        [0xff, 0xfe, 0, 0, ..] => return Some("UTF-32LE"),
        [0, 0, 0xfe, 0xff, ..] => return Some("UTF-32BE"),
        [0xff, 0xfe, ..] => return Some("UTF-16LE"),
        [0xfe, 0xff, ..] => return Some("UTF-16BE"),
        _ => {}
    }
    // The first characters of a header and of JSON are ASCII.
    let sample = &plain[..plain.len().min(16)];
    if sample.len() < 8 {
        return None;
    }
    let zeros_at = |width: usize, at: usize| {
        let is_zero = |(place, byte): (usize, &u8)| (*byte == 0) == (place % width != at);
        sample[..sample.len() / width * width].iter().enumerate().all(is_zero)
    };
    [(4, 0, "UTF-32LE"), (4, 3, "UTF-32BE"), (2, 0, "UTF-16LE"), (2, 1, "UTF-16BE")]
        .into_iter()
        .find(|(width, at, _)| zeros_at(*width, *at))
        .map(|(_, _, name)| name)
}

/// Whether a text that begins with a brace is a JSON object over several lines.
fn is_spread_over_lines(text: &[u8]) -> bool {
    let Some(end) = text.iter().position(|byte| *byte == b'\n') else { return false };
    let is_cut_off =
        |text: &[u8]| serde_json::from_slice::<Value>(text).is_err_and(|error| error.classify() == Category::Eof);
    if !is_cut_off(&text[..end]) {
        return false;
    }
    match serde_json::Deserializer::from_slice(text).into_iter::<Value>().next() {
        Some(Ok(_)) => true,
        // The object is longer than the text.
        Some(Err(error)) => error.classify() == Category::Eof,
        None => false,
    }
}

/// Whether a text begins as a JSON array of objects does.
fn is_array(text: &[u8]) -> bool {
    text.strip_prefix(b"[").is_some_and(|rest| {
        let rest = rest.trim_ascii_start();
        rest.starts_with(b"{") || rest.strip_prefix(b"]").is_some_and(is_blank)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_recognized_by_content() {
        let found = |head: &[u8]| sniff(head, Compression::of(head), None).unwrap();
        assert_eq!(found(b"PAR1\x15"), SourceFormat::Parquet);
        assert_eq!(found(b"ARROW1\0\0"), SourceFormat::Arrow);
        assert_eq!(found(b"\xff\xff\xff\xff\x10"), SourceFormat::Arrow);
        assert_eq!(found(b"\xef\xbb\xbf \n{\"id\":1}"), SourceFormat::Jsonl);
        assert_eq!(found(b"id,text\n"), SourceFormat::Csv);
        assert_eq!(found(b"id,text\n1,a\0b\n"), SourceFormat::Csv);
        assert_eq!(Compression::of(b"BZh9"), Compression::Bzip2);
        for first in [[0x28, 0xb5, 0x2f, 0xfd], [0x50, 0x2a, 0x4d, 0x18], [0x5f, 0x2a, 0x4d, 0x18]] {
            assert_eq!(Compression::of(&first), Compression::Zstd);
        }
        assert_eq!(sniff(b"", Compression::None, None).unwrap_err().to_string(), "the file is empty");
        assert!(sniff(b"PAR1", Compression::Gzip, None).unwrap_err().to_string().contains("decompress it"));
    }

    #[test]
    fn the_error_names_an_encoding_that_is_not_utf8() {
        let text = "id,text\n1,é";
        let utf16 = |order: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(order).collect::<Vec<_>>();
        let utf32 = |order: fn(u32) -> [u8; 4]| text.chars().flat_map(|c| order(c.into())).collect::<Vec<_>>();
        for (mark, bytes, name) in [
            (&[0xff, 0xfe][..], utf16(u16::to_le_bytes), "UTF-16LE"),
            (&[0xfe, 0xff], utf16(u16::to_be_bytes), "UTF-16BE"),
            (&[0xff, 0xfe, 0, 0], utf32(u32::to_le_bytes), "UTF-32LE"),
            (&[0, 0, 0xfe, 0xff], utf32(u32::to_be_bytes), "UTF-32BE"),
        ] {
            for bytes in [[mark, &bytes].concat(), bytes] {
                let error = sniff(&bytes, Compression::None, None).unwrap_err().to_string();
                assert!(error.contains(&format!("iconv -f {name} -t UTF-8")), "{error}");
            }
        }
    }

    #[test]
    fn json_without_one_object_per_line_is_refused_with_a_command_that_converts_it() {
        let refused = |text: &str| sniff(text.as_bytes(), Compression::None, None).map_err(|error| error.to_string());
        let long = format!("{{\n  \"text\": \"{}", "x".repeat(100));
        for text in ["{\n  \"id\": 1\n}\n", "{ \"id\": 1,\n  \"text\": \"a\" }\n{", &long] {
            assert!(refused(text).unwrap_err().contains("jq -c ."), "{text}");
        }
        for text in ["[ {\"id\":1}]", "[\n{", "[]\n"] {
            assert!(refused(text).unwrap_err().contains("jq -c '.[]'"), "{text}");
        }
        for text in ["{\"id\": 1, \"te\n{\"id\": 2}\n", "{bad\n{\"id\": 2}\n", "{\"id\": 1", "{\"id\": 1,\n{\"id\": 2}"]
        {
            assert_eq!(refused(text).unwrap(), SourceFormat::Jsonl, "{text}");
        }
        assert_eq!(sniff(b"{\n}", Compression::None, Some(SourceFormat::Csv)).unwrap(), SourceFormat::Jsonl);
    }

    #[test]
    fn the_extension_before_the_compression_names_the_format() {
        for (name, format) in [
            ("s3://b/part-0.json.gz", Some(SourceFormat::Jsonl)),
            ("a.b/part-0.TSV", Some(SourceFormat::Csv)),
            ("/x/part.snappy.parquet", Some(SourceFormat::Parquet)),
            ("x.csv/part-00000", None),
            ("x.gz", None),
        ] {
            assert_eq!(named_format(name), format, "{name}");
        }
        assert!(is_blank(b"\xef\xbb\xbf\r\n \n") && is_blank(b"") && !is_blank(b"\nx"));
    }

    async fn plain(bytes: Vec<u8>) -> io::Result<String> {
        let mut text = String::new();
        let compression = Compression::of(&bytes);
        compression.plain(io::Cursor::new(bytes)).read_to_string(&mut text).await.map(|_| text)
    }

    #[tokio::test]
    async fn concatenated_members_and_padding_are_read() {
        use async_compression::{
            Level,
            tokio::write::{GzipEncoder, XzEncoder, ZstdEncoder},
            zstd::CParameter,
        };
        use tokio::io::AsyncWriteExt;

        macro_rules! compressed {
            ($encoder:expr, $text:expr) => {{
                let mut encoder = $encoder;
                encoder.write_all($text.as_bytes()).await.unwrap();
                encoder.shutdown().await.unwrap();
                encoder.into_inner()
            }};
        }
        let gzip = async |text: &str| compressed!(GzipEncoder::new(Vec::new()), text);
        let xz = async |text: &str| compressed!(XzEncoder::new(Vec::new()), text);
        let zstd = async |text: &str| {
            let long = [CParameter::window_log(28), CParameter::enable_long_distance_matching(true)];
            compressed!(ZstdEncoder::with_quality_and_params(Vec::new(), Level::Default, &long), text)
        };
        let zeros = vec![0; 512];
        for (bytes, expected) in [
            ([gzip("one ").await, gzip("two").await].concat(), "one two"),
            ([gzip("one ").await, zeros.clone(), gzip("two").await, zeros.clone()].concat(), "one two"),
            ([xz("one ").await, xz("two").await, zeros.clone()].concat(), "one two"),
            (gzip("").await, ""),
            ([b"\x50\x2a\x4d\x18\x04\0\0\0size".to_vec(), zstd("one ").await, zstd("two").await].concat(), "one two"),
            ([zstd("one").await, b"\x5e\x2a\x4d\x18\x03\0\0\0end".to_vec()].concat(), "one"),
        ] {
            assert_eq!(plain(bytes).await.unwrap(), expected);
        }
        let cut = gzip("a text that is cut off").await;
        assert!(plain(cut[..cut.len() - 9].to_vec()).await.is_err());
        assert!(plain([gzip("one").await, b"\0\0garbage".to_vec()].concat()).await.is_err());
    }
}
