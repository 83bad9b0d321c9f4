//! What a harness reads from a bundle descriptor.

use std::sync::Arc;

use prost::Message;
use purlin_proto::fn_execution::{ProcessBundleDescriptor, RemoteGrpcPort};
use purlin_proto::pipeline::{ApiServiceDescriptor, ParDoPayload};
use purlin_proto::urns::{runner_transforms, transforms};

/// A stage: its descriptor, and where its bundles' data come from and go to.
#[derive(Debug)]
pub(super) struct Stage {
    pub descriptor: Arc<ProcessBundleDescriptor>,
    /// Data sources by transform id, and their data service.
    pub sources: Vec<(String, String)>,
    /// Data sinks by transform id, and their data service.
    pub sinks: Vec<(String, String)>,
    /// Timer families as (transform id, family id), and their data service.
    pub timers: Vec<((String, String), String)>,
    /// The state service.
    pub state: Option<String>,
}

fn address(descriptor: Option<&ApiServiceDescriptor>) -> Option<String> {
    descriptor.map(|d| d.url.clone()).filter(|url| !url.is_empty())
}

impl Stage {
    /// # Errors
    /// What the descriptor lacks.
    pub fn new(descriptor: ProcessBundleDescriptor) -> Result<Stage, String> {
        let mut stage = Stage {
            sources: Vec::new(),
            sinks: Vec::new(),
            timers: Vec::new(),
            state: address(descriptor.state_api_service_descriptor.as_ref()),
            descriptor: Arc::default(),
        };
        let timer_service = address(descriptor.timer_api_service_descriptor.as_ref());
        for (id, transform) in &descriptor.transforms {
            let Some(spec) = &transform.spec else { continue };
            let name = &transform.unique_name;
            match spec.urn.as_str() {
                urn @ (runner_transforms::DATA_SOURCE | runner_transforms::DATA_SINK) => {
                    let port = RemoteGrpcPort::decode(spec.payload.clone())
                        .map_err(|e| format!("transform \"{name}\": its data port cannot be read: {e}"))?;
                    let Some(service) = address(port.api_service_descriptor.as_ref()) else {
                        return Err(format!(
                            "transform \"{name}\": the runner names no data service for it"
                        ));
                    };
                    let ends = if urn == runner_transforms::DATA_SOURCE {
                        &mut stage.sources
                    } else {
                        &mut stage.sinks
                    };
                    ends.push((id.clone(), service));
                }
                transforms::PAR_DO => {
                    let payload = ParDoPayload::decode(spec.payload.clone())
                        .map_err(|e| format!("transform \"{name}\": its payload cannot be read: {e}"))?;
                    for family in payload.timer_family_specs.into_keys() {
                        let Some(service) = timer_service.clone() else {
                            return Err(format!(
                                "transform \"{name}\": the runner names no timer service for it"
                            ));
                        };
                        stage.timers.push(((id.clone(), family), service));
                    }
                }
                _ => {}
            }
        }
        stage.sources.sort();
        stage.sinks.sort();
        stage.timers.sort();
        stage.descriptor = Arc::new(descriptor);
        Ok(stage)
    }

    /// The data services of the stage, each once.
    pub fn data_services(&self) -> Vec<&str> {
        let ends = self
            .sources
            .iter()
            .chain(&self.sinks)
            .map(|(_, service)| service.as_str());
        let mut all: Vec<&str> = ends
            .chain(self.timers.iter().map(|(_, service)| service.as_str()))
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }
}
