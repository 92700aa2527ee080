//! `polylance sql` without a query, on a terminal: one statement after another.

use std::{env, fs, path::PathBuf, time::Instant};

use arrow::array::AsArray;
use clap::ValueEnum;
use futures::TryStreamExt;
use polylance_search::{SearchError, SqlSession};
use rustyline::{Config, Editor, error::ReadlineError, history::DefaultHistory};
use tokio::task::spawn_blocking;

use super::{
    Format,
    editing::{Editing, without_end},
    print,
};
use crate::{
    error::{self, Result},
    output::Printer,
};

const PROMPT: &str = "sql> ";

/// Statements that are remembered.
const HISTORY: usize = 1000;

const HELP: &str = "\
A statement ends with a semicolon and may have several lines. Tab completes, the up arrow goes back.
  \\d              the tables
  \\d NAME         a table's columns
  \\format NAME    table, json or csv
  \\?              this help, `polylance sql --help` has the functions
  \\q              leave, as Ctrl-D does; Ctrl-C ends a statement that runs";

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
enum Typed<'t> {
    Nothing,
    Leave,
    Help,
    Format(&'t str),
    Sql(String),
    Unknown(&'t str),
}

impl<'t> Typed<'t> {
    fn read(text: &'t str) -> Self {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let rest = rest.trim().trim_end_matches(';');
        match word {
            "" => Self::Nothing,
            "\\q" | "exit" | "quit" | "exit;" | "quit;" => Self::Leave,
            "\\?" | "help" | "help;" => Self::Help,
            "\\format" => Self::Format(rest),
            "\\d" if rest.is_empty() => Self::Sql(
                "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public' ORDER BY 1".to_owned(),
            ),
            "\\d" => Self::Sql(format!("DESCRIBE {rest}")),
            command if command.starts_with('\\') => Self::Unknown(command),
            _ => match without_end(text) {
                "" => Self::Nothing,
                sql => Self::Sql(sql.to_owned()),
            },
        }
    }
}

/// Asks for statements until the user leaves.
pub(super) async fn run(session: &SqlSession, mut format: Format, printer: &mut Printer) -> Result<()> {
    let config = Config::builder().max_history_size(HISTORY)?.auto_add_history(true).build();
    let mut editor: Editor<Editing, DefaultHistory> = Editor::with_config(config)?;
    editor.set_helper(Some(Editing::new(names(session).await?)));
    let history = history();
    if let Some(history) = &history {
        // There is none before the first time.
        let _none = editor.load_history(history);
    }
    printer.message("a statement ends with `;`, \\? helps, \\q leaves");
    loop {
        let typed;
        (editor, typed) = spawn_blocking(move || {
            let typed = editor.readline(PROMPT);
            (editor, typed)
        })
        .await?;
        let typed = match typed {
            Ok(typed) => typed,
            Err(ReadlineError::Interrupted) => continue,
            Err(ReadlineError::Eof) => break,
            Err(error) => return Err(error.into()),
        };
        if let Some(history) = &history
            && let Err(error) = editor.save_history(history)
        {
            printer.warning(format_args!("the statement is not remembered: {}: {error}", history.display()));
        }
        match Typed::read(&typed) {
            Typed::Nothing => {}
            Typed::Leave => break,
            Typed::Help => printer.line(HELP)?,
            Typed::Format(name) => match Format::from_str(name, true) {
                Ok(chosen) if chosen.is_text() => format = chosen,
                _ => printer.error(format_args!("`{name}` is no format for a terminal: table, json and csv are")),
            },
            Typed::Unknown(command) => printer.error(format_args!("{command} is no command; \\? lists them")),
            Typed::Sql(sql) => {
                let begun = Instant::now();
                let answered = tokio::select! {
                    answered = answer(session, &sql, format, printer) => answered,
                    _ = tokio::signal::ctrl_c() => {
                        Printer::new().message("the statement was ended");
                        continue;
                    }
                };
                match answered {
                    Ok(()) => printer.message(format_args!("{:.2} s", begun.elapsed().as_secs_f64())),
                    Err(error) => {
                        // The next statement may be right.
                        let _status = error::report(&error, printer);
                    }
                }
            }
        }
    }
    Ok(())
}

async fn answer(session: &SqlSession, sql: &str, format: Format, printer: &mut Printer) -> Result<()> {
    let rows = Box::pin(session.query(sql)).await?;
    Box::pin(print(rows, format, printer)).await
}

/// Tables, columns and functions, to complete words with.
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

/// The file of statements, below the folder where programs of this user keep such files; `None` without a home.
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
    fn commands_are_told_from_statements() {
        assert_eq!(Typed::read("  "), Typed::Nothing);
        assert_eq!(Typed::read(";"), Typed::Nothing);
        assert_eq!(Typed::read("\\q"), Typed::Leave);
        assert_eq!(Typed::read("exit;"), Typed::Leave);
        assert_eq!(Typed::read("\\format  csv "), Typed::Format("csv"));
        assert_eq!(Typed::read("\\d udhr;"), Typed::Sql("DESCRIBE udhr".to_owned()));
        assert_eq!(Typed::read("\\x"), Typed::Unknown("\\x"));
        assert_eq!(Typed::read("SELECT ';' ;\n"), Typed::Sql("SELECT ';'".to_owned()));
    }
}
