//! The device to compute on. Everything that depends on how the program was built is in this file.

use std::fmt;
use std::str::FromStr;

use burn::tensor::Device;

use crate::error::{Error, Result};
use crate::ops::{Compute, is_cpu};

/// What the user requested.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// CUDA when built with it and present, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The CUDA device of this index.
    Cuda(usize),
    /// The default adapter of Vulkan, for tests of the kernels.
    Wgpu,
}

/// An opened device, and why it was chosen.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The device; gradients are not yet enabled on it.
    pub device: Device,
    /// Its name and the reason, for people.
    pub reason: String,
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            "wgpu" => Ok(Self::Wgpu),
            _ => text
                .strip_prefix("cuda:")
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| format!("expected auto, cpu, cuda, cuda:N or wgpu, found {text:?}")),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = String;

    fn try_from(text: String) -> std::result::Result<Self, String> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

impl fmt::Display for DeviceChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
            Self::Wgpu => f.write_str("wgpu"),
        }
    }
}

/// Opens the device.
///
/// # Errors
/// [`Error::Device`] when CUDA is asked for and the program was built without it, or there is no such device.
/// There is no silent fallback to another device.
pub fn open(choice: DeviceChoice) -> Result<Chosen> {
    let cpu = |why: &str| Chosen { device: Device::flex(), reason: format!("cpu ({why})") };
    match (choice, cuda_devices()) {
        (DeviceChoice::Cpu, _) => Ok(cpu("requested")),
        (DeviceChoice::Auto, None) => Ok(cpu("this program was built without the feature `cuda`")),
        (DeviceChoice::Auto, Some(devices)) => Ok(match devices.into_iter().next() {
            Some(device) => Chosen { device, reason: "cuda:0 (the first CUDA device found)".into() },
            None => cpu("no CUDA device was found"),
        }),
        (DeviceChoice::Wgpu, _) => wgpu(),
        (DeviceChoice::Cuda(index), None) => Err(Error::Device(format!(
            "cannot use cuda:{index}: this program was built without the feature `cuda`; build it with \
             `cargo build --release --features cuda`, or use --device cpu"
        ))),
        (DeviceChoice::Cuda(index), Some(devices)) => {
            let found = devices.len();
            match devices.into_iter().nth(index) {
                Some(device) => Ok(Chosen { device, reason: format!("cuda:{index} (requested)") }),
                None => Err(Error::Device(format!(
                    "cannot use cuda:{index}: {found} CUDA devices found; is the driver installed \
                     (nvidia-smi)? --device cpu works everywhere"
                ))),
            }
        }
    }
}

/// Whether a device can compute a model in this type with heads of this width.
///
/// # Errors
/// [`Error::Config`] when it cannot.
pub fn check(device: &Device, compute: Compute, head_dim: usize) -> Result<()> {
    let is_cpu = is_cpu(device);
    let mut problems = Vec::new();
    // The kernels of the CPU are for f32, and bf16 would be slower there.
    if compute == Compute::Bf16 && (is_cpu || !device.supports_dtype(compute.dtype())) {
        let why = if is_cpu { "the CPU computes in f32" } else { "this device has no bf16" };
        problems.push(format!("precision.compute = \"bf16\": {why}; add --set precision.compute=f32"));
    }
    let widest = moe_kernels::attention::MAX_HEAD_DIM;
    if !is_cpu && head_dim > widest {
        problems.push(format!(
            "attention has heads of {head_dim} channels, and a GPU supports at most {widest}: use more heads, or set \
             attention.head_dim"
        ));
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::Config(problems)) }
}

/// Bytes of memory that this process may use: the machine's memory, or less by its control group or limits.
/// Absent where the system does not report it.
pub fn memory_limit() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let machine = bytes_of_machine(&read("/proc/meminfo"));
    let group = ["/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"]
        .map(|path| read(path).trim().parse().ok());
    let process = bytes_of_address_space(&read("/proc/self/limits"));
    [machine, process].into_iter().chain(group).flatten().min()
}

/// `MemTotal:       16384 kB` of `/proc/meminfo`.
fn bytes_of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// `Max address space         SOFT      HARD      bytes` of `/proc/self/limits`.
fn bytes_of_address_space(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max address space"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(feature = "wgpu")]
fn wgpu() -> Result<Chosen> {
    let device = Device::wgpu(burn::tensor::DeviceKind::DefaultDevice);
    Ok(Chosen { device, reason: "wgpu (requested; the default adapter)".into() })
}

#[cfg(not(feature = "wgpu"))]
fn wgpu() -> Result<Chosen> {
    Err(Error::Device(
        "cannot use wgpu: this program was built without the feature `wgpu`; build it with \
         `cargo build --release --features wgpu`, or use --device cpu"
            .into(),
    ))
}

/// The CUDA devices, or `None` when built without CUDA. Listing does not touch a missing driver, unlike
/// opening a device by index.
#[cfg(feature = "cuda")]
fn cuda_devices() -> Option<Vec<Device>> {
    Some(Device::enumerate(burn::tensor::DeviceType::Cuda).into_vec())
}

#[cfg(not(feature = "cuda"))]
fn cuda_devices() -> Option<Vec<Device>> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_devices() {
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
        assert_eq!("cuda:3".parse(), Ok(DeviceChoice::Cuda(3)));
        assert_eq!(DeviceChoice::Cuda(3).to_string(), "cuda:3");
        assert_eq!("wgpu".parse(), Ok(DeviceChoice::Wgpu));
        assert!("gpu".parse::<DeviceChoice>().is_err());
    }

    #[test]
    fn limits_of_memory_are_read() {
        assert_eq!(bytes_of_machine("MemTotal:       2048 kB\nMemFree: 1 kB\n"), Some(2 << 20));
        let limits = |soft: &str| {
            format!("Limit  Soft Limit  Hard Limit\nMax address space   {soft}   unlimited  bytes\n")
        };
        assert_eq!(bytes_of_address_space(&limits("4096")), Some(4096));
        assert_eq!(bytes_of_address_space(&limits("unlimited")), None);
        assert_eq!((bytes_of_machine(""), bytes_of_address_space("")), (None, None));
    }
}
