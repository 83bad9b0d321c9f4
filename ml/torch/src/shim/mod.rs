//! What of libtorch tch does not reach (`shim.cpp`): oneDNN's fused convolutions, and packages compiled ahead of time.

#![allow(unsafe_code)]

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::ptr;
use std::sync::OnceLock;

use tch::{Kind, TchError, Tensor};
use torch_sys::C_tensor;

use crate::models::Activation;

unsafe extern "C" {
    fn purlin_torch_has_onednn() -> c_int;
    fn purlin_torch_pack_conv(
        weight: *const C_tensor,
        padding: *const i64,
        stride: *const i64,
        groups: i64,
        input_size: *const i64,
        error: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn purlin_torch_conv(
        x: *const C_tensor,
        weight: *const C_tensor,
        bias: *const C_tensor,
        padding: *const i64,
        stride: *const i64,
        groups: i64,
        activation: c_int,
        sum: *const C_tensor,
        error: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn purlin_torch_package_open(
        path: *const c_char,
        model: *const c_char,
        runners: usize,
        device: c_int,
        error: *mut *mut c_char,
    ) -> *mut c_void;
    fn purlin_torch_package_close(package: *mut c_void);
    fn purlin_torch_package_run(
        package: *mut c_void,
        inputs: *const *const C_tensor,
        count: usize,
        error: *mut *mut c_char,
    ) -> *mut C_tensor;
    fn purlin_torch_package_metadata(
        package: *mut c_void,
        key: *const c_char,
        error: *mut *mut c_char,
    ) -> *mut c_char;
}

/// Takes a string that C allocated.
fn take(text: *mut c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: the shim gives null or a string of strdup, which nobody else has.
    let taken = unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned();
    // SAFETY: as above; it is freed once.
    unsafe { libc::free(text.cast()) };
    Some(taken)
}

/// Calls a function of the shim, whose last argument takes its error.
fn checked<T>(call: impl FnOnce(*mut *mut c_char) -> T) -> Result<T, TchError> {
    let mut error = ptr::null_mut();
    let answer = call(&raw mut error);
    match take(error) {
        None => Ok(answer),
        Some(error) => Err(TchError::Torch(error)),
    }
}

fn tensor(call: impl FnOnce(*mut *mut c_char) -> *mut C_tensor) -> Result<Tensor, TchError> {
    let made = checked(call)?;
    if made.is_null() {
        return Err(TchError::Torch("libtorch gave no tensor".to_owned()));
    }
    // SAFETY: the shim gives a tensor of `new`, which nobody else has; tch deletes it.
    Ok(unsafe { Tensor::from_ptr(made) })
}

/// Whether this libtorch has oneDNN and may use it, and this processor can: tried once, on one pixel.
pub(crate) fn packs_convolutions() -> bool {
    static PACKS: OnceLock<bool> = OnceLock::new();
    let packs = || -> Result<(), TchError> {
        let blank = |shape: &[i64]| Tensor::f_zeros(shape, (Kind::Float, tch::Device::Cpu));
        let moves = Moves {
            stride: 1,
            padding: 0,
            groups: 1,
        };
        let weight = pack_conv(&blank(&[1, 1, 1, 1])?, moves, [1; 4])?;
        conv(
            &blank(&[1, 1, 1, 1])?,
            &weight,
            &blank(&[1])?,
            moves,
            Activation::None,
            None,
        )
        .map(drop)
    };
    // SAFETY: it reads two settings.
    *PACKS.get_or_init(|| unsafe { purlin_torch_has_onednn() != 0 } && packs().is_ok())
}

/// How a convolution moves over its input.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Moves {
    pub stride: i64,
    pub padding: i64,
    pub groups: i64,
}

/// A convolution's weight `[O, I, K, K]`, in fp32 or bf16 on the processor, in the order that oneDNN computes in; chosen for
/// inputs of the size `[N, C, H, W]`, and right for all.
pub(crate) fn pack_conv(weight: &Tensor, moves: Moves, input_size: [i64; 4]) -> Result<Tensor, TchError> {
    let (padding, stride) = ([moves.padding; 2], [moves.stride; 2]);
    // SAFETY: the tensor lives through the call, and the arrays are as long as the shim reads.
    tensor(|error| unsafe {
        purlin_torch_pack_conv(
            weight.as_ptr(),
            padding.as_ptr(),
            stride.as_ptr(),
            moves.groups,
            input_size.as_ptr(),
            error,
        )
    })
}

/// `activation(conv(x))`; with `sum`, `activation(conv(x) + sum)`, which is written into `sum`. The weight is packed.
pub(crate) fn conv(
    x: &Tensor,
    weight: &Tensor,
    bias: &Tensor,
    moves: Moves,
    activation: Activation,
    sum: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    let (padding, stride) = ([moves.padding; 2], [moves.stride; 2]);
    let activation = match activation {
        Activation::None => 0,
        Activation::Relu => 1,
        Activation::Relu6 => 2,
    };
    // SAFETY: the tensors live through the call, and the arrays are as long as the shim reads.
    tensor(|error| unsafe {
        purlin_torch_conv(
            x.as_ptr(),
            weight.as_ptr(),
            bias.as_ptr(),
            padding.as_ptr(),
            stride.as_ptr(),
            moves.groups,
            activation,
            sum.map_or(ptr::null(), Tensor::as_ptr),
            error,
        )
    })
}

/// A model that PyTorch compiled ahead of time (AOTInductor): a library, which is loaded and run.
#[derive(Debug)]
pub(crate) struct Package(*mut c_void);

// SAFETY: the loader keeps as many runners as it was opened with, gives each call one that is free, and waits for one under a lock.
unsafe impl Send for Package {}
// SAFETY: as above.
unsafe impl Sync for Package {}

impl Package {
    /// Opens a file; so many calls may run at once, others wait.
    pub(crate) fn open(path: &str, runners: usize, device: tch::Device) -> Result<Package, TchError> {
        let path =
            CString::new(path).map_err(|_| TchError::Torch("its path holds a zero byte".to_owned()))?;
        let index = match device {
            tch::Device::Cuda(index) => c_int::try_from(index).unwrap_or(0),
            _ => -1,
        };
        // SAFETY: the strings end with a zero and live through the call.
        let package = checked(|error| unsafe {
            purlin_torch_package_open(path.as_ptr(), c"model".as_ptr(), runners.max(1), index, error)
        })?;
        Ok(Package(package))
    }

    /// What the package says of itself under a key.
    pub(crate) fn metadata(&self, key: &CStr) -> Result<Option<String>, TchError> {
        // SAFETY: the package is open, and the key ends with a zero.
        checked(|error| unsafe { purlin_torch_package_metadata(self.0, key.as_ptr(), error) }).map(take)
    }

    /// The model's only output.
    pub(crate) fn run(&self, inputs: &[&Tensor]) -> Result<Tensor, TchError> {
        let inputs: Vec<*const C_tensor> = inputs.iter().map(|input| input.as_ptr()).collect();
        // SAFETY: the package is open, and the tensors live through the call.
        tensor(|error| unsafe { purlin_torch_package_run(self.0, inputs.as_ptr(), inputs.len(), error) })
    }
}

impl Drop for Package {
    fn drop(&mut self) {
        // SAFETY: it is open, and closed once.
        unsafe { purlin_torch_package_close(self.0) }
    }
}
