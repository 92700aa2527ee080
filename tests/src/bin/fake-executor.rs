//! An executor of a cluster whose device is simulated.

use std::{error::Error, net::Ipv4Addr, sync::Arc, time::Duration};

use clap::Parser;
use polylance_ballista::{ExecutorOptions, SchedulerAddress, run_executor};
use polylance_cluster::SplitRunner;
use polylance_engine::ShutdownSignal;
use polylance_tests::{FakeModels, paced_model};

#[derive(Debug, Parser)]
struct Args {
    /// Address of the scheduler
    scheduler: SchedulerAddress,
    /// Port to listen on
    #[arg(long)]
    port: u16,
    /// Microseconds for which the device is busy with a token
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// Number of splits at the same time
    #[arg(long, default_value_t = 2)]
    slots: usize,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let Args { scheduler, port, pace, slots } = Args::parse();
    let local = Ipv4Addr::LOCALHOST;
    let host = local.to_string();
    let runner = SplitRunner::new(Arc::new(FakeModels(paced_model(Duration::from_micros(pace)))), host.clone());
    let options = ExecutorOptions { scheduler, bind: local.into(), port, advertise: Some(host), slots };
    Ok(run_executor(options, runner, &ShutdownSignal::default()).await?)
}
