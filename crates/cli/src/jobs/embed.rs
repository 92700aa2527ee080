//! Runs a pipeline, with progress, summary and warnings.

use std::time::Duration;

use indicatif::HumanBytes;
use polylance_config::Pipeline;
use polylance_engine::{EmbedOptions, EmbedPlan, Embedded, ResolvedColumn, RunSummary};
use polylance_schema::Shard;
use polylance_sink::MaintenanceReport;

use super::annotate::{self, FillOptions};
use crate::{
    args::{OutputArgs, ProgressMode},
    error::Result,
    exit::ExitStatus,
    output::{
        NO_INDEX, Printer, advice::advise, counted, input_progress::while_opening, peak_memory, progress, thousands,
    },
    shutdown::{FINISH_AND_COMMIT, Interrupted, ShutdownController, ShutdownPlan},
};

/// Runs a pipeline, or only a part of its source. Configuration, source, table and contract are checked before the
/// model is loaded.
pub(crate) async fn run(
    pipeline: &Pipeline,
    options: EmbedOptions,
    output: &OutputArgs,
    controller: &ShutdownController,
    printer: &mut Printer,
) -> Result<ExitStatus> {
    let plan = while_opening(output.progress, Box::pin(EmbedPlan::open(pipeline, options))).await?;
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
    controller.set(ShutdownPlan { signal: plan.shutdown(), grace, description: FINISH_AND_COMMIT });
    let mut observer = progress::observer(output.progress);
    let result = Box::pin(plan.run(observer.as_mut())).await;
    controller.clear();
    drop(observer);
    let Embedded { summary, columns, analyzed_plan } = result?;
    report(&summary, output, printer)?;
    if output.analyze {
        printer.line(analyzed_plan.trim_end())?;
    }
    if summary.stopped {
        printer.message(remaining(&summary));
        return Err(Interrupted { resumable: true }.into());
    }
    if let Some(shard) = summary.shard {
        if output.progress != ProgressMode::None {
            printer.message(after_shard(shard));
        }
        return Ok(if summary.rows_quarantined > 0 { ExitStatus::Quarantined } else { ExitStatus::Done });
    }
    // The summary of the embedding is on screen before the heads begin.
    printer.flush()?;
    let options = FillOptions { progress: output.progress, json: output.json, grace, controller };
    let annotated = annotate::fill(columns, &options, printer).await?;
    Ok(if summary.rows_quarantined > 0 { ExitStatus::Quarantined } else { annotated })
}

/// The passes that a new row costs, as a sentence.
fn cost(columns: &[ResolvedColumn]) -> String {
    let names = |fused: bool| {
        let names = columns.iter().filter(|column| column.is_fused() == fused).map(ResolvedColumn::name);
        names.collect::<Vec<_>>().join(", ")
    };
    let passes = 1 + columns.iter().filter(|column| !column.is_fused()).count();
    let with = if passes > columns.len() { String::new() } else { format!(" with {}", names(true)) };
    match passes {
        1 => format!("a new row costs one pass: the embedding with {}", names(true)),
        _ => format!("a new row costs {passes} passes: the embedding{with}, then one each for {}", names(false)),
    }
}

/// What is left to do after a shard, as a sentence.
fn after_shard(shard: Shard) -> String {
    format!("shard {shard} is done; after all shards, a run without --shard deletes, annotates, indexes and maintains")
}

fn report(summary: &RunSummary, output: &OutputArgs, printer: &mut Printer) -> Result<()> {
    if output.json {
        printer.json(summary)?;
    } else {
        printer.fields(&fields(summary))?;
    }
    for note in &summary.source_notes {
        printer.warning(note);
    }
    if let Some(reason) = &summary.removal_skipped {
        printer.warning(format_args!("no document was deleted from the table: {reason}"));
    }
    if let Some(failure) = &summary.upkeep_failure {
        printer.warning(format_args!("the rows are committed, but the maintenance of the table failed: {failure}"));
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

fn fields(summary: &RunSummary) -> Vec<(&'static str, String)> {
    let n = |number| thousands(number);
    let RunSummary { rows_read, rows_skipped, rows_written, chunks_written, tokens, .. } = *summary;
    let rows = if summary.source_unchanged {
        format!("{} unchanged: no file of the source changed", n(rows_skipped))
    } else {
        format!("{} read, {} unchanged, {} written", n(rows_read), n(rows_skipped), n(rows_written))
    };
    let rate = n(summary.tokens_per_second.round() as u64);
    let mut fields = vec![("table", format!("{} (version {})", summary.table, summary.version))];
    fields.extend(summary.shard.map(|shard| ("shard", shard.to_string())));
    fields.extend([
        ("documents", rows),
        ("chunks", format!("{} written", n(chunks_written))),
        ("tokens", format!("{} in {:.1} s ({rate} tok/s)", n(tokens), summary.seconds)),
    ]);
    if summary.files_unchanged > 0 && !summary.source_unchanged {
        let files = counted(summary.files_unchanged, "file");
        fields.push(("unchanged", format!("{files}, read for their ids only")));
    }
    if summary.documents_removed > 0 {
        fields.push(("deleted", counted(summary.documents_removed, "document")));
    }
    if summary.records_dropped > 0 {
        let records = counted(summary.records_dropped, "record");
        fields.push(("quarantine", format!("{records} dropped: the rows are valid now, or gone from the source")));
    }
    fields.extend(summary.peak_memory.map(peak_memory));
    fields.extend(summary.index.as_ref().map(|index| {
        let state = match &index.kind {
            Some(kind) => format!("{kind}, {} not covered", counted(index.unindexed_rows, "row")),
            None => NO_INDEX.to_owned(),
        };
        ("index", state)
    }));
    fields.extend(maintenance(&summary.upkeep).map(|done| ("maintenance", done)));
    fields
}

/// How much of the source a stopped run has not read.
fn remaining(summary: &RunSummary) -> String {
    let left = summary.bytes_total.saturating_sub(summary.bytes_read);
    let share = 100.0 * left as f64 / summary.bytes_total.max(1) as f64;
    format!("about {share:.0} % of the source remains ({} of {})", HumanBytes(left), HumanBytes(summary.bytes_total))
}

/// The maintenance that was done; `None` if there was nothing to do.
fn maintenance(done: &MaintenanceReport) -> Option<String> {
    let mut parts = Vec::new();
    if done.fragments_merged > 0 {
        parts.push(format!("{} merged", counted(done.fragments_merged, "small fragment")));
    }
    if done.files_removed > 0 {
        let (versions, files) = (counted(done.versions_removed, "version"), counted(done.files_removed, "file"));
        parts.push(format!("{versions} and {files} ({}) removed", HumanBytes(done.bytes_removed)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}
