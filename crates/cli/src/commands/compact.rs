//! `polylance compact`

use std::time::Duration;

use indicatif::HumanBytes;
use polylance_sink::{
    CleanupMode, CleanupReport, IndexOutcome, OnConflict, RepairReport, Retention, Table, cleanup, compact,
    merge_index, plan_compaction, quarantine_uri, repair, retrain_index,
};
use serde::Serialize;

use crate::{
    args::duration::age,
    error::Result,
    exit::ExitStatus,
    output::{NO_INDEX, Printer, advice::advise, counted, thousands},
};

/// Merge a table's small fragments, update its index, and with --cleanup remove old versions
///
/// No row changes. It may run at the same time as `run` and `annotate`: the later commit is retried. The table's
/// quarantine is maintained too. Every run does a part of this by itself; see `table.upkeep` in pipeline files.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
pub(crate) struct Args {
    /// Lance table
    #[arg(long, value_name = "URI")]
    table: String,
    /// Remove old versions, the files that only they refer to, and orphaned files
    ///
    /// Killed runs leave orphaned files, and the uncommitted files of a running one look the same. They are kept for
    /// --older-than, but at least an hour and at most a week. Unfinished indices are kept for a week.
    #[arg(long)]
    cleanup: bool,
    /// Minimum age of removed versions and files: 7d, 12h, 30m; 0 for any age
    #[arg(long, value_name = "AGE", default_value = "7d", value_parser = age, requires = "cleanup")]
    older_than: Duration,
    /// Number of newest versions to keep, whatever their age
    #[arg(long, value_name = "N", default_value_t = 1, requires = "cleanup",
          value_parser = clap::value_parser!(u64).range(1..))]
    keep_versions: u64,
    /// Rebuild the index, of the same kind, on the current rows
    #[arg(long, conflicts_with = "dry_run")]
    retrain: bool,
    /// Set the newest version aside if its file is empty or truncated, and do nothing else
    ///
    /// A power loss can leave such a file if the writer did not sync it. No command can open the table then. The file
    /// is renamed, and the previous version becomes the latest one; the next run writes the missing rows. A readable
    /// version is not touched.
    #[arg(long, conflicts_with_all = ["cleanup", "retrain", "dry_run"])]
    repair: bool,
    /// Change nothing; print what would be done
    #[arg(long)]
    dry_run: bool,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance compact --table docs.lance
  polylance compact --table s3://tables/docs.lance --cleanup --older-than 30d --keep-versions 5
  polylance compact --table docs.lance --cleanup --older-than 0 --dry-run
  polylance compact --table docs.lance --repair

A program that is still reading a removed version fails: keep versions for as long as searches and runs take.";

/// What was done, or would be done.
#[derive(Debug, Serialize)]
struct Report {
    table: String,
    dry_run: bool,
    #[serde(flatten)]
    done: Done,
    /// Of the table; unknown in a dry run.
    index: Option<IndexOutcome>,
    /// Of the quarantine, when there is one.
    quarantine: Option<Done>,
}

#[derive(Debug, Serialize)]
struct Done {
    fragments_before: u64,
    fragments_after: u64,
    /// The removed versions and files; absent without `--cleanup`.
    cleanup: Option<CleanupReport>,
}

/// The result of `--repair`.
#[derive(Debug, Serialize)]
struct Repair {
    table: String,
    /// `null` when the newest version can be read.
    repaired: Option<RepairReport>,
    /// Of the table's quarantine.
    quarantine: Option<RepairReport>,
}

async fn repair_table(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let repaired = repair(&args.table).await?;
    let quarantine_uri = quarantine_uri(&args.table);
    let quarantine = repair(&quarantine_uri).await?;
    let repair = Repair { table: args.table, repaired, quarantine };
    if args.json {
        printer.json(&repair)?;
        return Ok(ExitStatus::Done);
    }
    for (table, repaired) in [(&repair.table, &repair.repaired), (&quarantine_uri, &repair.quarantine)] {
        if let Some(repaired) = repaired {
            printer.fields(&repaired_fields(table, repaired))?;
        }
    }
    if repair.repaired.is_none() && repair.quarantine.is_none() {
        printer.line(format!("the newest version of {} is readable: nothing to repair", repair.table))?;
    }
    Ok(ExitStatus::Done)
}

fn repaired_fields(table: &str, repaired: &RepairReport) -> Vec<(&'static str, String)> {
    let RepairReport { version, file, problem, transactions, current, committed, rows } = repaired;
    let mut fields = vec![
        ("table", table.to_owned()),
        ("damaged", format!("version {version}: {problem}")),
        ("renamed to", file.clone()),
        ("current", format!("version {current} of {}, {}", committed.format("%FT%TZ"), counted(*rows, "row"))),
    ];
    fields.extend(transactions.iter().map(|made| ("set aside", made.clone())));
    fields
}

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    if args.repair {
        return Box::pin(repair_table(args, printer)).await;
    }
    let retention = Retention {
        older_than: args.older_than,
        keep_versions: args.keep_versions as usize,
        orphan_age: args.older_than,
    };
    let retention = args.cleanup.then_some(retention);
    // Rows with and without index coverage cannot be merged, so the index comes first.
    let index = match (args.dry_run, args.retrain) {
        (true, _) => None,
        (false, true) => Some(Box::pin(retrain_index(&args.table)).await?),
        (false, false) => Some(Box::pin(merge_index(&args.table)).await?),
    };
    let done = Done::of(&args.table, retention, args.dry_run).await?;
    let quarantine = quarantine_uri(&args.table);
    let quarantine = match Table::open(&quarantine).await? {
        Some(_) => Some(Done::of(&quarantine, retention, args.dry_run).await?),
        None => None,
    };
    let report = Report { table: args.table, dry_run: args.dry_run, done, index, quarantine };
    if args.json {
        printer.json(&report)?;
    } else {
        report.print(printer)?;
    }
    if let Some(retrain) = report.index.as_ref().and_then(|index| index.retrain) {
        advise(retrain, &report.table, printer);
    }
    let failed = report.done.failed() + report.quarantine.as_ref().map_or(0, Done::failed);
    if failed > 0 {
        let files = counted(failed, "file");
        printer.warning(format_args!("{files} could not be removed; the next cleanup tries again"));
    }
    Ok(ExitStatus::Done)
}

impl Done {
    async fn of(uri: &str, retention: Option<Retention>, dry_run: bool) -> Result<Self> {
        let (fragments_before, fragments_after) = if dry_run {
            let planned = Box::pin(plan_compaction(uri)).await?;
            (planned.fragments_before, planned.fragments_after)
        } else {
            let done = Box::pin(compact(uri, 0, OnConflict::Retry)).await?;
            (done.fragments_before, done.fragments_after)
        };
        let mode = if dry_run { CleanupMode::DryRun } else { CleanupMode::Remove };
        let cleanup = match retention {
            Some(retention) => Some(Box::pin(cleanup(uri, &retention, mode)).await?),
            None => None,
        };
        Ok(Self { fragments_before, fragments_after, cleanup })
    }

    fn fields(&self, dry_run: bool) -> Vec<(&'static str, String)> {
        let (before, after) = (thousands(self.fragments_before), thousands(self.fragments_after));
        let mut fields =
            vec![("fragments", format!("{before} before, {after} {}", if dry_run { "afterwards" } else { "now" }))];
        if let Some(cleaned) = &self.cleanup {
            let (versions, files) =
                (counted(cleaned.versions_removed, "version"), counted(cleaned.files_removed, "file"));
            let removed = format!("{versions}, {files} ({})", HumanBytes(cleaned.bytes_removed));
            fields.push((if dry_run { "would remove" } else { "removed" }, removed));
            fields.push((if dry_run { "would keep" } else { "kept" }, counted(cleaned.versions_kept, "version")));
        }
        fields
    }

    fn failed(&self) -> u64 {
        self.cleanup.as_ref().map_or(0, |cleaned| cleaned.files_failed)
    }
}

impl Report {
    fn print(&self, printer: &mut Printer) -> Result<()> {
        let mut fields = vec![("table", self.table.clone())];
        fields.extend(self.done.fields(self.dry_run));
        if let Some(index) = &self.index {
            let index = match &index.kind {
                Some(kind) => format!("{kind}, {} not covered", counted(index.unindexed_rows, "row")),
                None => NO_INDEX.to_owned(),
            };
            fields.push(("index", index));
        }
        printer.fields(&fields)?;
        if let Some(quarantine) = &self.quarantine {
            printer.line("\nquarantine")?;
            printer.fields(&quarantine.fields(self.dry_run))?;
        }
        Ok(())
    }
}
