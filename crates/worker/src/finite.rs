//! Refuses a model's outputs that are not finite: no table may store them, because no distance to them is a number.

/// # Errors
/// How many of the numbers are not finite.
pub(crate) fn check_finite(numbers: &[f32]) -> Result<(), String> {
    match numbers.iter().filter(|number| !number.is_finite()).count() {
        0 => Ok(()),
        count => Err(format!("{count} of the model's {} numbers are not finite", numbers.len())),
    }
}
