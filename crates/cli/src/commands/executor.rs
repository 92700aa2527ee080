//! `polylance executor`

use std::{net::IpAddr, num::NonZeroUsize, sync::Arc, time::Duration};

use polylance_ballista::{ExecutorOptions, SchedulerAddress, host_name, run_executor};
use polylance_cluster::SplitRunner;
use polylance_engine::{ExecutorModels, ShutdownSignal};

use crate::{
    args::{DeviceArgs, duration::seconds},
    error::Result,
    exit::ExitStatus,
    output::{Printer, counted},
    shutdown::{ShutdownController, ShutdownPlan},
};

/// Embed the splits that a scheduler deals, with the devices of this machine
///
/// The model of a run is loaded at its first split and stays loaded. Data files are written straight to the run's
/// table, with the credentials of this machine, and the run commits them. On SIGTERM, the splits in work are finished.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Address of the scheduler
    #[arg(long, value_name = "HOST:PORT", env = "POLYLANCE_CLUSTER")]
    scheduler: SchedulerAddress,
    /// Address to listen on for splits
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    bind: IpAddr,
    /// Port to listen on, which the scheduler must reach
    #[arg(long, value_name = "PORT", default_value_t = 50051)]
    port: u16,
    /// Name or address under which the scheduler reaches this machine [default: the one that it sees]
    #[arg(long, value_name = "HOST")]
    advertise: Option<String>,
    /// Number of splits at the same time; the second fills the devices while the first ends
    #[arg(long, value_name = "N", default_value = "2")]
    slots: NonZeroUsize,
    /// Download this model before registering; repeatable
    #[arg(long = "model", value_name = "MODEL")]
    models: Vec<String>,
    /// How long the splits in work may take after SIGTERM
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = seconds)]
    drain: Duration,
    #[command(flatten)]
    devices: DeviceArgs,
}

const AFTER_HELP: &str = "\
Examples:
  polylance executor --scheduler scheduler:50050
  polylance executor --scheduler scheduler:50050 --devices cuda:0 --model intfloat/multilingual-e5-base
  polylance executor --scheduler scheduler:50050 --port 50052 --advertise 10.0.0.7";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let models = ExecutorModels::new(args.devices.devices);
    Box::pin(models.find(&args.models)).await?;
    let host = args.advertise.clone().unwrap_or_else(host_name);
    let runner = SplitRunner::new(Arc::new(models), host);
    let signal = ShutdownSignal::default();
    let plan =
        ShutdownPlan { signal: signal.clone(), grace: args.drain, description: "the splits in work are finished" };
    controller.set(plan);
    let slots = counted(args.slots.get() as u64, "slot");
    printer.message(format_args!("executor with {slots}, for the scheduler at {}", args.scheduler));
    let options = ExecutorOptions {
        scheduler: args.scheduler,
        bind: args.bind,
        port: args.port,
        advertise: args.advertise,
        slots: args.slots.get(),
    };
    Box::pin(run_executor(options, runner, &signal)).await?;
    Ok(ExitStatus::Done)
}
