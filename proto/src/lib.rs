//! Beam's wire contract: generated messages, services and URN constants.
//!
//! The `.proto` files lie under `protos/`; `build.rs` compiles them. One module per package of the model:
//! [`pipeline`], [`fn_execution`], [`job_management`], [`expansion`] and [`interactive`]. Every `bytes` field
//! is a [`bytes::Bytes`]; well-known types are those of [`prost_types`]. No logic lives here.
//!
//! A URN is written once, in the option of the enum value that names it; [`urns`] is generated from there:
//!
//! ```text
//! urns::transforms::PAR_DO    beam:transform:pardo:v1
//! urns::coders::KV            beam:coder:kv:v1
//! urns::metrics::ELEMENT_COUNT  beam:metric:element_count:v1
//! ```
#![forbid(unsafe_code)]
// What a client, a worker or a file says is answered with an error, never with a panic; and programs say what they have to say in
// their logs.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

#[allow(missing_docs, rustdoc::all, clippy::all, clippy::pedantic, clippy::nursery)]
mod model {
    include!(concat!(env!("OUT_DIR"), "/model.rs"));
}

mod generated {
    use crate::MetricSpec;
    include!(concat!(env!("OUT_DIR"), "/urns.rs"));
}

pub use generated::{METRIC_SPECS, constants, urns};
pub use model::org::apache::beam::model::expansion::v1 as expansion;
pub use model::org::apache::beam::model::fn_execution::v1 as fn_execution;
pub use model::org::apache::beam::model::interactive::v1 as interactive;
pub use model::org::apache::beam::model::job_management::v1 as job_management;
pub use model::org::apache::beam::model::pipeline::v1 as pipeline;

/// The compiled `.proto` files, imports included, as the bytes of a `google.protobuf.FileDescriptorSet`
/// (with the options that carry the URNs, without comments).
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/model.bin"));

/// What the model says of one metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MetricSpec {
    /// The metric's URN, one of [`urns::metrics`].
    pub urn: &'static str,
    /// The URN of its payload's encoding, one of [`urns::metric_types`].
    pub type_urn: &'static str,
    /// The labels that a `MonitoringInfo` of this metric must carry, as in [`urns::metric_labels`].
    pub required_labels: &'static [&'static str],
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn well_known_urns_have_their_values() {
        assert_eq!(urns::transforms::PAR_DO, "beam:transform:pardo:v1");
        assert_eq!(urns::transforms::ASSIGN_WINDOWS, "beam:transform:window_into:v1");
        assert_eq!(urns::coders::KV, "beam:coder:kv:v1");
        assert_eq!(urns::window_fns::FIXED_WINDOWS, "beam:window_fn:fixed_windows:v1");
        assert_eq!(urns::runner_transforms::DATA_SOURCE, "beam:runner:source:v1");
        assert_eq!(urns::metrics::ELEMENT_COUNT, "beam:metric:element_count:v1");
        assert_eq!(
            constants::beam_constants::MAX_TIMESTAMP_MILLIS,
            "9223372036854775"
        );
    }

    #[test]
    fn every_metric_has_a_known_type_and_known_labels() {
        for spec in METRIC_SPECS {
            assert!(urns::metric_types::ALL.contains(&spec.type_urn), "{spec:?}");
            for label in spec.required_labels {
                assert!(urns::metric_labels::ALL.contains(label), "{label} of {spec:?}");
            }
        }
        assert_eq!(METRIC_SPECS.len(), urns::metrics::ALL.len());
    }

    #[test]
    fn the_descriptor_set_holds_every_file_with_its_imports() {
        let set = <prost_types::FileDescriptorSet as prost::Message>::decode(FILE_DESCRIPTOR_SET).unwrap();
        let names: Vec<&str> = set.file.iter().map(|f| f.name()).collect();
        assert_eq!(
            names
                .iter()
                .filter(|n| n.starts_with("org/apache/beam/model/"))
                .count(),
            12,
            "{names:?}"
        );
        for file in &set.file {
            for import in &file.dependency {
                assert!(
                    names.contains(&import.as_str()),
                    "{} imports {import}",
                    file.name()
                );
            }
        }
    }
}
