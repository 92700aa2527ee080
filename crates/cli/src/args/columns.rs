//! Lists of columns and SQL.

/// Splits a list at its commas, except those inside of brackets and quotes: `a, concat(b, c) AS d` has two parts. In a
/// list whose brackets or quotes do not match, every comma separates.
pub(crate) fn split_columns(list: &str) -> Vec<String> {
    let (mut parts, mut start, mut depth, mut quote) = (Vec::new(), 0_usize, 0_usize, None);
    for (at, character) in list.char_indices() {
        match (quote, character) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != character),
            (None, '\'' | '"' | '`') => quote = Some(character),
            (None, '(' | '[' | '{') => depth += 1,
            (None, ')' | ']' | '}') => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return plain(list),
            },
            (None, ',') if depth == 0 => {
                parts.push(&list[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    if depth > 0 || quote.is_some() {
        return plain(list);
    }
    parts.push(&list[start..]);
    parts.into_iter().map(trimmed).collect()
}

fn plain(list: &str) -> Vec<String> {
    list.split(',').map(str::to_owned).collect()
}

/// SQL without the space after its comma; the name of a column may have spaces.
fn trimmed(part: &str) -> String {
    if part.contains(['(', '\'', '"']) || part.to_ascii_uppercase().contains(" AS ") {
        part.trim().to_owned()
    } else {
        part.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_brackets_and_quotes_do_not_separate() {
        for (list, expected) in [
            ("lang,date", &["lang", "date"][..]),
            ("lang, concat(a, 'x,(', b) AS ab,url AS link", &["lang", "concat(a, 'x,(', b) AS ab", "url AS link"]),
            ("tags[1] AS tag,\"a,b\"", &["tags[1] AS tag", "\"a,b\""]),
            ("a(b,c", &["a(b", "c"]),
            ("a),b", &["a)", "b"]),
            ("it's,b", &["it's", "b"]),
            ("*", &["*"]),
        ] {
            assert_eq!(split_columns(list), expected, "{list}");
        }
    }
}
