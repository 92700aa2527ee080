//! Checks the compiled table of a `Precompiled` normalizer before the library reads it.
//!
//! The table begins with the length of its first part, and the library reserves that much memory without comparing it
//! with the length of the table: four bytes could claim 4 GiB, and a failed allocation ends the process.

use serde::Deserialize;
use serde_json::Value;

const CHARSMAP_KEY: &str = "precompiled_charsmap";

/// Refuses a `tokenizer.json` with a table that is shorter than it claims, or one that is not a JSON object.
pub(crate) fn check(json: &[u8]) -> Result<(), String> {
    #[derive(Deserialize)]
    struct Normalized {
        #[serde(default)]
        normalizer: Value,
    }
    // The library builds the normalizer before it notices that the file is broken further on.
    let tokenizer: Normalized = serde_json::from_slice(json).map_err(|error| error.to_string())?;
    let mut open = vec![&tokenizer.normalizer];
    while let Some(value) = open.pop() {
        match value {
            Value::Object(keys) => {
                if let Some(table) = keys.get(CHARSMAP_KEY).and_then(Value::as_str)
                    && let Some(claimed) = claimed_length(table)
                    && claimed > table.len()
                {
                    return Err(format!("{CHARSMAP_KEY} claims {claimed} bytes and has fewer than {}", table.len()));
                }
                open.extend(keys.values());
            }
            Value::Array(items) => open.extend(items),
            _ => {}
        }
    }
    Ok(())
}

/// The length at the beginning of the table: four bytes, little-endian, in base64.
fn claimed_length(base64: &str) -> Option<usize> {
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
    fn length_is_decoded_from_base64() {
        assert_eq!(claimed_length("/////w=="), Some(u32::MAX as usize));
        assert_eq!(claimed_length("AQAAAA=="), Some(1));
        assert_eq!(claimed_length("ALQCAA"), Some(0x0002_b400));
        assert_eq!((claimed_length(""), claimed_length("A*AAAA")), (None, None));
    }

    #[test]
    fn table_that_claims_more_bytes_than_it_has_is_refused_anywhere() {
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
