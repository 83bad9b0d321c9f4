//! The expansion service: which transforms other SDKs can use by URN.

use purlin_proto::expansion::{self as api, expansion_service_server::ExpansionService};
use tonic::{Request, Response, Status};

/// Expands what is registered in this build, which is nothing yet; says so.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Expansion;

#[tonic::async_trait]
impl ExpansionService for Expansion {
    async fn expand(
        &self,
        request: Request<api::ExpansionRequest>,
    ) -> Result<Response<api::ExpansionResponse>, Status> {
        let transform = request.into_inner().transform.unwrap_or_default();
        let urn = transform.spec.map(|spec| spec.urn).unwrap_or_default();
        let error = format!(
            "transform {:?} has URN {urn:?}, which this expansion service cannot expand: no transform is registered \
             with it. Use the expansion service of the SDK that the transform comes from",
            transform.unique_name
        );
        Ok(Response::new(api::ExpansionResponse {
            error,
            ..Default::default()
        }))
    }

    async fn discover_schema_transform(
        &self,
        _: Request<api::DiscoverSchemaTransformRequest>,
    ) -> Result<Response<api::DiscoverSchemaTransformResponse>, Status> {
        // True: there are none.
        Ok(Response::new(api::DiscoverSchemaTransformResponse::default()))
    }
}
