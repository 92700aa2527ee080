//! Line editing of the prompt: the end of a statement, and completion.

use datafusion::sql::sqlparser::{
    dialect::GenericDialect,
    tokenizer::{Token, Tokenizer},
};
use rustyline::{
    Context, Helper, Result,
    completion::Completer,
    highlight::Highlighter,
    hint::Hinter,
    validate::{ValidationContext, ValidationResult, Validator},
};

/// SQL keywords that are completed.
const KEYWORDS: [&str; 36] = [
    "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "CAST", "DESC", "DESCRIBE", "DISTINCT", "ELSE", "END", "EXPLAIN",
    "FROM", "GROUP", "HAVING", "IN", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NOT", "NULL", "OFFSET", "ON", "OR",
    "ORDER", "SELECT", "SHOW", "TABLES", "THEN", "UNION", "USING", "WHEN", "WHERE",
];

/// Completes names and keywords, and finds the end of a statement.
#[derive(Debug)]
pub(super) struct SqlHelper {
    names: Vec<String>,
}

impl SqlHelper {
    /// `names` are tables, columns and functions.
    pub(super) fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// The start of the word before `at`, and its completions. A keyword keeps the case of the typed letters.
    fn completions(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = &line[..at];
        let word = before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let prefix = &before[word..];
        if prefix.is_empty() {
            return (at, Vec::new());
        }
        let matches = |name: &str| {
            name.len() >= prefix.len() && name.is_char_boundary(prefix.len()) && {
                name[..prefix.len()].eq_ignore_ascii_case(prefix)
            }
        };
        let lowercase = prefix.chars().any(char::is_lowercase);
        let words = KEYWORDS.iter().filter(|word| matches(word));
        let words = words.map(|word| if lowercase { word.to_lowercase() } else { (*word).to_owned() });
        let names = self.names.iter().filter(|name| matches(name)).cloned();
        (word, names.chain(words).collect())
    }
}

impl Helper for SqlHelper {}

impl Highlighter for SqlHelper {}

impl Hinter for SqlHelper {
    type Hint = String;
}

impl Completer for SqlHelper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        Ok(self.completions(line, at))
    }
}

impl Validator for SqlHelper {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(if is_complete(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether the input is complete: a command, or a statement with its semicolon.
fn is_complete(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with('\\') || ["", "exit", "quit", "help"].contains(&text) {
        return true;
    }
    // An unterminated literal or comment has no tokens.
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    tokens.iter().rfind(|token| !matches!(token, Token::Whitespace(_))) == Some(&Token::SemiColon)
}

/// A statement without its semicolon.
pub(super) fn without_semicolon(text: &str) -> &str {
    text.trim_end_matches(|c: char| c == ';' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statement_is_complete_with_its_semicolon() {
        for complete in ["SELECT 1;", "SELECT\n1 ; ", "\\d", "exit", "", "SELECT ';';", "SELECT 1; -- done"] {
            assert!(is_complete(complete), "{complete}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT ';'", "SELECT 1 -- ;", "/* ;", "SELECT \"a;"] {
            assert!(!is_complete(part), "{part}");
        }
        assert_eq!(without_semicolon("SELECT ';' ;\n"), "SELECT ';'");
    }

    #[test]
    fn words_are_completed_from_names_and_keywords() {
        let helper = SqlHelper::new(["udhr", "doc_id", "vector_search", "lang", "Straße"].map(str::to_owned).into());
        let complete = |line: &str| helper.completions(line, line.len());
        assert_eq!(complete("SEL"), (0, vec!["SELECT".to_owned()]));
        assert_eq!(complete("select do"), (7, vec!["doc_id".to_owned()]));
        assert_eq!(complete("select * fr"), (9, vec!["from".to_owned()]));
        assert_eq!(complete("l"), (0, vec!["lang", "left", "like", "limit"].into_iter().map(str::to_owned).collect()));
        assert_eq!(complete("select * from vector_search('ud"), (29, vec!["udhr".to_owned()]));
        assert_eq!(complete("stra"), (0, vec!["Straße".to_owned()]));
        assert_eq!(complete("straß"), (0, vec!["Straße".to_owned()]));
        assert_eq!(complete("SELECT "), (7, vec![]));
    }
}
