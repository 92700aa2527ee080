//! Device names: `auto`, `cpu`, `cpu:0`, `cpu:0-3`, `cuda:0`.

use std::{collections::BTreeSet, fmt, str::FromStr};

use crate::PoolError;

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
    /// Reads a list of names. `auto`, or nothing, is one device a core when the weights are small enough to stay in
    /// memory as the arithmetic needs them, and otherwise all cores as one device.
    ///
    /// # Errors
    /// When a name is not a device of this machine, or a core is named twice.
    pub fn list(names: &[String], per_core: bool) -> Result<Vec<Self>, PoolError> {
        let cores = cores();
        if names.is_empty() || names == ["auto"] {
            let each = || cores.iter().map(|&core| Self::Cores(vec![core])).collect();
            return Ok(if per_core && cores.len() > 1 { each() } else { vec![Self::Cpu] });
        }
        let mut taken = BTreeSet::new();
        let refuse = |device: &str, message: String| PoolError::Device { device: device.to_owned(), message };
        names
            .iter()
            .map(|name| {
                let spec: Self = name.parse()?;
                if let Self::Cores(wanted) = &spec {
                    for core in wanted {
                        if !cores.contains(core) {
                            return Err(refuse(name, format!("this machine has the cores {cores:?}")));
                        }
                        if !taken.insert(*core) {
                            return Err(refuse(name, format!("core {core} is named twice")));
                        }
                    }
                }
                Ok(spec)
            })
            .collect()
    }
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
                let cores: Vec<usize> = (number(first)?..=number(last)?).collect();
                if cores.is_empty() { Err(unknown()) } else { Ok(Self::Cores(cores)) }
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
        for wrong in ["", "gpu", "cpu:", "cpu:a", "cpu:3-1", "cuda", "cuda:x", "auto"] {
            assert!(wrong.parse::<DeviceSpec>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_core_serves_one_device() {
        let core = cores()[0];
        let twice = [format!("cpu:{core}"), format!("cpu:{core}")];
        assert!(DeviceSpec::list(&twice, true).unwrap_err().to_string().contains("twice"));
        assert!(DeviceSpec::list(&["cpu:9999".to_owned()], true).unwrap_err().to_string().contains("cores"));
    }

    #[test]
    fn auto_is_a_device_a_core_unless_weights_are_widened_a_layer_at_a_time() {
        assert_eq!(DeviceSpec::list(&[], true).unwrap().len(), cores().len());
        assert_eq!(DeviceSpec::list(&["auto".to_owned()], false).unwrap(), [DeviceSpec::Cpu]);
    }
}
