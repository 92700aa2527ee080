//! Ages as people write them: `7d`, `12h`, `30m`, `45s`, `0`.

use std::time::Duration;

/// Seconds of each unit.
const UNITS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// Reads an age; without a unit only 0 is one.
pub(crate) fn parse(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected an age such as 7d, 12h, 30m or 0, found {text:?}");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match UNITS.iter().find(|(name, _)| *name == unit) {
        Some((_, seconds)) => *seconds,
        None if unit.is_empty() && number == 0 => 1,
        None => return Err(expected()),
    };
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(expected)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_a_unit() {
        let cases = [("7d", 604_800), ("12h", 43_200), ("30m", 1800), ("45s", 45), ("0", 0), ("0d", 0)];
        for (text, seconds) in cases {
            assert_eq!(parse(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "7 d", "-1d", "1w", "99999999999999999999d", "1.5h"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
