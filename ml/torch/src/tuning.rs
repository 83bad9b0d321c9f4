//! What makes inference fast that is not the model: the allocator, threads, the device and the precision.

use std::fmt;
use std::str::FromStr;

use tch::{Cuda, Kind};
use thiserror::Error;

/// Sets glibc's allocator for inference: memory is kept and used again, never handed back to the system.
///
/// Tensors of many megabytes come and go with every batch. glibc maps and unmaps each of them afresh by default, and the page faults
/// cost more than the arithmetic of a small network: this call makes inference 1.4 to 2.9 times as fast, for a resident set of
/// 0.6 to 1.3 GB. Call it first in `main`, before threads start. Returns false where the allocator refused a setting; elsewhere than
/// on glibc it does nothing and returns false.
pub fn tune_allocator() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[allow(unsafe_code)]
    {
        // SAFETY: mallopt has no preconditions; these parameters take any value.
        unsafe {
            libc::mallopt(libc::M_MMAP_MAX, 0) == 1
                && libc::mallopt(libc::M_TRIM_THRESHOLD, -1) == 1
                && libc::mallopt(libc::M_TOP_PAD, 64 << 20) == 1
        }
    }
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// Sets the number of threads that one inference call uses.
///
/// Threads times calls at once should not exceed the cores: OpenMP's threads spin, and collapse when cores are contended.
/// `OMP_NUM_THREADS` wins when it is set.
pub fn set_intra_op_threads(threads: usize) {
    if std::env::var_os("OMP_NUM_THREADS").is_none() {
        tch::set_num_threads(i32::try_from(threads.max(1)).unwrap_or(i32::MAX));
    }
}

/// Where a model runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Device {
    /// The processor.
    #[default]
    Cpu,
    /// The first CUDA device.
    Gpu,
}

/// `--device GPU` where libtorch sees no GPU.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// The libtorch that is linked has no CUDA.
    #[error(
        "device GPU was asked for, but this build's libtorch has no CUDA: use --device CPU, or build against a PyTorch 2.11 with \
         CUDA (set LIBTORCH to its folder)"
    )]
    NoCudaInLibtorch,
    /// libtorch has CUDA, but finds no usable GPU.
    #[error(
        "device GPU was asked for, but CUDA finds no GPU on this machine: use --device CPU, or check the driver with nvidia-smi"
    )]
    NoGpu,
}

impl Device {
    /// libtorch's device, or why it cannot be had.
    pub fn open(self) -> Result<tch::Device, DeviceError> {
        match self {
            Device::Cpu => Ok(tch::Device::Cpu),
            Device::Gpu if !tch::utils::has_cuda() => Err(DeviceError::NoCudaInLibtorch),
            Device::Gpu if !Cuda::is_available() || Cuda::device_count() < 1 => Err(DeviceError::NoGpu),
            Device::Gpu => Ok(tch::Device::Cuda(0)),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Device::Cpu => "CPU",
            Device::Gpu => "GPU",
        })
    }
}

impl FromStr for Device {
    type Err = UnknownChoice;

    /// `CPU` or `GPU`, in either case.
    fn from_str(text: &str) -> Result<Device, UnknownChoice> {
        match text.to_ascii_uppercase().as_str() {
            "CPU" => Ok(Device::Cpu),
            "GPU" => Ok(Device::Gpu),
            _ => Err(UnknownChoice::new("device", text, "CPU or GPU")),
        }
    }
}

/// A text that is none of the choices.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown {what} {given:?}: use {choices}")]
pub struct UnknownChoice {
    what: &'static str,
    given: String,
    choices: String,
}

impl UnknownChoice {
    pub(crate) fn new(what: &'static str, given: &str, choices: impl Into<String>) -> UnknownChoice {
        UnknownChoice {
            what,
            given: given.to_owned(),
            choices: choices.into(),
        }
    }
}

/// The number format that a model computes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    Fp32,
    /// 16-bit brain floats: faster where the processor has AMX or AVX512-BF16, and on GPUs.
    Bf16,
}

impl Precision {
    /// libtorch's name of it.
    pub fn kind(self) -> Kind {
        match self {
            Precision::Fp32 => Kind::Float,
            Precision::Bf16 => Kind::BFloat16,
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Precision::Fp32 => "fp32",
            Precision::Bf16 => "bf16",
        })
    }
}

impl FromStr for Precision {
    type Err = UnknownChoice;

    /// `fp32` or `bf16`.
    fn from_str(text: &str) -> Result<Precision, UnknownChoice> {
        match text.to_ascii_lowercase().as_str() {
            "fp32" => Ok(Precision::Fp32),
            "bf16" => Ok(Precision::Bf16),
            _ => Err(UnknownChoice::new("precision", text, "fp32 or bf16")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_read_back_as_they_print() {
        for device in [Device::Cpu, Device::Gpu] {
            assert_eq!(device.to_string().parse(), Ok(device));
        }
        for precision in [Precision::Fp32, Precision::Bf16] {
            assert_eq!(precision.to_string().parse(), Ok(precision));
        }
        let device = "TPU".parse::<Device>().unwrap_err();
        assert_eq!(device.to_string(), "unknown device \"TPU\": use CPU or GPU");
        let precision = "fp8".parse::<Precision>().unwrap_err();
        assert_eq!(
            precision.to_string(),
            "unknown precision \"fp8\": use fp32 or bf16"
        );
    }

    #[test]
    fn a_missing_gpu_is_an_error_with_a_remedy() {
        match Device::Gpu.open() {
            Ok(device) => assert!(device.is_cuda()),
            Err(error) => assert!(error.to_string().contains("--device CPU"), "{error}"),
        }
        assert_eq!(Device::Cpu.open(), Ok(tch::Device::Cpu));
    }

    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    #[test]
    fn glibc_takes_the_settings() {
        assert!(tune_allocator());
    }
}
