//! The devices of this machine.

use std::{ffi::c_char, fmt, fs, path::PathBuf};

use crate::{
    driver::Driver,
    driver_api::{Device, constant},
    error::{CudaError, Label, Result, Subject},
};

/// A device, as the driver describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GpuInfo {
    /// Its number, from 0. Only the devices of `CUDA_VISIBLE_DEVICES` have one.
    pub ordinal: u32,
    /// The product's name.
    pub name: String,
    /// Compute capability, major and minor.
    pub compute: (u32, u32),
    /// Memory in bytes.
    pub total_memory: u64,
    /// Number of multiprocessors.
    pub multiprocessors: u32,
    /// Its address on the PCI bus as Linux writes it, such as `0000:3b:00.0`. Empty if the driver does not name it.
    pub pci_bus_id: String,
}

impl fmt::Display for GpuInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cuda:{} ({})", self.ordinal, self.name)
    }
}

/// The devices of this machine. Empty without a driver or without devices: [`gpus_or_why`] gives the reason.
pub fn gpus() -> Vec<GpuInfo> {
    gpus_or_why().unwrap_or_default()
}

/// The devices of this machine, at least one.
///
/// # Errors
///
/// [`CudaError::NoDriver`], [`CudaError::OldDriver`], [`CudaError::NoDevice`] if the driver finds none, or the driver's
/// error for one of them.
pub fn gpus_or_why() -> Result<Vec<GpuInfo>> {
    let driver = Driver::get()?;
    match count(driver)? {
        0 => Err(CudaError::NoDevice { ordinal: 0, count: 0 }),
        count => (0..count).map(|ordinal| Ok(GpuInfo::read(driver, ordinal)?.0)).collect(),
    }
}

fn count(driver: &Driver) -> Result<u32> {
    let mut count = 0;
    // SAFETY: `count` is a place for the result.
    let status = unsafe { (driver.device_get_count)(&raw mut count) };
    driver.check("cuDeviceGetCount", status, Subject::Driver)?;
    Ok(count.unsigned_abs())
}

/// The driver's handle of a device.
pub(crate) fn device(driver: &Driver, ordinal: u32) -> Result<Device> {
    let count = count(driver)?;
    let Some(number) = i32::try_from(ordinal).ok().filter(|_| ordinal < count) else {
        return Err(CudaError::NoDevice { ordinal, count });
    };
    let mut device: Device = 0;
    // SAFETY: `device` is a place for the result.
    let status = unsafe { (driver.device_get)(&raw mut device, number) };
    let label = Label { ordinal, count, name: "", compute: (0, 0) };
    driver.check("cuDeviceGet", status, Subject::Device(label))?;
    Ok(device)
}

impl GpuInfo {
    /// Reads the driver's description of a device.
    pub(crate) fn read(driver: &Driver, ordinal: u32) -> Result<(Self, Device)> {
        let device = device(driver, ordinal)?;
        let label = Label { ordinal, count: ordinal + 1, name: "", compute: (0, 0) };
        let check = |call, status| driver.check(call, status, Subject::Device(label));
        let attribute = |which| {
            let mut value = 0;
            // SAFETY: `value` is a place for the result, `device` came from the driver.
            let status = unsafe { (driver.device_get_attribute)(&raw mut value, which, device) };
            check("cuDeviceGetAttribute", status)?;
            Ok::<u32, CudaError>(i32::unsigned_abs(value))
        };
        let mut name = [0; 256];
        // SAFETY: `name` has room for as many bytes as the call is given.
        let status = unsafe { (driver.device_get_name)(name.as_mut_ptr(), name.len() as i32, device) };
        check("cuDeviceGetName", status)?;
        let mut total_memory = 0;
        // SAFETY: `total_memory` is a place for the result.
        let status = unsafe { (driver.device_total_mem)(&raw mut total_memory, device) };
        check("cuDeviceTotalMem", status)?;
        let mut bus = [0; 64];
        // SAFETY: `bus` has room for as many bytes as the call is given.
        let status = unsafe { (driver.device_get_pci_bus_id)(bus.as_mut_ptr(), bus.len() as i32, device) };
        // The address only helps to choose cores: a device works without one.
        let pci_bus_id = if status == 0 { text(&bus).to_ascii_lowercase() } else { String::new() };
        let info = Self {
            ordinal,
            name: text(&name),
            compute: (attribute(constant::ATTRIBUTE_COMPUTE_MAJOR)?, attribute(constant::ATTRIBUTE_COMPUTE_MINOR)?),
            total_memory: total_memory as u64,
            multiprocessors: attribute(constant::ATTRIBUTE_MULTIPROCESSOR_COUNT)?,
            pci_bus_id,
        };
        Ok((info, device))
    }

    /// The cores that are nearest to the device, by number. `None` where the system does not list them.
    pub fn numa_cpus(&self) -> Option<Vec<usize>> {
        // The address becomes part of a path.
        let is_address = |byte: u8| byte.is_ascii_hexdigit() || byte == b':' || byte == b'.';
        if self.pci_bus_id.is_empty() || !self.pci_bus_id.bytes().all(is_address) {
            return None;
        }
        let path: PathBuf = ["/sys/bus/pci/devices", &self.pci_bus_id, "local_cpulist"].iter().collect();
        parse_cpu_list(&fs::read_to_string(path).ok()?)
    }
}

/// The text before the first zero.
fn text(bytes: &[c_char]) -> String {
    // `c_char` is signed on some architectures.
    let bytes: Vec<u8> = bytes.iter().map(|&byte| byte as u8).take_while(|&byte| byte != 0).collect();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Numbers of a list such as `0-3,8,10-11`. `None` if it is empty or not such a list.
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    /// No machine has more cores, so a damaged list cannot fill the memory.
    const MAX_CORE_NUMBER: usize = 1 << 16;
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if last >= MAX_CORE_NUMBER {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus).filter(|cpus| !cpus.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists_have_ranges_and_numbers() {
        let cases = [
            ("0-3\n", Some(vec![0, 1, 2, 3])),
            ("0-1,8,10-11", Some(vec![0, 1, 8, 10, 11])),
            ("5", Some(vec![5])),
            ("", None),
            ("a-b", None),
            ("0-99999999999", None),
        ];
        for (list, expected) in cases {
            assert_eq!(parse_cpu_list(list), expected, "{list:?}");
        }
    }

    #[test]
    fn device_without_an_address_has_no_near_cores() {
        for pci_bus_id in ["", "../..", "ffff:ff:1f.7"] {
            let info = GpuInfo {
                ordinal: 0,
                name: String::new(),
                compute: (8, 0),
                total_memory: 0,
                multiprocessors: 1,
                pci_bus_id: pci_bus_id.to_owned(),
            };
            assert_eq!(info.numa_cpus(), None, "{pci_bus_id:?}");
        }
    }
}
