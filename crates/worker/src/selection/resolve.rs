//! Selects the devices and the dtype: one decision, because the default of each depends on the other.

use std::{collections::BTreeSet, fmt};

use polylance_encoder::{CudaError, Device as Hardware, ModelError, check_dtype, dtype_of_this_cpu};
use polylance_schema::Dtype;

use super::{
    machine::{Machine, NoGpu, VisibleGpu},
    spec::{DeviceSpec, number_ranges},
};
use crate::{error::PoolError, options::PoolOptions};

/// The devices of a pool, all of one kind, and their dtype.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// The devices.
    pub devices: SelectedDevices,
    /// The dtype that they compute in.
    pub dtype: Dtype,
    /// How the selection differs from the one that the names or the table suggest.
    pub note: Option<SelectionNote>,
    /// The most bytes that a model's weights may take on the CPU, if there is a limit.
    pub memory: Option<u64>,
}

/// Devices of one kind. GPUs and cores do not share work: their vectors differ in the last bits, and the device that
/// computes a text depends on timing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectedDevices {
    /// All cores: as one device or as one device per core, which is decided when the weights are loaded.
    AllCores,
    /// These sets of cores.
    Cpu(Vec<DeviceSpec>),
    /// These GPUs.
    Cuda(Vec<VisibleGpu>),
}

/// Why a [`Selection`] differs from the one that the names or the table suggest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectionNote {
    /// `auto` selected the cores although there are GPUs, because GPUs do not compute int8.
    Int8OnCores {
        /// The device names of the GPUs.
        gpus: Vec<String>,
    },
    /// A table in f16 is queried on cores, which do not compute f16.
    F16AsF32,
    /// `auto` selected the cores because the driver cannot be used.
    UnusableDriver {
        /// The driver's message.
        reason: String,
    },
}

/// The devices with these names, and the dtype: the given one, or bf16 on GPUs and the CPU's fastest on cores. Without
/// names, or with `auto`, these are all GPUs that can be used, or all cores if there is none.
///
/// # Errors
/// [`PoolError::Device`] when a name is not a device, is repeated, or is of another kind than the first;
/// [`PoolError::Gpu`] when a named GPU cannot be used; [`PoolError::Model`] when the devices do not compute `dtype`.
pub fn resolve(names: &[String], dtype: Option<Dtype>, machine: &Machine) -> Result<Selection, PoolError> {
    let (devices, note) = select(names, dtype, machine)?;
    let dtype = dtype.unwrap_or_else(|| devices.fastest_dtype());
    devices.check(dtype)?;
    Ok(Selection { devices, dtype, note, memory: None })
}

/// The devices and the dtype for the queries of a table: the table's own dtype, except that cores compute f32 for a
/// table in f16. In f32 the weights are rounded less, so a query is as near to its passages as in f16.
///
/// # Errors
/// As [`resolve`].
pub fn resolve_query(names: &[String], table: Dtype, machine: &Machine) -> Result<Selection, PoolError> {
    let (devices, note) = select(names, Some(table), machine)?;
    if table == Dtype::F16 && !devices.is_cuda() {
        return Ok(Selection { devices, dtype: Dtype::F32, note: Some(SelectionNote::F16AsF32), memory: None });
    }
    devices.check(table)?;
    Ok(Selection { devices, dtype: table, note, memory: None })
}

/// The cores with these names, for work that is not computed on GPUs.
///
/// # Errors
/// [`PoolError::Device`] as [`resolve`], and with `reason` for a GPU.
pub(crate) fn resolve_cores(names: &[String], reason: &str, machine: &Machine) -> Result<SelectedDevices, PoolError> {
    if is_auto(names) {
        return Ok(SelectedDevices::AllCores);
    }
    match parse(names, machine)? {
        Named::Cpu(specs) => Ok(SelectedDevices::Cpu(specs)),
        Named::Cuda(ordinals) => {
            let device = ordinals.first().map(|&ordinal| DeviceSpec::Cuda(ordinal).to_string()).unwrap_or_default();
            Err(PoolError::Device { device, message: reason.to_owned() })
        }
    }
}

impl Selection {
    /// The devices and the dtype (f32 unless given) that these options select on a machine.
    ///
    /// # Errors
    /// As [`resolve`].
    pub(crate) fn from_options(options: &PoolOptions, machine: &Machine) -> Result<Self, PoolError> {
        resolve(&options.devices, Some(options.dtype.unwrap_or_default()), machine)
    }

    /// The same selection with a memory limit for a model's weights on the CPU.
    #[must_use]
    pub fn with_memory(self, memory: Option<u64>) -> Self {
        Self { memory, ..self }
    }

    /// The options that open a pool with this selection.
    pub fn options(&self) -> PoolOptions {
        PoolOptions {
            devices: self.devices.names(),
            dtype: Some(self.dtype),
            memory: self.memory,
            ..PoolOptions::default()
        }
    }

    /// Logs the selection at level info.
    pub fn log(&self) {
        let Self { devices, dtype, note, memory: _ } = self;
        let named = match devices {
            SelectedDevices::Cuda(gpus) => {
                gpus.iter().map(|gpu| format!("cuda:{} ({})", gpu.ordinal, gpu.name)).collect::<Vec<_>>().join(", ")
            }
            SelectedDevices::AllCores => "all cores".to_owned(),
            SelectedDevices::Cpu(_) => devices.names().join(", "),
        };
        tracing::info!(devices = named, %dtype, "devices and dtype");
        match note {
            None => {}
            Some(note @ SelectionNote::Int8OnCores { .. }) => tracing::info!("{note}"),
            Some(note @ (SelectionNote::F16AsF32 | SelectionNote::UnusableDriver { .. })) => tracing::warn!("{note}"),
        }
        if let SelectedDevices::Cuda(gpus) = devices
            && gpus.windows(2).any(|pair| pair[0].compute != pair[1].compute)
        {
            tracing::warn!(
                devices = named,
                "GPUs of different compute capabilities share the work: the last bits of a vector depend on its GPU"
            );
        }
    }
}

impl SelectedDevices {
    /// Names that resolve to these devices again with the same dtype.
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::AllCores => vec!["auto".to_owned()],
            Self::Cpu(specs) => specs.iter().map(ToString::to_string).collect(),
            Self::Cuda(gpus) => gpus.iter().map(|gpu| DeviceSpec::Cuda(gpu.ordinal).to_string()).collect(),
        }
    }

    /// Whether they are GPUs.
    pub fn is_cuda(&self) -> bool {
        matches!(self, Self::Cuda(_))
    }

    fn fastest_dtype(&self) -> Dtype {
        if self.is_cuda() { Dtype::Bf16 } else { dtype_of_this_cpu() }
    }

    fn check(&self, dtype: Dtype) -> Result<(), ModelError> {
        match (self, dtype) {
            // A GPU is not opened just to refuse int8.
            (Self::Cuda(_), Dtype::Int8) => {
                Err(ModelError::Option("dtype int8 is computed on the CPU alone; a GPU has bf16".to_owned()))
            }
            (Self::Cuda(_), _) => Ok(()),
            (Self::AllCores | Self::Cpu(_), dtype) => check_dtype(dtype, &Hardware::Cpu),
        }
    }
}

impl fmt::Display for SelectionNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Int8OnCores { gpus } => {
                write!(f, "int8 is computed on the CPU alone: {} not used", gpus.join(", "))
            }
            Self::F16AsF32 => f.write_str(
                "the table was made in f16, which the CPU does not compute: its queries are computed in f32, where \
                 weights are rounded less",
            ),
            Self::UnusableDriver { reason } => write!(f, "no GPU is used: {reason}"),
        }
    }
}

fn is_auto(names: &[String]) -> bool {
    names.is_empty() || names == ["auto"]
}

fn select(
    names: &[String],
    dtype: Option<Dtype>,
    machine: &Machine,
) -> Result<(SelectedDevices, Option<SelectionNote>), PoolError> {
    if is_auto(names) {
        return Ok(automatic(dtype, machine));
    }
    let devices = match parse(names, machine)? {
        Named::Cpu(specs) => SelectedDevices::Cpu(specs),
        Named::Cuda(ordinals) => SelectedDevices::Cuda(
            ordinals.into_iter().map(|ordinal| named_gpu(ordinal, machine)).collect::<Result<_, _>>()?,
        ),
    };
    Ok((devices, None))
}

fn automatic(dtype: Option<Dtype>, machine: &Machine) -> (SelectedDevices, Option<SelectionNote>) {
    let usable: Vec<VisibleGpu> = match machine.gpus() {
        Ok(gpus) => gpus.iter().filter(|gpu| gpu.is_usable()).cloned().collect(),
        Err(NoGpu { has_driver: false, .. }) => Vec::new(),
        Err(NoGpu { has_driver: true, reason }) => {
            return (SelectedDevices::AllCores, Some(SelectionNote::UnusableDriver { reason: reason.clone() }));
        }
    };
    if usable.is_empty() {
        return (SelectedDevices::AllCores, None);
    }
    let usable = SelectedDevices::Cuda(usable);
    if dtype == Some(Dtype::Int8) {
        let note = SelectionNote::Int8OnCores { gpus: usable.names() };
        return (SelectedDevices::AllCores, Some(note));
    }
    (usable, None)
}

fn named_gpu(ordinal: u32, machine: &Machine) -> Result<VisibleGpu, PoolError> {
    let refuse = |message: String| PoolError::Gpu { device: DeviceSpec::Cuda(ordinal).to_string(), message };
    let gpus = machine.gpus().map_err(|none| refuse(none.reason.clone()))?;
    let Some(gpu) = gpus.iter().find(|gpu| gpu.ordinal == ordinal) else {
        return Err(refuse(CudaError::NoDevice { ordinal, count: gpus.len() as u32 }.to_string()));
    };
    if !gpu.is_usable() {
        let error = CudaError::Unsupported { device: gpu.name.clone(), compute: gpu.compute };
        return Err(refuse(error.to_string()));
    }
    Ok(gpu.clone())
}

/// Devices of one kind, parsed from their names.
enum Named {
    Cpu(Vec<DeviceSpec>),
    Cuda(Vec<u32>),
}

fn parse(names: &[String], machine: &Machine) -> Result<Named, PoolError> {
    let (mut cpu, mut cuda): (Vec<DeviceSpec>, Vec<u32>) = (Vec::new(), Vec::new());
    let mut taken = BTreeSet::new();
    for name in names {
        let refuse = |message: String| PoolError::Device { device: name.clone(), message };
        if name == "auto" {
            return Err(refuse("it selects all devices and stands alone".to_owned()));
        }
        let spec: DeviceSpec = name.parse()?;
        let units = match &spec {
            DeviceSpec::Cores(cores) => cores.iter().map(|&core| DeviceSpec::Cores(vec![core])).collect(),
            DeviceSpec::Cpu | DeviceSpec::Cuda(_) => vec![spec.clone()],
        };
        for unit in units {
            if matches!(&unit, DeviceSpec::Cores(core) if !machine.cores().contains(&core[0])) {
                return Err(refuse(format!("this machine has the cores {}", number_ranges(machine.cores()))));
            }
            let text = unit.to_string();
            if !taken.insert(text.clone()) {
                return Err(refuse(format!("{text} is named twice")));
            }
        }
        match spec {
            DeviceSpec::Cuda(ordinal) => cuda.push(ordinal),
            spec => cpu.push(spec),
        }
        if let (Some(spec), false) = (cpu.first(), cuda.is_empty()) {
            let other = if name.starts_with("cuda") { spec.to_string() } else { DeviceSpec::Cuda(cuda[0]).to_string() };
            return Err(refuse(format!(
                "it cannot share work with {other}: CPU and GPU vectors differ in the last bits, and which of the two \
                 computes a text would depend on timing"
            )));
        }
    }
    Ok(if cuda.is_empty() { Named::Cpu(cpu) } else { Named::Cuda(cuda) })
}

#[cfg(test)]
mod tests {
    use polylance_schema::Explain as _;

    use super::*;

    fn gpu(ordinal: u32, compute: (u32, u32)) -> VisibleGpu {
        VisibleGpu { ordinal, name: format!("GPU of {}.{}", compute.0, compute.1), compute, near_cores: None }
    }

    fn without_gpu(reason: &str, has_driver: bool) -> Machine {
        Machine::new(vec![0, 1, 2, 3], Err(NoGpu { reason: reason.to_owned(), has_driver }))
    }

    /// Four cores and no driver.
    fn cores() -> Machine {
        without_gpu("no NVIDIA driver: libcuda.so.1 is not here", false)
    }

    /// Two GPUs that can be used, and one that cannot.
    fn gpus() -> Machine {
        Machine::new(vec![0, 1, 2, 3], Ok(vec![gpu(0, (9, 0)), gpu(1, (7, 0)), gpu(2, (9, 0))]))
    }

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    fn resolved(devices: &[&str], dtype: Option<Dtype>, machine: &Machine) -> (Vec<String>, Dtype) {
        let selection = resolve(&names(devices), dtype, machine).unwrap();
        (selection.devices.names(), selection.dtype)
    }

    #[test]
    fn auto_selects_all_usable_gpus_in_bf16_or_the_cores() {
        let cpu = dtype_of_this_cpu();
        for auto in [&[][..], &["auto"]] {
            assert_eq!(resolved(auto, None, &gpus()), (names(&["cuda:0", "cuda:2"]), Dtype::Bf16));
            assert_eq!(resolved(auto, None, &cores()), (names(&["auto"]), cpu));
        }
        let old = Machine::new(vec![0], Ok(vec![gpu(0, (7, 5))]));
        assert_eq!(resolved(&[], None, &old), (names(&["auto"]), cpu));
        let none = Machine::new(vec![0], Ok(Vec::new()));
        assert_eq!(resolved(&[], None, &none), (names(&["auto"]), cpu));
    }

    #[test]
    fn unusable_driver_selects_the_cores_with_a_note() {
        assert_eq!(resolve(&[], None, &cores()).unwrap().note, None);
        let selection = resolve(&[], None, &without_gpu("the NVIDIA driver is too old", true)).unwrap();
        assert_eq!(selection.devices, SelectedDevices::AllCores);
        assert_eq!(selection.note.unwrap().to_string(), "no GPU is used: the NVIDIA driver is too old");
    }

    #[test]
    fn given_dtype_is_kept() {
        assert_eq!(resolved(&[], Some(Dtype::F32), &gpus()), (names(&["cuda:0", "cuda:2"]), Dtype::F32));
        assert_eq!(resolved(&["cuda:2"], Some(Dtype::F16), &gpus()), (names(&["cuda:2"]), Dtype::F16));
        assert_eq!(resolved(&["cpu"], Some(Dtype::Bf16), &gpus()), (names(&["cpu"]), Dtype::Bf16));
        let selected = resolved(&["cpu:0-1", "cpu:3"], Some(Dtype::Int8), &cores());
        assert_eq!(selected, (names(&["cpu:0-1", "cpu:3"]), Dtype::Int8));
    }

    #[test]
    fn named_devices_decide_the_default_dtype() {
        assert_eq!(resolved(&["cpu"], None, &gpus()).1, dtype_of_this_cpu());
        assert_eq!(resolved(&["cuda:0"], None, &gpus()).1, Dtype::Bf16);
    }

    #[test]
    fn names_of_a_selection_resolve_to_the_same_selection() {
        for (devices, dtype, machine) in [
            (&[][..], None, gpus()),
            (&["auto"], Some(Dtype::Int8), gpus()),
            (&["auto"], None, cores()),
            (&["cpu:0", "cpu:1"], None, gpus()),
        ] {
            let first = resolve(&names(devices), dtype, &machine).unwrap();
            let PoolOptions { devices, dtype, .. } = first.options();
            assert_eq!(resolve(&devices, dtype, &machine).unwrap(), first);
        }
    }

    #[test]
    fn int8_selects_the_cores_even_with_gpus() {
        type Resolve = fn(&[String], &Machine) -> Result<Selection, PoolError>;
        let of_run: Resolve = |names, machine| resolve(names, Some(Dtype::Int8), machine);
        let of_query: Resolve = |names, machine| resolve_query(names, Dtype::Int8, machine);
        for resolve in [of_run, of_query] {
            let auto = resolve(&[], &gpus()).unwrap();
            assert_eq!((auto.devices, auto.dtype), (SelectedDevices::AllCores, Dtype::Int8));
            let note = auto.note.unwrap().to_string();
            assert_eq!(note, "int8 is computed on the CPU alone: cuda:0, cuda:2 not used");
            assert_eq!(resolve(&[], &cores()).unwrap().note, None);
            let error = resolve(&names(&["cuda:0"]), &gpus()).unwrap_err().to_string();
            assert_eq!(error, "dtype int8 is computed on the CPU alone; a GPU has bf16");
        }
    }

    #[test]
    fn f16_table_is_queried_in_f32_on_cores_and_in_f16_on_a_gpu() {
        for (devices, machine) in [(&[][..], cores()), (&["cpu"], cores()), (&["cpu:1"], gpus())] {
            let on_cores = resolve_query(&names(devices), Dtype::F16, &machine).unwrap();
            assert_eq!((on_cores.dtype, on_cores.note), (Dtype::F32, Some(SelectionNote::F16AsF32)), "{devices:?}");
        }
        let on_gpu = resolve_query(&[], Dtype::F16, &gpus()).unwrap();
        assert_eq!((on_gpu.devices.is_cuda(), on_gpu.dtype, on_gpu.note), (true, Dtype::F16, None));
        // A run writes the table's vectors, so it must not round differently.
        let error = resolve(&[], Some(Dtype::F16), &cores()).unwrap_err().to_string();
        assert_eq!(error, "dtype f16 needs a CUDA device; the CPU has bf16");
    }

    #[test]
    fn f32_and_bf16_tables_are_queried_in_their_dtype() {
        for dtype in [Dtype::F32, Dtype::Bf16] {
            for machine in [cores(), gpus()] {
                assert_eq!(resolve_query(&[], dtype, &machine).unwrap().dtype, dtype);
            }
        }
    }

    #[test]
    fn unusable_named_gpu_is_refused_with_the_reason() {
        for (device, machine, expected) in [
            ("cuda:0", cores(), "device `cuda:0`: no NVIDIA driver: libcuda.so.1 is not here"),
            ("cuda:5", gpus(), "device `cuda:5`: there is no GPU 5: the driver finds 3, GPU 0 to GPU 2"),
            (
                "cuda:1",
                gpus(),
                "device `cuda:1`: GPU of 7.0 has compute capability 7.0, the kernels need 8.0 (Ampere) or newer: use \
                 another GPU or the CPU",
            ),
        ] {
            let error = resolve(&names(&[device]), None, &machine).unwrap_err();
            assert_eq!(error.to_string(), expected);
            assert!(error.hint().is_some_and(|hint| hint.contains("`auto`")));
        }
    }

    #[test]
    fn cpu_and_gpu_names_are_not_mixed() {
        for (devices, named, other) in [(["cpu", "cuda:0"], "cuda:0", "cpu"), (["cuda:0", "cpu:1"], "cpu:1", "cuda:0")]
        {
            for machine in [gpus(), cores()] {
                let error = resolve(&names(&devices), None, &machine).unwrap_err().to_string();
                let expected = format!("device `{named}`: it cannot share work with {other}: ");
                assert!(error.starts_with(&expected) && error.ends_with("depend on timing"), "{error}");
            }
        }
    }

    #[test]
    fn invalid_device_list_is_refused_with_the_name() {
        for (devices, expected) in [
            (&["cpu:0", "cpu:0"][..], "cpu:0 is named twice"),
            (&["cpu:0-2", "cpu:1"], "cpu:1 is named twice"),
            (&["cpu", "cpu"], "cpu is named twice"),
            (&["cuda:0", "cuda:0"], "cuda:0 is named twice"),
            (&["cpu:60000"], "this machine has the cores 0-3"),
            (&["cpu", "auto"], "stands alone"),
            (&["tpu:0"], "expected `auto`, `cpu`, `cpu:N`, `cpu:N-M` or `cuda:N`"),
        ] {
            let error = resolve(&names(devices), None, &gpus()).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
            assert!(error.starts_with(&format!("device `{}`", devices[devices.len() - 1])), "{error}");
        }
    }

    #[test]
    fn resolve_cores_never_selects_a_gpu() {
        let select = |devices: &[&str]| resolve_cores(&names(devices), "it is computed on the CPU", &gpus());
        assert_eq!(select(&[]).unwrap(), SelectedDevices::AllCores);
        assert_eq!(select(&["auto"]).unwrap(), SelectedDevices::AllCores);
        assert_eq!(select(&["cpu:2"]).unwrap(), SelectedDevices::Cpu(vec![DeviceSpec::Cores(vec![2])]));
        assert_eq!(select(&["cuda:0"]).unwrap_err().to_string(), "device `cuda:0`: it is computed on the CPU");
    }
}
