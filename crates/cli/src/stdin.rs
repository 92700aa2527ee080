//! Lines of standard input.

use std::io::{self, BufRead};

use anyhow::{Context, bail};
use tokio::sync::mpsc;

use crate::error::Result;

/// Maximum bytes of a line.
const MAX_LINE_BYTES: u64 = 64 << 20;

/// Lines of stdin without their line breaks. A thread reads up to `ahead` lines in advance.
pub(crate) fn lines(ahead: usize) -> mpsc::Receiver<Result<String>> {
    let (sender, receiver) = mpsc::channel(ahead);
    std::thread::spawn(move || {
        let mut stdin = io::stdin().lock();
        for number in 1_u64.. {
            let Some(line) = read_line(&mut stdin, number).transpose() else { return };
            let last = line.is_err();
            if sender.blocking_send(line).is_err() || last {
                return;
            }
        }
    });
    receiver
}

/// The next line; `None` at the end.
fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<String>> {
    let mut line = Vec::new();
    let read = io::Read::take(&mut *input, MAX_LINE_BYTES).read_until(b'\n', &mut line).context("cannot read stdin")?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
        line.pop_if(|byte| *byte == b'\r');
    } else if read as u64 == MAX_LINE_BYTES {
        bail!("line {number} of stdin is longer than {} MiB", MAX_LINE_BYTES >> 20);
    }
    let line = String::from_utf8(line)
        .map_err(|error| anyhow::anyhow!("line {number} of stdin is not UTF-8: {}", error.utf8_error()))?;
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_end_with_lf_crlf_or_the_end_of_input() {
        let mut input = &b"one\r\n\ntwo"[..];
        let read: Vec<_> = (1..).map_while(|number| read_line(&mut input, number).unwrap()).collect();
        assert_eq!(read, ["one", "", "two"]);
    }

    #[test]
    fn error_names_the_line_that_is_not_utf8() {
        let error = read_line(&mut &b"caf\xe9\n"[..], 7).unwrap_err().to_string();
        assert!(error.starts_with("line 7 of stdin is not UTF-8"), "{error}");
    }
}
