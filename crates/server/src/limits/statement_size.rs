//! How large a statement or a condition may be.
//!
//! The parser and the planner recurse once for each level of an expression, and no expression nests deeper than it has
//! words, operators and brackets.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, Tokenizer},
};

use crate::error::ApiError;

/// Words, operators and brackets of a statement; values and the commas between them are not counted.
const MAX_SYNTAX_TOKENS: usize = 1000;

/// Checks the length and the number of words, operators and brackets of the request's field `param`.
pub(crate) fn check_size(sql: &str, max_bytes: usize, param: &'static str) -> Result<(), ApiError> {
    let too_long = |message: String| Err(ApiError::too_much("too_long", message).param(param));
    if sql.len() > max_bytes {
        return too_long(format!("it has {} bytes: at most {max_bytes} are allowed", sql.len()));
    }
    let tokens = Tokenizer::new(&GenericDialect {}, sql).tokenize();
    let tokens = tokens.map_err(|error| ApiError::bad("invalid_sql", error.to_string()).param(param))?;
    let is_value = |token: &Token| {
        matches!(token, Token::Whitespace(_) | Token::Comma | Token::Number(..) | Token::SingleQuotedString(_))
    };
    let count = tokens.iter().filter(|token| !is_value(token)).count();
    if count > MAX_SYNTAX_TOKENS {
        let message = format!("it has {count} words, operators and brackets: at most {MAX_SYNTAX_TOKENS} are allowed");
        return too_long(message);
    }
    Ok(())
}
