//! `polylance cluster`

use polylance_ballista::{ClusterStatus, ExecutorStatus, SchedulerAddress, cluster_status};

use crate::{
    error::Result,
    exit::ExitStatus,
    output::{Printer, counted},
};

/// Show the executors of a cluster and its splits in work
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Address of the scheduler
    #[arg(value_name = "URL", env = "POLYLANCE_CLUSTER")]
    url: SchedulerAddress,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

const AFTER_HELP: &str = "\
Examples:
  polylance cluster http://scheduler:50050
  polylance cluster http://scheduler:50050 --json | jq .slots";

pub(crate) async fn run(args: Args, printer: &mut Printer) -> Result<ExitStatus> {
    let status = cluster_status(&args.url).await?;
    if args.json {
        printer.json(&status)?;
    } else {
        show(&args.url, &status, printer)?;
    }
    Ok(ExitStatus::Done)
}

fn show(url: &SchedulerAddress, status: &ClusterStatus, printer: &mut Printer) -> Result<()> {
    printer.fields(&[
        ("scheduler", format!("{url} (polylance {})", status.version)),
        ("executors", counted(status.executors.len() as u64, "executor")),
        ("slots", status.slots.to_string()),
        ("splits", format!("{} in work or waiting", status.splits)),
    ])?;
    for ExecutorStatus { host, port, slots, seconds_silent } in &status.executors {
        let slots = counted(*slots as u64, "slot");
        printer.line(format_args!("  {host}:{port}  {slots}, last heartbeat {seconds_silent} s ago"))?;
    }
    Ok(())
}
