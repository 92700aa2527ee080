//! The compiled table of a `Precompiled` normalizer, looked at before its library reads it.
//!
//! The table says how long its first part is, and the library reserves that much memory without asking how long the
//! table is: four bytes could claim 4 GiB, and memory that is not there ends the process.

use serde::Deserialize;
use serde_json::Value;

const TABLE: &str = "precompiled_charsmap";

/// Refuses a `tokenizer.json` with a table that is shorter than it says, and what is no JSON object.
pub(crate) fn check(json: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Normalized {
        #[serde(default)]
        normalizer: Value,
    }
    // The library makes its parts before it sees that the file is broken further on.
    let tokenizer: Normalized = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut open = vec![&tokenizer.normalizer];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(keys) => {
                if let Some(table) = keys.get(TABLE).and_then(Value::as_str)
                    && let Some(claimed) = claimed(table)
                    && claimed > table.len()
                {
                    return Err(format!("{TABLE} says that it has {claimed} bytes, it has fewer than {}", table.len()));
                }
                open.extend(keys.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    Ok(())
}

/// The length that the table begins with: four bytes, the lowest first, in base64.
fn claimed(base64: &str) -> Option<usize> {
    let digit = |byte: &u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let word =
        base64.as_bytes().get(..6)?.iter().try_fold(0_u64, |word, byte| Some(word << 6 | u64::from(digit(byte)?)))?;
    let [.., first, second, third, fourth] = (word >> 4).to_be_bytes();
    Some(u32::from_le_bytes([first, second, third, fourth]) as usize)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_length_is_read_from_base64() {
        assert_eq!(claimed("/////w=="), Some(u32::MAX as usize));
        assert_eq!(claimed("AQAAAA=="), Some(1));
        assert_eq!(claimed("ALQCAA"), Some(0x0002_b400));
        assert_eq!((claimed(""), claimed("A*AAAA")), (None, None));
    }

    #[test]
    fn a_table_that_claims_more_than_it_has_is_refused_wherever_it_stands() {
        let table = r#"{"type":"Precompiled","precompiled_charsmap":"/////w=="}"#;
        for json in [
            format!(r#"{{"normalizer":{table}}}"#),
            format!(r#"{{"normalizer":{{"type":"Sequence","normalizers":[{table}]}}}}"#),
        ] {
            assert!(check(json.as_bytes()).unwrap_err().contains("4294967295 bytes"));
        }
        assert_eq!(check(br#"{"normalizer":null}"#), Ok(()));
        let broken = format!(r#"{{"normalizer":{table},"model":"#);
        assert!(check(broken.as_bytes()).is_err());
        assert_eq!(check(&polylance_builtin::tokenizer_json()), Ok(()));
    }
}
