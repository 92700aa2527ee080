//! The number of tokens that pass through a model together when its layers are streamed from their files.

use polylance_encoder::{ModelFiles, Streaming};

use crate::{
    options::PoolOptions,
    selection::{DeviceSpec, Machine, SelectedDevices},
};

/// Tokens of a window for each core.
///
/// Reading is hidden if a window's products with a layer take longer than reading the next layer. A layer of `p`
/// numbers is `b·p` bytes in its file and takes `2·p` operations per token. With `r` bytes per second from the disk and
/// `f` operations per second of each of `c` cores, that is `2·p·tokens / (c·f) > b·p / r`, or
/// `tokens / c > b·f / (2·r)`, whatever the size of the model: 500 tokens per core for bf16 files, 500 MB/s and 250 G
/// operations per second. The cores also pack each layer, in every window: its share falls with the tokens, and longer
/// windows would come near the time limit of a batch.
const TOKENS_PER_CORE: usize = 2048;
/// Also where the states of this many tokens do not fit into the memory limit: with fewer, a pass mostly reads.
const MIN_TOKENS: usize = 4096;
const MAX_TOKENS: usize = 65_536;

/// Tokens in a window of streamed layers: by the number of cores, and by the memory that states may take.
pub(super) fn window_tokens(streaming: Streaming, cores: usize) -> usize {
    let by_cores = cores.saturating_mul(TOKENS_PER_CORE).clamp(MIN_TOKENS, MAX_TOKENS);
    by_cores.min(streaming.state_tokens).max(MIN_TOKENS)
}

/// The cores of CPU devices as one device. Several would each keep two layers in memory.
pub(super) fn joined(specs: &[DeviceSpec]) -> DeviceSpec {
    let mut all = Vec::new();
    for spec in specs {
        match spec {
            DeviceSpec::Cores(cores) => all.extend_from_slice(cores),
            DeviceSpec::Cpu | DeviceSpec::Cuda(_) => return DeviceSpec::Cpu,
        }
    }
    all.sort_unstable();
    DeviceSpec::Cores(all)
}

/// Tokens in a window of a model whose layers will be streamed on these devices, known before it is loaded; `None` if
/// it will be in memory, or if its memory limit will be refused.
pub fn streamed_window_tokens(
    files: &ModelFiles,
    options: &PoolOptions,
    devices: &SelectedDevices,
    machine: &Machine,
) -> Option<usize> {
    let cores = match devices {
        SelectedDevices::AllCores => machine.cores().len(),
        SelectedDevices::Cpu(specs) => joined(specs).threads(),
        SelectedDevices::Cuda(_) => return None,
    };
    let streaming = Streaming::plan(files.config(), options.dtype.unwrap_or_default(), options.memory).ok()??;
    Some(options.batch_tokens.unwrap_or_else(|| window_tokens(streaming, cores)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_grows_with_the_cores_within_the_memory_of_its_states() {
        let window = |state_tokens, cores| window_tokens(Streaming { layer_bytes: 1 << 20, state_tokens }, cores);
        assert_eq!([1, 2, 8, 32, 400].map(|cores| window(1 << 20, cores)), [4096, 4096, 16_384, 65_536, 65_536]);
        assert_eq!([0, 5000, 20_000].map(|tokens| window(tokens, 8)), [4096, 5000, 16_384]);
    }

    #[test]
    fn devices_become_one_with_all_their_cores() {
        let cores = |cores: &[usize]| DeviceSpec::Cores(cores.to_vec());
        assert_eq!(joined(&[cores(&[3]), cores(&[0, 1])]).to_string(), "cpu:0-1, 3");
        assert_eq!(joined(&[cores(&[0]), cores(&[1])]).to_string(), "cpu:0-1");
        assert_eq!(joined(&[DeviceSpec::Cpu]), DeviceSpec::Cpu);
    }
}
