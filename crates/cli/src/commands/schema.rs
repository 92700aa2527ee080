//! `polylance schema`: the source of `schemas/pipeline.schema.json`.

use std::path::PathBuf;

use polylance_config::json_schema_text;

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, atomic_file::write_atomically},
};

/// Print the JSON Schema of the pipeline file
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Write it to pipeline.schema.json in this folder
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, printer: &mut Printer) -> Result<ExitStatus> {
    let text = json_schema_text();
    match &args.write {
        None => printer.bytes(text.as_bytes())?,
        Some(folder) => {
            let path = folder.join("pipeline.schema.json");
            write_atomically(&path, text.as_bytes())?;
        }
    }
    Ok(ExitStatus::Done)
}
