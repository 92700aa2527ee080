//! Arrays in numpy's format.

use std::{fs, io, path::Path};

/// Writes numbers of `shape` as little-endian f32.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_f32(path: &Path, shape: &[usize], numbers: &[f32]) -> io::Result<()> {
    write(path, "<f4", shape, numbers.iter().flat_map(|number| number.to_le_bytes()))
}

/// Writes numbers of `shape` as little-endian u32.
///
/// # Errors
/// When the file cannot be written.
pub(crate) fn write_u32(path: &Path, shape: &[usize], numbers: &[u32]) -> io::Result<()> {
    write(path, "<u4", shape, numbers.iter().flat_map(|number| number.to_le_bytes()))
}

/// Version 1.0 of the format: magic bytes, the length of the header, the header as a Python literal, the numbers.
fn write(path: &Path, number: &str, shape: &[usize], numbers: impl Iterator<Item = u8>) -> io::Result<()> {
    const PREFIX: usize = 10;
    let sizes = shape.iter().fold(String::new(), |sizes, size| sizes + &size.to_string() + ",");
    let mut header = format!("{{'descr': '{number}', 'fortran_order': False, 'shape': ({sizes}), }}");
    // The data starts at a multiple of 64 bytes, and a newline ends the header.
    let padded = (PREFIX + header.len() + 1).next_multiple_of(64) - PREFIX;
    header.push_str(&" ".repeat(padded - 1 - header.len()));
    header.push('\n');
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    bytes.extend_from_slice(&(header.len() as u16).to_le_bytes());
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend(numbers);
    fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_is_padded_and_the_numbers_follow() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_f32(&path, &[2, 3], &[0.5; 6]).unwrap();
        let bytes = fs::read(&path).unwrap();
        assert_eq!(bytes.len(), 64 * 2 + 24);
        assert!(
            bytes.starts_with(b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2,3,), }")
        );
        assert_eq!(bytes[127], b'\n');
        assert_eq!(bytes[128..132], 0.5f32.to_le_bytes());
        write_u32(&path, &[1], &[7]).unwrap();
        assert_eq!(fs::read(&path).unwrap()[128..], [7, 0, 0, 0]);
    }
}
