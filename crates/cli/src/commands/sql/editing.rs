//! How a statement is typed: when it ends, and how its words are completed.

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

/// Words of SQL that are worth a Tab.
const WORDS: [&str; 36] = [
    "AND", "AS", "ASC", "BETWEEN", "BY", "CASE", "CAST", "DESC", "DESCRIBE", "DISTINCT", "ELSE", "END", "EXPLAIN",
    "FROM", "GROUP", "HAVING", "IN", "IS", "JOIN", "LEFT", "LIKE", "LIMIT", "NOT", "NULL", "OFFSET", "ON", "OR",
    "ORDER", "SELECT", "SHOW", "TABLES", "THEN", "UNION", "USING", "WHEN", "WHERE",
];

/// See the module.
#[derive(Debug)]
pub(super) struct Editing {
    names: Vec<String>,
}

impl Editing {
    /// `names` are tables, columns and functions.
    pub(super) fn new(mut names: Vec<String>) -> Self {
        names.sort_unstable();
        names.dedup();
        Self { names }
    }

    /// Where the word before `at` begins, and what it may become. A word of SQL keeps the case it was begun in.
    fn completions(&self, line: &str, at: usize) -> (usize, Vec<String>) {
        let before = &line[..at];
        let word = before.trim_end_matches(|c: char| c.is_alphanumeric() || c == '_').len();
        let begun = &before[word..];
        if begun.is_empty() {
            return (at, Vec::new());
        }
        let begins = |name: &str| {
            name.len() >= begun.len() && name.is_char_boundary(begun.len()) && {
                name[..begun.len()].eq_ignore_ascii_case(begun)
            }
        };
        let small = begun.chars().any(char::is_lowercase);
        let words = WORDS.iter().filter(|word| begins(word));
        let words = words.map(|word| if small { word.to_lowercase() } else { (*word).to_owned() });
        let names = self.names.iter().filter(|name| begins(name)).cloned();
        (word, names.chain(words).collect())
    }
}

impl Helper for Editing {}

impl Highlighter for Editing {}

impl Hinter for Editing {
    type Hint = String;
}

impl Completer for Editing {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        Ok(self.completions(line, at))
    }
}

impl Validator for Editing {
    fn validate(&self, context: &mut ValidationContext<'_>) -> Result<ValidationResult> {
        Ok(if is_whole(context.input()) { ValidationResult::Valid(None) } else { ValidationResult::Incomplete })
    }
}

/// Whether nothing is to follow: a command, or a statement with its semicolon.
fn is_whole(text: &str) -> bool {
    let text = text.trim();
    if text.starts_with('\\') || ["", "exit", "quit", "help"].contains(&text) {
        return true;
    }
    // A text or a remark that is still open has no tokens.
    let tokens = Tokenizer::new(&GenericDialect {}, text).tokenize().unwrap_or_default();
    tokens.iter().rfind(|token| !matches!(token, Token::Whitespace(_))) == Some(&Token::SemiColon)
}

/// A statement without its semicolon.
pub(super) fn without_end(text: &str) -> &str {
    text.trim_end_matches(|c: char| c == ';' || c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_ends_with_its_semicolon() {
        for whole in ["SELECT 1;", "SELECT\n1 ; ", "\\d", "exit", "", "SELECT ';';", "SELECT 1; -- done"] {
            assert!(is_whole(whole), "{whole}");
        }
        for part in ["SELECT 1", "SELECT ';", "SELECT ';'", "SELECT 1 -- ;", "/* ;", "SELECT \"a;"] {
            assert!(!is_whole(part), "{part}");
        }
        assert_eq!(without_end("SELECT ';' ;\n"), "SELECT ';'");
    }

    #[test]
    fn a_word_is_completed_from_tables_columns_functions_and_sql() {
        let editing = Editing::new(["udhr", "doc_id", "vector_search", "lang", "Straße"].map(str::to_owned).into());
        let complete = |line: &str| editing.completions(line, line.len());
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
