//! Embeds a file into a table with the built-in model.
//!
//! ```console
//! $ cargo run -p polylance-engine --example embed -- docs.jsonl docs.lance
//! ```

use polylance_config::{Pipeline, Source, Table};
use polylance_engine::{EmbedOptions, EmbedPlan};

#[tokio::main]
#[expect(clippy::print_stdout, reason = "an example shows what it got")]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(source), Some(table)) = (arguments.next(), arguments.next()) else {
        return Err("expected a source and a table".into());
    };
    let pipeline = Pipeline::new(Source::new(source), Table::new(table));
    let plan = Box::pin(EmbedPlan::open(&pipeline, EmbedOptions::default())).await?;
    let summary = Box::pin(plan.run(&mut ())).await?.summary;
    println!("{} documents written, version {}", summary.rows_written, summary.version);
    Ok(())
}
