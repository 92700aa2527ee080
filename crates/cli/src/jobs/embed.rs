//! The run of a pipeline, with all that the user sees of it.

use std::time::Duration;

use indicatif::HumanBytes;
use polylance_config::Pipeline;
use polylance_dataflow::RowSet;
use polylance_engine::{Column, EmbedOptions, EmbedPlan, Embedded, RunSummary};
use polylance_sink::Upkept;

use super::annotate::{self, Filling};
use crate::{
    args::{OutputArgs, ProgressMode},
    error::Result,
    exit::ExitStatus,
    interrupt::{self, Interrupted, Stopping},
    output::{Printer, advice::advise, counted, progress, thousands},
};

/// Runs a pipeline, or only some rows of its source: configuration, source, table and contract are checked before the
/// model is loaded.
pub(crate) async fn run(
    pipeline: &Pipeline,
    only: Option<RowSet>,
    output: &OutputArgs,
    stopping: &Stopping,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let options = EmbedOptions { reread: output.reread, only };
    let plan = Box::pin(EmbedPlan::open(pipeline, options)).await?;
    if output.explain {
        printer.line(plan.to_string().trim_end())?;
        return Ok(ExitStatus::Done);
    }
    if !plan.columns().is_empty() && output.progress != ProgressMode::None {
        printer.message(cost(plan.columns()));
    }
    for (column, declared) in plan.declare().await? {
        annotate::warn_replaced(column, declared, printer);
    }
    let grace = Duration::from_secs(pipeline.run.grace);
    stopping.set(plan.stop(), grace, interrupt::FINISHES);
    let mut observer = progress::observer(output.progress);
    let result = Box::pin(plan.run(observer.as_mut())).await;
    stopping.unset();
    drop(observer);
    let Embedded { summary, columns } = result?;
    report(&summary, output, printer)?;
    if summary.stopped {
        printer.message(remaining(&summary));
        return Err(Interrupted { resumable: true }.into());
    }
    // What the embedding found is on screen before the heads begin.
    printer.flush()?;
    let filling = Filling { progress: output.progress, json: output.json, grace, stopping };
    let annotated = annotate::fill(columns, &filling, printer).await?;
    Ok(if summary.rows_quarantined > 0 { ExitStatus::Quarantined } else { annotated })
}

/// What a new row costs, in words.
fn cost(columns: &[Column]) -> String {
    let names = |fused: bool| {
        let names = columns.iter().filter(|column| column.is_fused() == fused).map(Column::name);
        names.collect::<Vec<_>>().join(", ")
    };
    let passes = 1 + columns.iter().filter(|column| !column.is_fused()).count();
    let with = if passes > columns.len() { String::new() } else { format!(" with {}", names(true)) };
    match passes {
        1 => format!("a new row costs one pass: the embedding with {}", names(true)),
        _ => format!("a new row costs {passes} passes: the embedding{with}, then one each for {}", names(false)),
    }
}

fn report(summary: &RunSummary, output: &OutputArgs, printer: &mut Printer) -> Result<()> {
    if output.json {
        printer.json(summary)?;
    } else {
        let n = |number| thousands(number);
        let RunSummary { rows_read, rows_skipped, rows_written, chunks_written, tokens, .. } = *summary;
        let rows = if summary.source_unchanged {
            format!("{} already there: no file of the source changed", n(rows_skipped))
        } else {
            format!("{} read, {} already there, {} written", n(rows_read), n(rows_skipped), n(rows_written))
        };
        let rate = n(summary.tokens_per_second.round() as u64);
        let index = summary.index.as_ref().map(|index| match &index.kind {
            Some(kind) => format!("{kind}, {} not covered", counted(index.unindexed_rows, "row")),
            None => "none: every search compares every row".to_owned(),
        });
        let mut fields = vec![
            ("table", format!("{} (version {})", summary.table, summary.version)),
            ("documents", rows),
            ("chunks", format!("{} written", n(chunks_written))),
            ("tokens", format!("{} in {:.1} s ({rate} a second)", n(tokens), summary.seconds)),
        ];
        if summary.files_unchanged > 0 && !summary.source_unchanged {
            let files = counted(summary.files_unchanged, "file");
            fields.push(("unchanged", format!("{files}, of which only the ids were read")));
        }
        if summary.documents_removed > 0 {
            fields.push(("removed", counted(summary.documents_removed, "document")));
        }
        if summary.records_dropped > 0 {
            let records = counted(summary.records_dropped, "record");
            fields.push(("quarantine", format!("{records} dropped: those rows are good now, or gone from the source")));
        }
        fields.extend(summary.peak_memory.map(|bytes| ("memory", format!("{} at most", HumanBytes(bytes)))));
        fields.extend(index.map(|index| ("index", index)));
        fields.extend(upkept(&summary.upkeep).map(|done| ("upkeep", done)));
        printer.fields(&fields)?;
    }
    for note in &summary.source_notes {
        printer.warning(note);
    }
    if let Some(reason) = &summary.removal_skipped {
        printer.warning(format_args!("no document was taken out of the table: {reason}"));
    }
    if let Some(failure) = &summary.upkeep_failure {
        printer.warning(format_args!("the rows are committed, but the table's upkeep failed: {failure}"));
    }
    if let Some(retrain) = summary.index.as_ref().and_then(|index| index.retrain) {
        advise(retrain, &summary.table, printer);
    }
    if summary.rows_quarantined > 0 {
        let rows = counted(summary.rows_quarantined, "row");
        printer.warning(format_args!("{rows} went to the quarantine"));
        printer.hint(format_args!("polylance quarantine list --table {}", summary.table));
    }
    Ok(())
}

/// How much of the source a run that was stopped has not looked at.
fn remaining(summary: &RunSummary) -> String {
    let left = summary.bytes_total.saturating_sub(summary.bytes_read);
    let share = 100.0 * left as f64 / summary.bytes_total.max(1) as f64;
    format!("about {share:.0} % of the source remains ({} of {})", HumanBytes(left), HumanBytes(summary.bytes_total))
}

/// What was done for the table, when anything was.
fn upkept(done: &Upkept) -> Option<String> {
    let mut said = Vec::new();
    if done.fragments_merged > 0 {
        said.push(format!("{} merged", counted(done.fragments_merged, "small fragment")));
    }
    if done.files_removed > 0 {
        let (versions, files) = (counted(done.versions_removed, "version"), counted(done.files_removed, "file"));
        said.push(format!("{versions} and {files} ({}) removed", HumanBytes(done.bytes_removed)));
    }
    (!said.is_empty()).then(|| said.join(", "))
}
