//! What a file is, by its content.

use std::io;

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use tokio::io::{AsyncBufRead, AsyncRead};

/// How a file is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Apache Parquet.
    Parquet,
    /// Arrow IPC, file or stream.
    Arrow,
    /// One JSON object a line.
    Jsonl,
    /// Comma-separated values with a header line.
    Csv,
}

/// The compression around a text file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compression {
    None,
    Gzip,
    Zstd,
    Bzip2,
    Xz,
}

/// Bytes at the beginning of a file that are looked at.
pub(crate) const HEAD: u64 = 64 << 10;

/// Bytes that reading an xz file may take beside its plain bytes.
const XZ_MEMORY: u64 = 256 << 20;

impl Compression {
    pub(crate) fn of(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Self::Zstd,
            [b'B', b'Z', b'h', ..] => Self::Bzip2,
            [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Self::Xz,
            _ => Self::None,
        }
    }

    /// The plain bytes of a compressed stream; several compressed parts one after another are one.
    pub(crate) fn plain(self, bytes: impl AsyncBufRead + Send + Unpin + 'static) -> Box<dyn AsyncRead + Send + Unpin> {
        macro_rules! decoder {
            ($kind:ident) => {{
                let mut decoder = $kind::new(bytes);
                decoder.multiple_members(true);
                Box::new(decoder)
            }};
        }
        match self {
            Self::None => Box::new(bytes),
            Self::Gzip => decoder!(GzipDecoder),
            Self::Zstd => decoder!(ZstdDecoder),
            Self::Bzip2 => decoder!(BzDecoder),
            Self::Xz => {
                // The header of an xz file says how much memory its reader takes, up to 4 GiB; `xz -9` says 65 MiB.
                let mut decoder = XzDecoder::with_mem_limit(bytes, XZ_MEMORY);
                decoder.multiple_members(true);
                Box::new(decoder)
            }
        }
    }
}

/// The format of a file whose plain bytes begin with `plain`.
pub(crate) fn sniff(plain: &[u8], compression: Compression) -> io::Result<Format> {
    let unsupported = |message: &str| Err(io::Error::new(io::ErrorKind::Unsupported, message));
    let text = plain.strip_prefix(b"\xef\xbb\xbf").unwrap_or(plain);
    let format = match text {
        [b'P', b'A', b'R', b'1', ..] => Format::Parquet,
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => Format::Arrow,
        text if text.trim_ascii_start().starts_with(b"{") => Format::Jsonl,
        text if text
            .trim_ascii_start()
            .strip_prefix(b"[")
            .is_some_and(|rest| rest.trim_ascii_start().starts_with(b"{")) =>
        {
            return unsupported("a JSON array: write one object a line");
        }
        [] => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")),
        _ => Format::Csv,
    };
    if compression != Compression::None && matches!(format, Format::Parquet | Format::Arrow) {
        return unsupported("a compressed Parquet or Arrow file: decompress it, it compresses its columns itself");
    }
    Ok(format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_known_by_their_content() {
        let found = |head: &[u8]| sniff(head, Compression::of(head)).unwrap();
        assert_eq!(found(b"PAR1\x15"), Format::Parquet);
        assert_eq!(found(b"ARROW1\0\0"), Format::Arrow);
        assert_eq!(found(b"\xff\xff\xff\xff\x10"), Format::Arrow);
        assert_eq!(found(b"\xef\xbb\xbf \n{\"id\":1}"), Format::Jsonl);
        assert_eq!(found(b"id,text\n"), Format::Csv);
        assert_eq!(Compression::of(b"BZh9"), Compression::Bzip2);
        assert_eq!(sniff(b"", Compression::None).unwrap_err().to_string(), "the file is empty");
        assert!(sniff(b"[ {\"id\":1}]", Compression::None).unwrap_err().to_string().contains("JSON array"));
        assert!(sniff(b"PAR1", Compression::Gzip).unwrap_err().to_string().contains("decompress it"));
    }
}
