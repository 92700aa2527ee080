//! `polylance scheduler`

use std::net::SocketAddr;

use polylance_ballista::BoundScheduler;
use polylance_engine::ShutdownSignal;

use crate::{
    error::Result,
    exit::ExitStatus,
    output::Printer,
    shutdown::{ShutdownController, ShutdownPlan},
};

/// Deal the splits of runs to the executors of a cluster
///
/// Executors register with it, and `polylance run --cluster` sends it splits. Its state is in memory: after a restart,
/// executors register again and runs send their splits again. GET /cluster and /metrics show its state, /health that
/// it runs. Whoever reaches its port can use the executors: listen in a private network only.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Args {
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:50050")]
    listen: SocketAddr,
}

const AFTER_HELP: &str = "\
Examples:
  polylance scheduler --listen 0.0.0.0:50050
  polylance executor --scheduler scheduler:50050
  polylance run nightly.toml --cluster http://scheduler:50050";

pub(crate) async fn run(args: Args, controller: &ShutdownController, printer: &mut Printer) -> Result<ExitStatus> {
    let scheduler = Box::pin(BoundScheduler::bind(args.listen)).await?;
    printer.message(format_args!("listening on http://{}", scheduler.address()?));
    let signal = ShutdownSignal::default();
    let plan = ShutdownPlan {
        signal: signal.clone(),
        grace: std::time::Duration::from_secs(1),
        description: "executors finish their splits",
    };
    controller.set(plan);
    Box::pin(scheduler.serve(&signal)).await?;
    Ok(ExitStatus::Done)
}
