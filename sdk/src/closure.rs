//! How user code is named in a pipeline, so that a worker that built the same pipeline finds it again.

use prost::Message;
use purlin_proto::pipeline::FunctionSpec;

/// URN of a DoFn that is found by its path.
pub const CLOSURE_DO_FN: &str = "purlin:dofn:closure:v1";
/// URN of a CombineFn that is found by its path.
pub const CLOSURE_COMBINE_FN: &str = "purlin:combinefn:closure:v1";

/// How user code is found again by a worker that built the same pipeline.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct ClosurePayload {
    /// Full name of the transform at construction; runners may rename transforms.
    #[prost(string, tag = "1")]
    pub path: String,
    /// The Rust type of the code: tells a build that differs.
    #[prost(string, tag = "2")]
    pub type_name: String,
}

impl ClosurePayload {
    /// The spec that carries it.
    pub fn to_spec(&self, urn: &str) -> FunctionSpec {
        FunctionSpec {
            urn: urn.to_owned(),
            payload: self.encode_to_vec().into(),
        }
    }
}
