//! JSON as programs write it: the members of an object as written, so that no digit is lost.
//!
//! `NaN`, `Infinity` and `-Infinity` are numbers, as Python writes them. Half of a surrogate pair, which remains when a
//! text is cut by its UTF-16 length, becomes U+FFFD.

use std::borrow::Cow;

use crate::read::types::kind::ValueKind;

/// The deepest nesting of lists and objects.
const MAX_DEPTH: usize = 128;

/// A value; numbers as written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Json<'a> {
    Null,
    Bool(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<Self>),
    Object(Vec<(Cow<'a, str>, Self)>),
}

impl<'a> Json<'a> {
    /// Parses a value that [`members`] returned.
    pub(super) fn parse(text: &'a str) -> Result<Self, String> {
        let mut parser = Parser { text, at: 0 };
        parser.value(0)
    }

    pub(super) fn kind(&self) -> ValueKind {
        match self {
            Self::Null => ValueKind::Null,
            Self::Bool(_) => ValueKind::Bool,
            Self::Number(text) => ValueKind::of_json_number(text),
            Self::Text(_) => ValueKind::Text,
            Self::List(items) => {
                ValueKind::List(Box::new(items.iter().map(Self::kind).fold(ValueKind::Null, ValueKind::join)))
            }
            Self::Object(members) => {
                let member =
                    |(name, value): &(Cow<'_, str>, Self)| ValueKind::Object(vec![(name.to_string(), value.kind())]);
                members.iter().map(member).fold(ValueKind::Object(Vec::new()), ValueKind::join)
            }
        }
    }

    /// The name of the type in messages.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a boolean",
            Self::Number(_) => "a number",
            Self::Text(_) => "text",
            Self::List(_) => "an array",
            Self::Object(_) => "an object",
        }
    }
}

/// Calls `member` with the name of each member of the object in a line, and with its value as written. Members before
/// a syntax error are included.
pub(super) fn members<'a>(text: &'a str, mut member: impl FnMut(Cow<'a, str>, &'a str)) -> Result<(), String> {
    let mut parser = Parser { text, at: 0 };
    parser.object(|parser, name| {
        let start = parser.at;
        parser.skip(1)?;
        let end = parser.at;
        parser.space();
        // Characters after a number without a comma may belong to it.
        if !matches!(parser.peek(), None | Some(b',' | b'}')) {
            return Err(parser.unexpected("`,` or `}`"));
        }
        member(name, &text[start..end]);
        Ok(())
    })?;
    parser.space();
    if parser.at < text.len() { Err(parser.unexpected("the end of the line")) } else { Ok(()) }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn unexpected(&self, expected: &str) -> String {
        match self.text[self.at..].chars().next() {
            Some(found) => format!("expected {expected} at byte {}, found {found:?}", self.at),
            None => format!("expected {expected} at byte {}, found the end of the line", self.at),
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), String> {
        if self.take(byte) { Ok(()) } else { Err(self.unexpected(&format!("`{}`", byte as char))) }
    }

    /// An object; the function reads each value.
    fn object(&mut self, mut value: impl FnMut(&mut Self, Cow<'a, str>) -> Result<(), String>) -> Result<(), String> {
        self.space();
        self.expect(b'{')?;
        self.space();
        if self.take(b'}') {
            return Ok(());
        }
        loop {
            self.space();
            let name = self.string()?;
            self.space();
            self.expect(b':')?;
            self.space();
            value(self, name)?;
            self.space();
            if self.take(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn list(&mut self, mut value: impl FnMut(&mut Self) -> Result<(), String>) -> Result<(), String> {
        self.expect(b'[')?;
        self.space();
        if self.take(b']') {
            return Ok(());
        }
        loop {
            self.space();
            value(self)?;
            self.space();
            if self.take(b']') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    fn skip(&mut self, depth: usize) -> Result<(), String> {
        match self.peek() {
            _ if depth > MAX_DEPTH => Err(format!("values are nested deeper than {MAX_DEPTH} levels")),
            Some(b'"') => self.raw_string().map(drop),
            Some(b'{') => self.object(|parser, _| parser.skip(depth + 1)),
            Some(b'[') => self.list(|parser| parser.skip(depth + 1)),
            _ => self.value(depth).map(drop),
        }
    }

    fn value(&mut self, depth: usize) -> Result<Json<'a>, String> {
        if depth > MAX_DEPTH {
            return Err(format!("values are nested deeper than {MAX_DEPTH} levels"));
        }
        match self.peek() {
            Some(b'"') => Ok(Json::Text(self.string()?)),
            Some(b'{') => {
                let mut members: Vec<(Cow<'a, str>, Json<'a>)> = Vec::new();
                self.object(|parser, name| {
                    let value = parser.value(depth + 1)?;
                    members.push((name, value));
                    Ok(())
                })?;
                Ok(Json::Object(members))
            }
            Some(b'[') => {
                let mut items = Vec::new();
                self.list(|parser| {
                    items.push(parser.value(depth + 1)?);
                    Ok(())
                })?;
                Ok(Json::List(items))
            }
            _ => {
                for (word, value) in [("null", Json::Null), ("true", Json::Bool(true)), ("false", Json::Bool(false))] {
                    if self.word(word) {
                        return Ok(value);
                    }
                }
                self.number().map(Json::Number)
            }
        }
    }

    fn word(&mut self, word: &str) -> bool {
        let found = self.text[self.at..].starts_with(word);
        self.at += if found { word.len() } else { 0 };
        found
    }

    fn number(&mut self) -> Result<&'a str, String> {
        let start = self.at;
        self.take(b'-');
        if self.word("Infinity") || start == self.at && self.word("NaN") {
            return Ok(&self.text[start..self.at]);
        }
        if !self.take(b'0') {
            self.digits("a value")?;
        }
        if self.take(b'.') {
            self.digits("a digit")?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits("a digit")?;
        }
        Ok(&self.text[start..self.at])
    }

    fn digits(&mut self, expected: &str) -> Result<(), String> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        if start == self.at { Err(self.unexpected(expected)) } else { Ok(()) }
    }

    /// A string without its quotes, with its escapes as written.
    fn raw_string(&mut self) -> Result<&'a str, String> {
        self.expect(b'"')?;
        let start = self.at;
        loop {
            let rest = &self.text.as_bytes()[self.at..];
            let Some(found) = rest.iter().position(|byte| matches!(byte, b'"' | b'\\')) else {
                self.at = self.text.len();
                return Err(self.unexpected("`\"`"));
            };
            self.at += found;
            if self.take(b'"') {
                return Ok(&self.text[start..self.at - 1]);
            }
            // The backslash and the character after it, which may have several bytes.
            let escaped = self.text[self.at + 1..].chars().next().map_or(0, char::len_utf8);
            self.at += 1 + escaped;
        }
    }

    fn string(&mut self) -> Result<Cow<'a, str>, String> {
        let start = self.at;
        let raw = self.raw_string()?;
        if !raw.contains('\\') {
            return Ok(Cow::Borrowed(raw));
        }
        unescape(raw).map(Cow::Owned).ok_or_else(|| format!("an escape is wrong in the string at byte {start}"))
    }
}

fn unescape(raw: &str) -> Option<String> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        let escape = *rest.as_bytes().get(at + 1)?;
        let mut used = at + 2;
        text.push(match escape {
            b'"' | b'\\' | b'/' => escape as char,
            b'b' => '\u{8}',
            b'f' => '\u{c}',
            b'n' => '\n',
            b'r' => '\r',
            b't' => '\t',
            b'u' => {
                let first = unit(rest, used)?;
                used += 4;
                let second = || rest[used..].starts_with("\\u").then(|| unit(rest, used + 2)).flatten();
                match (first, second) {
                    (0xd800..0xdc00, second) => match second() {
                        Some(low @ 0xdc00..0xe000) => {
                            used += 6;
                            char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00))?
                        }
                        _ => char::REPLACEMENT_CHARACTER,
                    },
                    (first, _) => char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER),
                }
            }
            _ => return None,
        });
        rest = &rest[used..];
    }
    text.push_str(rest);
    Some(text)
}

/// The UTF-16 code unit of the four hexadecimal digits at a position.
fn unit(text: &str, at: usize) -> Option<u32> {
    let digits = text.get(at..at + 4).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
    u32::from_str_radix(digits, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_as_written() {
        let line = r#" {"id": 18446744073709551617, "a":"x\"}" ,"n":[1, {"b":NaN}],"s":-Infinity,"e":{}} "#;
        let mut found = Vec::new();
        members(line, |name, value| found.push((name.into_owned(), value.to_owned()))).unwrap();
        let found: Vec<_> = found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("id", "18446744073709551617"),
            ("a", r#""x\"}""#),
            ("n", r#"[1, {"b":NaN}]"#),
            ("s", "-Infinity"),
            ("e", "{}"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn an_invalid_object_is_refused_after_its_valid_members() {
        for line in [
            "[1]",
            "7",
            "{",
            r#"{"id":1"#,
            r#"{"id":1,}"#,
            r#"{"id":1,"a":01}"#,
            r#"{"id":1,"a":nul}"#,
            r#"{"id":1} x"#,
            r#"{"id":1,"a":"\"#,
            r#"{"id":1,"a":1.}"#,
            r#"{"id":1,"a":[1 2]}"#,
            r#"{"id":1,"a":-NaN}"#,
        ] {
            let mut ids = 0;
            assert!(members(line, |_, _| ids += 1).is_err(), "{line}");
            assert_eq!(ids, usize::from(line.starts_with("{\"id\":1")), "{line}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(100_000));
        assert!(members(&deep, |_, _| ()).unwrap_err().contains("nested"));
    }

    #[test]
    fn escapes_are_decoded_and_halves_of_surrogate_pairs_replaced() {
        for (raw, expected) in [
            (r#""a\u00e9\n\/""#, Some("aé\n/")),
            (r#""\ud83d\ude00""#, Some("😀")),
            (r#""smile \ud83d""#, Some("smile \u{fffd}")),
            (r#""\ude00\ud83dx""#, Some("\u{fffd}\u{fffd}x")),
            (r#""\ud83d\u0041""#, Some("\u{fffd}A")),
            (r#""\x""#, None),
            (r#""\u12é4""#, None),
            (r#""\é""#, None),
        ] {
            let found = Json::parse(raw).ok();
            assert_eq!(found, expected.map(|text| Json::Text(text.into())), "{raw}");
        }
    }
}
