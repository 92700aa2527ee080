//! `polylance schema`, for those who build polylance.

use std::path::PathBuf;

use anyhow::Context;
use polylance_config::json_schema_text;

use crate::{error::Result, exit::ExitStatus, printer::Printer};

/// Print the JSON Schema of the pipeline file
#[derive(Debug, clap::Args)]
#[command(hide = true)]
pub(crate) struct Args {
    /// Write it to pipeline.schema.json in this folder instead
    #[arg(long, value_name = "FOLDER")]
    write: Option<PathBuf>,
}

pub(crate) fn run(args: &Args, printer: &mut Printer) -> Result<ExitStatus> {
    let text = json_schema_text();
    match &args.write {
        None => printer.bytes(text.as_bytes())?,
        Some(folder) => {
            let path = folder.join("pipeline.schema.json");
            std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(ExitStatus::Done)
}
