//! Encodes rows of tokens from a JSON Lines file (`{"input_ids": [0, 5, 2]}`) and prints the speed as one JSON object:
//! the measurements of `polylance bench`, without the rest of the binary.
//!
//! `encode_ids --ids FILE [--model MODEL] [--dtype DTYPE] [--devices DEVICE,…] [--rounds N] [--batch-tokens N]
//! [--vectors FILE]`
#![expect(clippy::print_stdout, reason = "a program for people")]

use std::{
    error::Error,
    fs::{self, File},
    io::{BufRead, BufReader},
    time::Instant,
};

use polylance_encoder::ModelFiles;
use polylance_schema::Dtype;
use polylance_worker::{DevicePool, PoolOptions, bench};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().collect();
    let option = |name: &str| arguments.windows(2).find(|pair| pair[0] == name).map(|pair| pair[1].as_str());
    let file = File::open(option("--ids").ok_or("--ids FILE is missing")?)?;
    let mut inputs: Vec<Vec<u32>> = Vec::new();
    for line in BufReader::new(file).lines() {
        let row: serde_json::Value = serde_json::from_str(&line?)?;
        inputs.push(serde_json::from_value(row["input_ids"].clone())?);
    }
    let dtype: Dtype = option("--dtype").unwrap_or("f32").parse()?;
    let started = Instant::now();
    let files = ModelFiles::find(option("--model").unwrap_or("builtin:multilingual-e5-small"))?;
    let batch_tokens = option("--batch-tokens").map(str::parse).transpose()?;
    let devices = option("--devices").map(|names| names.split(',').map(str::to_owned).collect()).unwrap_or_default();
    let options = PoolOptions { devices, dtype: Some(dtype), batch_tokens, ..PoolOptions::default() };
    let pool = DevicePool::open(&files, &options)?;
    let load_seconds = started.elapsed().as_secs_f64();
    let rounds = option("--rounds").unwrap_or("3").parse()?;
    let (report, vectors) = bench(&pool, files.config(), dtype, &inputs, rounds)?;
    if let Some(path) = option("--vectors") {
        fs::write(path, vectors.values.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>())?;
    }
    let mut report = serde_json::to_value(report)?;
    report["load_seconds"] = load_seconds.into();
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak_kib =
        status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    report["peak_memory"] = (peak_kib.unwrap_or_default() << 10).into();
    println!("{report}");
    Ok(())
}
