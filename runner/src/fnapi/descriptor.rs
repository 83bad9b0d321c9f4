//! Puts the server's address into a bundle descriptor.

use prost::Message;
use purlin_proto::{fn_execution as fnapi, pipeline, urns};

/// The descriptor with state and timers served at `url`, and every data source and sink connected to it.
pub(crate) fn with_endpoint(
    given: &fnapi::ProcessBundleDescriptor,
    url: &str,
) -> fnapi::ProcessBundleDescriptor {
    let endpoint = pipeline::ApiServiceDescriptor {
        url: url.to_owned(),
        authentication: None,
    };
    let mut served = given.clone();
    served.state_api_service_descriptor = Some(endpoint.clone());
    served.timer_api_service_descriptor = Some(endpoint.clone());
    for transform in served.transforms.values_mut() {
        let Some(spec) = &mut transform.spec else { continue };
        if spec.urn != urns::runner_transforms::DATA_SOURCE && spec.urn != urns::runner_transforms::DATA_SINK
        {
            continue;
        }
        // Made by translation; a payload that is none keeps its coder unknown, and the SDK says so.
        let mut port = fnapi::RemoteGrpcPort::decode(spec.payload.clone()).unwrap_or_default();
        port.api_service_descriptor = Some(endpoint.clone());
        spec.payload = port.encode_to_vec().into();
    }
    served
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_and_sinks_get_the_address_and_keep_their_coder() {
        let port = fnapi::RemoteGrpcPort {
            coder_id: "c".into(),
            ..Default::default()
        };
        let spec = |urn: &str| pipeline::PTransform {
            spec: Some(pipeline::FunctionSpec {
                urn: urn.into(),
                payload: port.encode_to_vec().into(),
            }),
            ..Default::default()
        };
        let given = fnapi::ProcessBundleDescriptor {
            transforms: [
                ("in".to_owned(), spec(urns::runner_transforms::DATA_SOURCE)),
                ("do".to_owned(), spec(urns::transforms::PAR_DO)),
            ]
            .into(),
            ..Default::default()
        };
        let served = with_endpoint(&given, "h:1");
        let read = |id: &str| {
            let spec = served.transforms[id].spec.clone().unwrap();
            fnapi::RemoteGrpcPort::decode(spec.payload).unwrap()
        };
        assert_eq!(read("in").api_service_descriptor.unwrap().url, "h:1");
        assert_eq!(read("in").coder_id, "c");
        assert_eq!(read("do").api_service_descriptor, None);
        assert_eq!(served.state_api_service_descriptor.unwrap().url, "h:1");
    }
}
