//! Beam's messages in the JSON form of protocol buffers.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor};

/// A message that Beam's model declares.
pub(super) trait Named: Message + Default {
    /// Its full name.
    const NAME: &'static str;
}

impl Named for purlin_proto::pipeline::Pipeline {
    const NAME: &'static str = "org.apache.beam.model.pipeline.v1.Pipeline";
}

impl Named for purlin_proto::job_management::GetJobMetricsResponse {
    const NAME: &'static str = "org.apache.beam.model.job_management.v1.GetJobMetricsResponse";
}

impl Named for prost_types::Struct {
    const NAME: &'static str = "google.protobuf.Struct";
}

/// Why a message could not be written or read.
#[derive(Debug, thiserror::Error)]
#[error("{name} in JSON: {reason}")]
pub(crate) struct JsonError {
    name: &'static str,
    reason: String,
}

fn failed<M: Named>(reason: impl ToString) -> JsonError {
    JsonError {
        name: M::NAME,
        reason: reason.to_string(),
    }
}

fn descriptor<M: Named>() -> Result<MessageDescriptor, JsonError> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(purlin_proto::FILE_DESCRIPTOR_SET).ok());
    let found = pool.as_ref().and_then(|pool| pool.get_message_by_name(M::NAME));
    found.ok_or_else(|| failed::<M>("the model does not declare it"))
}

/// A message as JSON.
pub(super) fn to_json<M: Named>(message: &M) -> Result<Vec<u8>, JsonError> {
    let dynamic =
        DynamicMessage::decode(descriptor::<M>()?, &*message.encode_to_vec()).map_err(failed::<M>)?;
    serde_json::to_vec(&dynamic).map_err(failed::<M>)
}

/// A message out of JSON. Fields that the model does not declare are an error of the sender's version, and are passed over.
pub(super) fn from_json<M: Named>(json: &str) -> Result<M, JsonError> {
    let mut reader = serde_json::Deserializer::from_str(json);
    let options = prost_reflect::DeserializeOptions::new().deny_unknown_fields(false);
    let dynamic = DynamicMessage::deserialize_with_options(descriptor::<M>()?, &mut reader, &options)
        .map_err(failed::<M>)?;
    M::decode(&*dynamic.encode_to_vec()).map_err(failed::<M>)
}

#[cfg(test)]
mod tests {
    use purlin_proto::job_management::GetJobMetricsResponse;
    use purlin_proto::pipeline::Pipeline;

    use super::*;

    #[test]
    fn a_pipeline_is_the_same_after_a_way_through_json() {
        let pipeline =
            Pipeline::decode(&include_bytes!("../../../../runner/tests/data/wordcount.pb")[..]).unwrap();
        let json = String::from_utf8(to_json(&pipeline).unwrap()).unwrap();
        assert!(json.contains(r#""rootTransformIds""#), "{}", &json[..200]);
        assert_eq!(from_json::<Pipeline>(&json).unwrap(), pipeline);
    }

    #[test]
    fn metrics_are_read_as_flink_gives_them() {
        let json = r#"{"metrics": {"attempted": [{"urn": "beam:metric:user:sum_int64:v1", "type": "beam:metrics:sum_int64:v1",
            "payload": "ZA==", "labels": {"NAME": "seen"}, "newer": 1}]}}"#;
        let metrics = from_json::<GetJobMetricsResponse>(json).unwrap().metrics.unwrap();
        assert_eq!(
            (
                &*metrics.attempted[0].payload,
                &*metrics.attempted[0].labels["NAME"]
            ),
            (&b"d"[..], "seen")
        );
        assert!(
            from_json::<GetJobMetricsResponse>("[")
                .unwrap_err()
                .to_string()
                .contains("GetJobMetricsResponse")
        );
    }
}
