//! The interactive prompt of `polylance sql`.

use std::{env, fs, path::PathBuf, time::Instant};

use arrow::array::AsArray;
use clap::ValueEnum;
use futures::TryStreamExt;
use polylance_search::{SearchError, SqlSession};
use rustyline::{Config, Editor, error::ReadlineError, history::DefaultHistory};
use tokio::task::spawn_blocking;

use super::{
    completion::{SqlHelper, without_semicolon},
    format::Format,
    terminal::print,
};
use crate::{error::Result, output::Printer, report::report};

const PROMPT: &str = "sql> ";

/// Maximum number of statements in the history.
const MAX_HISTORY: usize = 1000;

const HELP: &str = "\
A statement ends with a semicolon and may span several lines. Tab completes, the up arrow recalls statements.
  \\d              list the tables
  \\d NAME         list the columns of a table
  \\format NAME    output format: table, json or csv
  \\?              this help; `polylance sql --help` lists the functions
  \\q              quit, like Ctrl-D; Ctrl-C cancels the running statement";

/// A line of input.
#[derive(Debug, PartialEq, Eq)]
enum Input<'t> {
    Empty,
    Quit,
    Help,
    Format(&'t str),
    Sql(String),
    Unknown(&'t str),
}

impl<'t> Input<'t> {
    fn parse(text: &'t str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim().trim_end_matches(';');
        match word {
            "" => Self::Empty,
            "\\q" | "exit" | "quit" | "exit;" | "quit;" => Self::Quit,
            "\\?" | "help" | "help;" => Self::Help,
            "\\format" => Self::Format(rest),
            "\\d" if rest.is_empty() => Self::Sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1".to_owned(),
            ),
            "\\d" => Self::Sql(format!("DESCRIBE {rest}")),
            command if command.starts_with('\\') => Self::Unknown(command),
            _ => match without_semicolon(text) {
                "" => Self::Empty,
                sql => Self::Sql(sql.to_owned()),
            },
        }
    }
}

/// Runs statements until the user quits.
pub(super) async fn run(session: &SqlSession, mut format: Format, printer: &mut Printer) -> Result<()> {
    let config = Config::builder().max_history_size(MAX_HISTORY)?.auto_add_history(true).build();
    let mut editor: Editor<SqlHelper, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(SqlHelper::new(names(session).await?)));
    let history = history();
    if let Some(history) = &history {
        // The file does not exist before the first use.
        let _loaded = editor.load_history(history);
    }
    printer.message("end a statement with `;`, \\? for help, \\q to quit");
    loop {
        let line;
        (editor, line) = spawn_blocking(move || {
            let line = editor.readline(PROMPT);
            (editor, line)
        })
        .await?;
        let line = match line {
            Ok(line) => line,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if let Some(history) = &history
            && let Err(error) = editor.save_history(history)
        {
            printer.warning(format_args!("the statement was not added to the history: {}: {error}", history.display()));
        }
        match Input::parse(&line) {
            Input::Empty => {}
            Input::Quit => break,
            Input::Help => printer.line(HELP)?,
            Input::Format(name) => match Format::from_str(name, true) {
                Ok(chosen) if chosen.is_text() => format = chosen,
                _ => printer
                    .error(format_args!("no format `{name}` for a terminal; the formats are table, json and csv")),
            },
            Input::Unknown(command) => printer.error(format_args!("no command {command}; \\? lists the commands")),
            Input::Sql(sql) => {
                let started = Instant::now();
                let result = tokio::select! {
                    result = execute(session, &sql, format, printer) => result,
                    _ = tokio::signal::ctrl_c() => {
                        Printer::new().message("the statement was cancelled");
                        continue;
                    }
                };
                match result {
                    Ok(()) => printer.message(format_args!("{:.2} s", started.elapsed().as_secs_f64())),
                    Err(error) => {
                        // The prompt goes on after an error.
                        let _status = report(&error, printer);
                    }
                }
            }
        }
    }
    Ok(())
}

async fn execute(session: &SqlSession, sql: &str, format: Format, printer: &mut Printer) -> Result<()> {
    let rows = Box::pin(session.query(sql)).await?;
    Box::pin(print(rows, format, printer)).await
}

/// Names of tables, columns and functions, for completion.
async fn names(session: &SqlSession) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for sql in [
        "SELECT DISTINCT table_name FROM information_schema.tables WHERE table_schema = 'public'",
        "SELECT DISTINCT column_name FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT DISTINCT routine_name FROM information_schema.routines",
    ] {
        let mut batches = Box::pin(session.query(sql)).await?;
        while let Some(batch) = batches.try_next().await.map_err(SearchError::from)? {
            let column = arrow::compute::cast(batch.column(0), &arrow::datatypes::DataType::Utf8)?;
            names.extend(column.as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }
    Ok(names)
}

/// The history file, in the user's state folder; `None` without a home folder.
fn history() -> Option<PathBuf> {
    let state = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|folder| folder.is_absolute());
    let home = || env::var_os("HOME").map(|home| PathBuf::from(home).join(".local/state"));
    let folder = state.or_else(home)?.join("polylance");
    fs::create_dir_all(&folder).ok()?;
    Some(folder.join("sql_history"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_and_statements_are_distinguished() {
        assert_eq!(Input::parse("  "), Input::Empty);
        assert_eq!(Input::parse(";"), Input::Empty);
        assert_eq!(Input::parse("\\q"), Input::Quit);
        assert_eq!(Input::parse("exit;"), Input::Quit);
        assert_eq!(Input::parse("\\format  csv "), Input::Format("csv"));
        assert_eq!(Input::parse("\\d udhr;"), Input::Sql("DESCRIBE udhr".to_owned()));
        assert_eq!(Input::parse("\\x"), Input::Unknown("\\x"));
        assert_eq!(Input::parse("SELECT ';' ;\n"), Input::Sql("SELECT ';'".to_owned()));
    }
}
