//! Patterns: a constant text each, of a size that is compiled and matched quickly.

use datafusion::{
    error::Result,
    logical_expr::{Expr, Operator},
};
use regex::RegexBuilder;

use super::{names, refused};

/// Characters of a pattern.
const LENGTH: usize = 1000;
/// Bytes of a compiled expression, each part of which may be looked at for each character.
const COMPILED: usize = 1 << 20;

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
    match RegexBuilder::new(pattern).size_limit(COMPILED).build() {
        Err(regex::Error::CompiledTooBig(_)) => {
            Err(refused(format!("the pattern `{}` is too large when it is compiled", short(pattern))))
        }
        // What is wrong with it otherwise, the function says.
        _ => Ok(()),
    }
}

/// The text of a constant; none for null.
fn constant(pattern: &Expr) -> Result<Option<&str>> {
    let text = match pattern {
        Expr::Literal(value, _) => value.try_as_str().flatten(),
        Expr::Cast(cast) => return constant(&cast.expr),
        Expr::Placeholder(_) => None,
        _ => return Err(refused("a pattern is a constant text here: strpos and contains find a column's".to_owned())),
    };
    match text {
        Some(text) if text.len() > LENGTH => Err(refused(format!("a pattern has at most {LENGTH} bytes here"))),
        text => Ok(text),
    }
}

fn short(pattern: &str) -> String {
    pattern.chars().take(60).collect()
}
