//! The protocol over HTTP.

use bytes::Bytes;
use purlin::BoxError;

use super::batch::{alike, join, split};
use super::json::{InferRequest, InferResponse, Input, Wanted};
use super::spec::{Metadata, ServedModel};
use super::{KServe, Names, key};
use crate::client::{Http, to_json};
use crate::failure::{Failure, FailureKind};
use crate::protocol::Protocol;
use crate::tensor::TensorRow;

/// Where a model is, on its server.
fn path<'a>(names: &'a Names, last: Option<&'a str>) -> Vec<&'a str> {
    let mut path = vec!["v2", "models", &names.model];
    if let Some(version) = &names.version {
        path.extend(["versions", version]);
    }
    path.extend(last);
    path
}

impl<E: TensorRow, I: TensorRow> Protocol for KServe<E, I> {
    type Example = E;
    type Inference = I;
    type Connected = ServedModel;
    type Request = Bytes;

    fn model(&self) -> String {
        self.names.model.clone()
    }

    fn key(&self) -> String {
        key::<E, I>("KServe", &self.names)
    }

    fn with_model(&self, id: &str) -> Result<Self, BoxError> {
        let mut other = self.clone();
        other.names = self.names.with_model(id)?;
        Ok(other)
    }

    fn rows_per_request(&self) -> usize {
        self.names.rows
    }

    async fn connect(&self, http: &Http) -> Result<ServedModel, Failure> {
        let ready = http.get(&path(&self.names, Some("ready"))).await;
        ready.map_err(|mut failure| {
            // Of a model that is not ready yet each server has a status of its own.
            if failure.kind.is_of_rows() {
                failure.kind = FailureKind::Unavailable;
            }
            failure.text = format!("the model is not ready: {}", failure.text);
            failure
        })?;
        let metadata: Metadata = http.get_json(&path(&self.names, None)).await?;
        let served = ServedModel::check::<E, I>(&self.names, metadata)?;
        Ok(served)
    }

    fn version(&self, connected: &ServedModel) -> Option<String> {
        connected.version.clone()
    }

    fn go_together(&self, served: &ServedModel, one: &E, other: &E) -> bool {
        !served.takes_one_row() && alike(one, other)
    }

    fn request(&self, served: &ServedModel, rows: &[&E]) -> Result<Bytes, BoxError> {
        let batch = join(served, rows)?;
        to_json(&InferRequest {
            inputs: batch.iter().map(Input::from).collect(),
            outputs: served.output.iter().map(|name| Wanted { name }).collect(),
        })
    }

    async fn send(
        &self,
        http: &Http,
        served: &ServedModel,
        request: &Bytes,
        rows: usize,
    ) -> Result<Vec<I>, Failure> {
        let answer = http
            .post(&path(&self.names, Some("infer")), request.clone())
            .await?;
        let response: InferResponse<'_> = http.parse(&answer)?;
        let outputs = response.tensors().map_err(Failure::garbled)?;
        split(served, outputs, rows).map_err(Failure::garbled)
    }
}
