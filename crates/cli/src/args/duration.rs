//! Durations with a unit: `7d`, `12h`, `30m`, `45s`, `0`; and numbers of seconds.

use std::time::Duration;

/// Units with their seconds.
const UNIT_SECONDS: [(&str, u64); 4] = [("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)];

/// Parses an age such as `7d`; only 0 needs no unit.
pub(crate) fn age(text: &str) -> Result<Duration, String> {
    let expected = || format!("expected an age such as 7d, 12h, 30m or 0, found {text:?}");
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().map_err(|_| expected())?;
    let seconds = match UNIT_SECONDS.iter().find(|(name, _)| *name == unit) {
        Some((_, seconds)) => *seconds,
        None if unit.is_empty() && number == 0 => 1,
        None => return Err(expected()),
    };
    Ok(Duration::from_secs(number.checked_mul(seconds).ok_or_else(expected)?))
}

/// Parses a number of seconds above 0.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    seconds.filter(|time| !time.is_zero()).ok_or_else(|| "expected a number of seconds above 0".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn age_has_a_unit() {
        let cases = [("7d", 604_800), ("12h", 43_200), ("30m", 1800), ("45s", 45), ("0", 0), ("0d", 0)];
        for (text, seconds) in cases {
            assert_eq!(age(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "7", "d", "7 d", "-1d", "1w", "99999999999999999999d", "1.5h"] {
            assert!(age(text).is_err(), "{text}");
        }
    }
}
