//! Runs the whole job over a source on a simulated device, or on a cluster of `fake-executor`s. It prints the summary
//! with the seconds before, during and after the embedding, and the numbers of commits and of those that were refused
//! because another process committed first.
#![expect(clippy::print_stdout, reason = "the program that started it reads its output")]

use std::{
    error::Error,
    sync::Arc,
    time::{Duration, Instant},
};

use clap::Parser;
use datafusion::physical_plan::ExecutionPlan;
use polylance_ballista::{BallistaEngine, SchedulerAddress};
use polylance_cluster::{ClusterSettings, SplitModel};
use polylance_engine::{ClusterJob, ClusterOptions, Job, Observer, Stage};
use polylance_schema::{IndexKind, MaintenancePolicy, Shard};
use polylance_sink::IndexSpec;
use polylance_tests::{fake_pipeline, paced_model};

const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Debug, Parser)]
struct Args {
    /// A file, a folder or a pattern, also in an object store
    source: String,
    /// The table
    table: String,
    /// The scheduler of the executors; the device of this process without it
    #[arg(long)]
    cluster: Option<SchedulerAddress>,
    /// The part of the source to embed
    #[arg(long)]
    shard: Option<Shard>,
    /// Microseconds for which the device of this process is busy with a token
    #[arg(long, default_value_t = 0)]
    pace: u64,
    /// Bytes of a split; each file and row group is one if they are few
    #[arg(long, default_value_t = 1)]
    split: u64,
    /// Rows of a commit
    #[arg(long, default_value_t = 5_000)]
    rows_per_commit: u64,
    /// Neither an index nor maintenance
    #[arg(long)]
    without_index: bool,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let SplitModel { backend, contract } = paced_model(Duration::from_micros(args.pace));
    let cluster = args.cluster.map(|address| cluster(address, args.split)).transpose()?;
    let mut job = Job { shard: args.shard, cluster, ..fake_pipeline(args.source, args.table, args.rows_per_commit) };
    if !args.without_index {
        job.index = IndexSpec { kind: IndexKind::IvfFlat, min_rows: 500, ..IndexSpec::default() };
        job.upkeep = MaintenancePolicy { compact: true, ..MaintenancePolicy::OFF };
    }
    let mut stages = Stages::new();
    let planned = Box::pin(Box::pin(job.open()).await?.plan(&backend, contract, Vec::new())).await?;
    let plan = planned.plan();
    let summary = Box::pin(planned.run(&mut stages)).await?;
    let mut report = serde_json::to_value(&summary)?;
    report["stages"] = stages.seconds().into();
    report["commits"] = total(plan.as_ref(), "commits").into();
    report["commits_refused"] = total(plan.as_ref(), "commit_conflicts").into();
    println!("{report}");
    Ok(())
}

fn cluster(address: SchedulerAddress, split_bytes: u64) -> Result<ClusterJob, Box<dyn Error>> {
    let settings = ClusterSettings { split_bytes, patience: PATIENCE, shared_files: true };
    let options = ClusterOptions { engine: Arc::new(BallistaEngine::new(address)?), settings };
    Ok(ClusterJob { options, pipeline: String::new() })
}

/// The sum of a counter over the operators of a plan.
fn total(plan: &dyn ExecutionPlan, counter: &str) -> usize {
    let own = plan.metrics().and_then(|metrics| metrics.sum_by_name(counter)).map_or(0, |value| value.as_usize());
    own + plan.children().into_iter().map(|child| total(child.as_ref(), counter)).sum::<usize>()
}

/// When the stages of a run began.
struct Stages(Vec<Instant>);

impl Stages {
    fn new() -> Self {
        Self(vec![Instant::now()])
    }

    /// The seconds of each stage: before the embedding, the embedding, and after it.
    fn seconds(&self) -> Vec<f64> {
        let ends = self.0.iter().skip(1).copied().chain([Instant::now()]);
        self.0.iter().zip(ends).map(|(begin, end)| (end - *begin).as_secs_f64()).collect()
    }
}

impl Observer for Stages {
    fn stage(&mut self, _: Stage) {
        self.0.push(Instant::now());
    }
}
