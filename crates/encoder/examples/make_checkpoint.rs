//! Writes a complete XLM-RoBERTa-XL or -XXL checkpoint with made-up weights, to measure the real size without the hub.
//!
//! ```text
//! cargo run --release --package polylance-encoder --example make_checkpoint -- xlm-roberta-xl-made-up
//! ```
//!
//! 3.48 billion parameters as bf16 safetensors in shards of 2 GB, 7 GB in all, with the built-in model's tokenizer.
//! `--geometry xxl` writes 10.7 billion, 21 GB; `--layers N` writes a shallower one.
#![expect(clippy::print_stdout, reason = "an example talks to its user")]

use std::{env, error::Error, fs, path::Path, time::Instant};

use polylance_encoder::{
    ModelConfig,
    synthetic::{Checkpoint, Format},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let folder = arguments.next().ok_or("usage: make_checkpoint FOLDER [--geometry xl|xxl] [--layers N]")?;
    let (mut config, mut layers) = (ModelConfig::xl(), None);
    while let Some(argument) = arguments.next() {
        match (argument.as_str(), arguments.next().as_deref()) {
            ("--geometry", Some("xl")) => config = ModelConfig::xl(),
            ("--geometry", Some("xxl")) => config = ModelConfig::xxl(),
            ("--layers", Some(number)) => layers = Some(number.parse()?),
            (other, value) => return Err(format!("unknown argument {other} {}", value.unwrap_or_default()).into()),
        }
    }
    let config = ModelConfig { num_hidden_layers: layers.unwrap_or(config.num_hidden_layers), ..config };
    let started = Instant::now();
    let folder = Path::new(&folder);
    Checkpoint::new(config).format(Format::Bf16).shards(2_000_000_000).write(folder)?;
    fs::write(folder.join("tokenizer.json"), polylance_builtin::tokenizer_json())?;
    println!("wrote {} in {:.0} s", folder.display(), started.elapsed().as_secs_f64());
    Ok(())
}
