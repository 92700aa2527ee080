//! Patterns: constant texts that are small enough to compile and match quickly.

use datafusion::{
    error::Result,
    logical_expr::{Expr, Operator},
};
use regex::RegexBuilder;

use super::{names, refusal::not_allowed};

/// Maximum length of a pattern, in bytes.
const MAX_PATTERN_BYTES: usize = 1000;
/// Maximum size of a compiled expression, in bytes: all of it may be examined for each character.
const MAX_COMPILED_BYTES: usize = 1 << 20;

/// Checks the pattern of a call that has one.
pub(super) fn check_call(name: &str, args: &[Expr]) -> Result<()> {
    if names::PATTERNS.contains(&name) { args.get(1).map_or(Ok(()), check_expression) } else { Ok(()) }
}

/// Checks the pattern of an operator that has one.
pub(super) fn check_operator(expression: &Expr) -> Result<()> {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    match expression {
        Expr::BinaryExpr(binary) if matches!(binary.op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch) => {
            check_expression(&binary.right)
        }
        Expr::Like(like) => constant(&like.pattern).map(drop),
        Expr::SimilarTo(like) => check_expression(&like.pattern),
        _ => Ok(()),
    }
}

fn check_expression(pattern: &Expr) -> Result<()> {
    let Some(pattern) = constant(pattern)? else { return Ok(()) };
    match RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build() {
        Err(regex::Error::CompiledTooBig(_)) => {
            Err(not_allowed(format!("the pattern `{}` is too large when it is compiled", short(pattern))))
        }
        // The function itself reports other errors.
        _ => Ok(()),
    }
}

/// The text of a constant; `None` for null.
fn constant(pattern: &Expr) -> Result<Option<&str>> {
    let text = match pattern {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(cast) => return constant(&cast.expr),
        Expr::Placeholder(_) => None,
        _ => {
            return Err(not_allowed(
                "a pattern is a constant text here; strpos and contains accept columns".to_owned(),
            ));
        }
    };
    match text {
        Some(text) if text.len() > MAX_PATTERN_BYTES => {
            Err(not_allowed(format!("a pattern has at most {MAX_PATTERN_BYTES} bytes here")))
        }
        text => Ok(text),
    }
}

fn short(pattern: &str) -> String {
    pattern.chars().take(60).collect()
}
