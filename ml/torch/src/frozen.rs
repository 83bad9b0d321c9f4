//! A tensor that is never written again, so that many threads may read it at once.

use std::ops::Deref;

use tch::Tensor;

/// A read-only tensor that threads share.
///
/// tch marks tensors `Send` but not `Sync`, since its in-place operations take `&self` in places. libtorch itself allows any number
/// of threads to read one tensor; this wrapper hands out shared references only, and this crate applies no in-place operation to
/// what it wraps.
#[derive(Debug)]
pub(crate) struct Frozen(Tensor);

// SAFETY: libtorch's reference counts are atomic and reading operations on a shared tensor do not change it. A `Frozen` is made once,
// detached from autograd, and only read after that.
#[allow(unsafe_code)]
unsafe impl Sync for Frozen {}

impl Frozen {
    pub(crate) fn new(tensor: Tensor) -> Frozen {
        Frozen(tensor)
    }
}

impl Deref for Frozen {
    type Target = Tensor;

    fn deref(&self) -> &Tensor {
        &self.0
    }
}
