//! Device names: `auto`, `cpu`, `cpu:0`, `cpu:0-3`, `cuda:0`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use polylance_encoder::Device as Hardware;

use crate::PoolError;

/// No machine has a core of this number.
const MOST_CORES: usize = 1 << 16;

/// A device as it is named in a pipeline file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceSpec {
    /// All cores as one device.
    Cpu,
    /// These cores as one device, its threads pinned to them.
    Cores(Vec<usize>),
    /// A CUDA device by its ordinal.
    Cuda(usize),
}

impl DeviceSpec {
    /// What computes there.
    ///
    /// # Errors
    /// When the driver has no such device.
    pub(crate) fn hardware(&self) -> Result<Hardware, PoolError> {
        let Self::Cuda(ordinal) = self else { return Ok(Hardware::Cpu) };
        let missing =
            |error: &dyn fmt::Display| PoolError::Device { device: self.to_string(), message: error.to_string() };
        Hardware::new_cuda(*ordinal).map_err(|error| missing(&error))
    }

    /// Threads that compute there, each on a core of its own.
    pub(crate) fn threads(&self) -> usize {
        match self {
            Self::Cpu => cores().len(),
            Self::Cores(cores) => cores.len(),
            Self::Cuda(_) => 1,
        }
    }

    /// Reads a list of names. `auto`, or nothing, is one device a core when the weights are small enough to stay in
    /// memory as the arithmetic needs them, and otherwise all cores as one device.
    ///
    /// # Errors
    /// When a name is not a device of this machine, or a core or a GPU is named twice.
    pub fn list(names: &[String], per_core: bool) -> Result<Vec<Self>, PoolError> {
        let cores = cores();
        if names.is_empty() || names == ["auto"] {
            let each = || cores.iter().map(|&core| Self::Cores(vec![core])).collect();
            return Ok(if per_core && cores.len() > 1 { each() } else { vec![Self::Cpu] });
        }
        let mut taken = BTreeSet::new();
        let mut specs = Vec::with_capacity(names.len());
        for name in names {
            let refuse = |message: String| PoolError::Device { device: name.clone(), message };
            if name == "auto" {
                return Err(refuse("it is all devices and stands alone".to_owned()));
            }
            let spec: Self = name.parse()?;
            if cfg!(not(feature = "cuda")) && matches!(spec, Self::Cuda(_)) {
                return Err(refuse("this binary was built without CUDA: build it with the feature `cuda`".to_owned()));
            }
            let parts = match &spec {
                Self::Cores(cores) => cores.iter().map(|&core| Self::Cores(vec![core])).collect(),
                Self::Cpu | Self::Cuda(_) => vec![spec.clone()],
            };
            for part in parts {
                if matches!(&part, Self::Cores(core) if !cores.contains(&core[0])) {
                    return Err(refuse(format!("this machine has the cores {}", listed(&cores))));
                }
                let text = part.to_string();
                if !taken.insert(text.clone()) {
                    return Err(refuse(format!("{text} is named twice")));
                }
            }
            specs.push(spec);
        }
        Ok(specs)
    }
}

/// Cores as runs: `0-3, 8`.
fn listed(cores: &[usize]) -> String {
    let runs = cores.chunk_by(|a, b| a + 1 == *b);
    let runs =
        runs.map(|run| if run.len() > 1 { format!("{}-{}", run[0], run[run.len() - 1]) } else { run[0].to_string() });
    runs.collect::<Vec<_>>().join(", ")
}

/// Cores this process may run on.
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
            Some(("cuda", ordinal)) => Ok(Self::Cuda(number(ordinal)?)),
            Some(("cpu", cores)) => {
                let (first, last) = cores.split_once('-').unwrap_or((cores, cores));
                let (first, last) = (number(first)?, number(last)?);
                if first > last || last >= MOST_CORES {
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
            Self::Cores(cores) => match cores[..] {
                [first, .., last] => write!(f, "cpu:{first}-{last}"),
                [core] => write!(f, "cpu:{core}"),
                [] => f.write_str("cpu"),
            },
            Self::Cuda(ordinal) => write!(f, "cuda:{ordinal}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_and_printed_alike() {
        for name in ["cpu", "cpu:0", "cpu:2-5", "cuda:1"] {
            assert_eq!(name.parse::<DeviceSpec>().unwrap().to_string(), name);
        }
        for wrong in ["", "gpu", "cpu:", "cpu:a", "cpu:3-1", "cpu:0-18446744073709551615", "cuda", "cuda:x", "auto"] {
            assert!(wrong.parse::<DeviceSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_list_that_cannot_be_is_refused_by_name() {
        let core = format!("cpu:{}", cores()[0]);
        let twice = format!("{core} is named twice");
        for (names, expected) in [
            (vec![core.as_str(), core.as_str()], twice.as_str()),
            (vec!["cpu", "cpu"], "cpu is named twice"),
            (vec!["cpu:60000"], "this machine has the cores"),
            (vec!["cpu", "auto"], "stands alone"),
            (vec!["tpu:0"], "expected `auto`, `cpu`, `cpu:N`, `cpu:N-M` or `cuda:N`"),
        ] {
            let names: Vec<String> = names.into_iter().map(str::to_owned).collect();
            let error = DeviceSpec::list(&names, true).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with(&format!("device `{}`", names[names.len() - 1])), "{error}");
        }
        assert_eq!(listed(&[0, 1, 2, 5, 7, 8]), "0-2, 5, 7-8");
    }

    #[cfg(not(feature = "cuda"))]
    #[test]
    fn a_gpu_needs_the_feature() {
        let error = DeviceSpec::list(&["cuda:0".to_owned()], true).unwrap_err().to_string();
        assert!(error.contains("feature `cuda`"), "{error}");
    }

    #[test]
    fn auto_is_a_device_a_core_unless_weights_are_widened_a_layer_at_a_time() {
        assert_eq!(DeviceSpec::list(&[], true).unwrap().len(), cores().len());
        assert_eq!(DeviceSpec::list(&["auto".to_owned()], false).unwrap(), [DeviceSpec::Cpu]);
    }
}
