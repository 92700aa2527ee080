//! The only place that prints: results to stdout, everything else to stderr.

use std::{
    env,
    fmt::Display,
    io::{self, IsTerminal, Write},
};

use comfy_table::{Cell, ContentArrangement, Table, TableComponent, presets};
use indicatif::HumanBytes;
use serde::Serialize;

/// Width of a table if stdout is not a terminal.
const WIDTH_WITHOUT_TERMINAL: u16 = 120;
/// The state of a table without a vector index.
pub(crate) const NO_INDEX: &str = "none (exact search)";

/// Writes results and messages.
#[derive(Debug)]
pub(crate) struct Printer {
    color: bool,
}

/// A kind of message, with its color on a terminal.
#[derive(Debug, Clone, Copy)]
enum Label {
    Error,
    Warning,
    Hint,
}

impl Label {
    fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Hint => "hint",
        }
    }

    fn code(self) -> &'static str {
        match self {
            Self::Error => "\x1b[1;31m",
            Self::Warning => "\x1b[1;33m",
            Self::Hint => "\x1b[1;36m",
        }
    }
}

/// Whether messages are colored: on a terminal, unless `NO_COLOR` is set.
pub(crate) fn stderr_color() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

#[expect(clippy::unused_self, reason = "only the owner of a printer may print")]
impl Printer {
    pub(crate) fn new() -> Self {
        Self { color: stderr_color() }
    }

    /// A line of results.
    pub(crate) fn line(&mut self, text: impl Display) -> io::Result<()> {
        writeln!(io::stdout().lock(), "{text}")
    }

    /// A result as one line of JSON.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        serde_json::to_writer(&mut stdout, value)?;
        stdout.write_all(b"\n")
    }

    /// Results that are already encoded.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::stdout().lock().write_all(bytes)
    }

    /// Flushes stdout, for readers that wait for each line.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        io::stdout().lock().flush()
    }

    /// Rows under a header.
    pub(crate) fn table(&mut self, header: &[String], rows: Vec<Vec<String>>) -> io::Result<()> {
        let mut table = Table::new();
        table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_style(TableComponent::HeaderLines, '─').set_style(TableComponent::MiddleHeaderIntersections, '─');
        if !io::stdout().is_terminal() {
            table.set_width(WIDTH_WITHOUT_TERMINAL);
        }
        table.set_header(header.iter().map(Cell::new));
        table.add_rows(rows);
        self.line(trimmed(&table.to_string()))
    }

    /// Names and values in two columns.
    pub(crate) fn fields(&mut self, fields: &[(&str, String)]) -> io::Result<()> {
        let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (name, value) in fields {
            self.line(format!("{name:width$}  {value}"))?;
        }
        Ok(())
    }

    /// A plain message.
    pub(crate) fn message(&mut self, text: impl Display) {
        // If stderr is closed, nothing can report that.
        let _ = writeln!(io::stderr().lock(), "{text}");
    }

    pub(crate) fn error(&mut self, text: impl Display) {
        self.labelled(Label::Error, text);
    }

    pub(crate) fn warning(&mut self, text: impl Display) {
        self.labelled(Label::Warning, text);
    }

    pub(crate) fn hint(&mut self, text: impl Display) {
        self.labelled(Label::Hint, text);
    }

    fn labelled(&mut self, label: Label, text: impl Display) {
        let name = label.name();
        if self.color {
            self.message(format_args!("{}{name}:\x1b[0m {text}", label.code()));
        } else {
            self.message(format_args!("{name}: {text}"));
        }
    }
}

/// Removes the spaces at the ends of a table's lines.
fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// `1 row`, `2,000 rows`.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", thousands(number), if number == 1 { "" } else { "s" })
}

/// The field of a process's peak memory.
pub(crate) fn peak_memory(bytes: u64) -> (&'static str, String) {
    ("peak memory", HumanBytes(bytes).to_string())
}

/// A number with thousands separators: `1,234,567`.
pub(crate) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thousands_are_separated() {
        let cases = [(0, "0"), (999, "999"), (1000, "1,000"), (123_456, "123,456"), (1_234_567, "1,234,567")];
        for (number, text) in cases {
            assert_eq!(thousands(number), text);
        }
        assert_eq!(counted(1, "row"), "1 row");
        assert_eq!(counted(1000, "row"), "1,000 rows");
    }
}
