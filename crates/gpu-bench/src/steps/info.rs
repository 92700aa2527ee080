//! The card, its driver, its clocks.

use std::process::Command;

use anyhow::Result;
use polylance_encoder::gpus_or_why;
use serde_json::json;

use super::Context;

/// The fields that `nvidia-smi` is queried for, where it exists.
const QUERY: &str = "name,driver_version,power.limit,clocks.max.sm,clocks.max.mem,clocks.sm,power.draw,temperature.gpu";

/// Lists the GPUs.
///
/// # Errors
/// Without a driver or a GPU.
pub(crate) fn run(context: &Context<'_>) -> Result<()> {
    let report = context.report;
    report.doing("listing the GPUs");
    for gpu in gpus_or_why()? {
        let (major, minor) = gpu.compute;
        let gib = gpu.total_memory as f64 / f64::from(1 << 30);
        report.record(
            &format!("cuda:{}", gpu.ordinal),
            format_args!("{}, sm_{major}{minor}, {} multiprocessors, {gib:.1} GiB", gpu.name, gpu.multiprocessors),
            json!({
                "name": gpu.name,
                "compute": format!("{major}.{minor}"),
                "multiprocessors": gpu.multiprocessors,
                "memory_bytes": gpu.total_memory,
                "pci_bus_id": gpu.pci_bus_id,
            }),
        );
    }
    let gpu = context.open()?;
    let free = gpu.free_memory()?;
    report.record("free memory", format_args!("{:.1} GiB", free as f64 / f64::from(1 << 30)), free);
    let smi = Command::new("nvidia-smi").arg(format!("--query-gpu={QUERY}")).arg("--format=csv,noheader").output();
    if let Some(output) = smi.ok().filter(|output| output.status.success()) {
        let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        report.record("nvidia-smi", &text, text.as_str());
    }
    Ok(())
}
