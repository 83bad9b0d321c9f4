//! `beam:transform:impulse:v1`.

use purlin_proto::urns::transforms;

use crate::pipeline::{PBegin, PCollection, PTransform};
use crate::windowing::Windowing;

/// One element, an empty byte string, to start from.
///
/// ```
/// use purlin::prelude::*;
///
/// let p = Pipeline::new();
/// let numbers = p.apply(Impulse).flat_map("Numbers", |_| 0..10i64);
/// # p.build().unwrap();
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct Impulse;

impl PTransform<PBegin> for Impulse {
    type Output = PCollection<Vec<u8>>;

    fn name(&self) -> String {
        "Impulse".into()
    }

    fn expand(self, input: PBegin) -> PCollection<Vec<u8>> {
        input.pipeline().set_spec(transforms::IMPULSE, Vec::new());
        input.pipeline().new_collection("out", Windowing::global(), true)
    }
}
