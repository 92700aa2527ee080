//! What a file is, by its content.

use std::io;

use async_compression::tokio::bufread::{BzDecoder, GzipDecoder, XzDecoder, ZstdDecoder};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncReadExt, BufReader};

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
            Self::Xz => decoder!(XzDecoder),
        }
    }
}

/// The format and compression of a file that begins with `head`.
pub(crate) async fn sniff(head: Vec<u8>) -> io::Result<(Format, Compression)> {
    let compression = Compression::of(&head);
    let mut plain = Vec::new();
    let mut reader = compression.plain(BufReader::new(io::Cursor::new(head))).take(HEAD);
    // The head of a compressed file ends in the middle of it: what came before is enough.
    match reader.read_to_end(&mut plain).await {
        Err(error) if plain.is_empty() => return Err(error),
        Ok(_) | Err(_) => {}
    }
    let text = plain.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&plain);
    let format = match text {
        [b'P', b'A', b'R', b'1', ..] => Format::Parquet,
        [b'A', b'R', b'R', b'O', b'W', b'1', ..] | [0xff, 0xff, 0xff, 0xff, ..] => Format::Arrow,
        text if text.trim_ascii_start().starts_with(b"{") => Format::Jsonl,
        [] => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty")),
        _ => Format::Csv,
    };
    if compression != Compression::None && matches!(format, Format::Parquet | Format::Arrow) {
        let message = "a compressed Parquet or Arrow file: decompress it, it compresses its columns itself";
        return Err(io::Error::new(io::ErrorKind::Unsupported, message));
    }
    Ok((format, compression))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn formats_are_known_by_their_content() {
        let found = async |head: &[u8]| sniff(head.to_vec()).await.unwrap();
        assert_eq!(found(b"PAR1\x15").await, (Format::Parquet, Compression::None));
        assert_eq!(found(b"ARROW1\0\0").await, (Format::Arrow, Compression::None));
        assert_eq!(found(b"\xff\xff\xff\xff\x10").await, (Format::Arrow, Compression::None));
        assert_eq!(found(b"\xef\xbb\xbf \n{\"id\":1}").await, (Format::Jsonl, Compression::None));
        assert_eq!(found(b"id,text\n").await, (Format::Csv, Compression::None));
        assert_eq!(sniff(Vec::new()).await.unwrap_err().to_string(), "the file is empty");
    }
}
