//! Device names: `auto`, `cpu`, `cpu:0`, `cpu:0-3`, `cuda:0`.

use std::{fmt, str::FromStr};

use crate::error::PoolError;

/// Core numbers are below this on every machine.
const MAX_CORES: usize = 1 << 16;

/// A device, as a pipeline file names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// All cores as one device.
    Cpu,
    /// These cores as one device, its threads pinned to them.
    Cores(Vec<usize>),
    /// A CUDA device by its ordinal.
    Cuda(u32),
}

impl DeviceSpec {
    /// Threads that compute on it, each on its own core.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Cpu => cores().len(),
            Self::Cores(cores) => cores.len(),
            Self::Cuda(_) => 1,
        }
    }
}

/// Ascending numbers as ranges: `0-3, 8`.
pub(super) fn number_ranges(numbers: &[usize]) -> String {
    let runs = numbers.chunk_by(|a, b| a + 1 == *b);
    let ranges =
        runs.map(|run| if run.len() > 1 { format!("{}-{}", run[0], run[run.len() - 1]) } else { run[0].to_string() });
    ranges.collect::<Vec<_>>().join(", ")
}

/// The cores that this process may run on.
pub(crate) fn cores() -> Vec<usize> {
    let ids = core_affinity::get_core_ids().unwrap_or_default();
    if ids.is_empty() { vec![0] } else { ids.into_iter().map(|core| core.id).collect() }
}

impl FromStr for DeviceSpec {
    type Err = PoolError;

    fn from_str(name: &str) -> Result<Self, PoolError> {
        let unknown = || PoolError::Device {
            device: name.to_owned(),
            message: "expected `auto`, `cpu`, `cpu:N`, `cpu:N-M` or `cuda:N`".to_owned(),
        };
        let number = |text: &str| text.parse::<usize>().map_err(|_| unknown());
        match name.split_once(':') {
            None if name == "cpu" => Ok(Self::Cpu),
            Some(("cuda", ordinal)) => Ok(Self::Cuda(ordinal.parse().map_err(|_| unknown())?)),
            Some(("cpu", cores)) => {
                let (first, last) = cores.split_once('-').unwrap_or((cores, cores));
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last >= MAX_CORES {
                    Err(unknown())
                } else {
                    Ok(Self::Cores((first..=last).collect()))
                }
            }
            _ => Err(unknown()),
        }
    }
}

impl fmt::Display for DeviceSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => f.write_str("cpu"),
            Self::Cores(cores) => write!(f, "cpu:{}", number_ranges(cores)),
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn device_names_are_parsed_and_printed_alike() {
        for name in ["cpu", "cpu:0", "cpu:2-5", "cuda:1"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
        for wrong in ["", "gpu", "cpu:", "cpu:a", "cpu:3-1", "cpu:0-18446744073709551615", "cuda", "cuda:x", "auto"] {
            assert!(wrong.parse::<DeviceSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn ascending_numbers_are_printed_as_ranges() {
        assert_eq!(number_ranges(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }
}
