//! The services of the Fn API, for all workers of the process. Workers are told apart by `worker_id` metadata.

use std::sync::Arc;

use purlin_proto::fn_execution::provision_service_server;
use purlin_proto::fn_execution::{self as fnapi, beam_fn_control_server, beam_fn_data_server};
use purlin_proto::fn_execution::{
    beam_fn_logging_server, beam_fn_state_server, beam_fn_worker_status_server,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::{ReceiverStream, UnboundedReceiverStream};
use tonic::metadata::MetadataMap;
use tonic::{Code, Request, Response, Status, Streaming};

use super::Hub;
use super::link::{Link, Presence};
use super::window::Outbound;

/// The implementation behind every service of the server.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) hub: Arc<Hub>,
}

impl Services {
    /// The worker that a call comes from.
    fn caller(&self, metadata: &MetadataMap) -> Result<Arc<Link>, Status> {
        let id = metadata.get("worker_id").ok_or_else(|| {
            Status::invalid_argument("the call carries no worker_id metadata, so the worker cannot be told")
        })?;
        let id = id
            .to_str()
            .map_err(|_| Status::invalid_argument("the worker_id metadata is no text"))?;
        let link = self.hub.links.lock().get(id).cloned();
        link.ok_or_else(|| {
            Status::not_found(format!(
                "no worker {id:?} is expected here; it may have been stopped"
            ))
        })
    }
}

/// Why a stream ended, for the message of a lost worker.
fn end_of(stream: &str, end: Result<(), Status>) -> String {
    match end {
        Ok(()) => format!("it closed its {stream} stream"),
        Err(status) => format!("its {stream} stream broke: {}", status.message()),
    }
}

/// Reads a stream to its end, or to the worker's.
struct Inbound<T> {
    stream: Streaming<T>,
    presence: watch::Receiver<Presence>,
}

impl<T> Inbound<T> {
    fn new(link: &Link, request: Request<Streaming<T>>) -> Self {
        Self {
            stream: request.into_inner(),
            presence: link.presence(),
        }
    }

    async fn next(&mut self) -> Result<Option<T>, Status> {
        tokio::select! {
            biased;
            message = self.stream.message() => message,
            _ = self.presence.wait_for(Presence::is_over) => Ok(None),
        }
    }
}

#[tonic::async_trait]
impl beam_fn_control_server::BeamFnControl for Services {
    type ControlStream = UnboundedReceiverStream<Result<fnapi::InstructionRequest, Status>>;

    async fn control(
        &self,
        request: Request<Streaming<fnapi::InstructionResponse>>,
    ) -> Result<Response<Self::ControlStream>, Status> {
        let link = self.caller(request.metadata())?;
        let requests = link.attach_control()?;
        let mut inbound = Inbound::new(&link, request);
        tokio::spawn(async move {
            let end = loop {
                match inbound.next().await {
                    Ok(Some(response)) => link.on_response(response),
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            };
            link.stream_ended(&end_of("control", end)).await;
        });
        Ok(Response::new(UnboundedReceiverStream::new(requests)))
    }

    async fn get_process_bundle_descriptor(
        &self,
        request: Request<fnapi::GetProcessBundleDescriptorRequest>,
    ) -> Result<Response<fnapi::ProcessBundleDescriptor>, Status> {
        let link = self.caller(request.metadata())?;
        let id = request.into_inner().process_bundle_descriptor_id;
        let descriptor = link.descriptor(&id);
        let descriptor =
            descriptor.ok_or_else(|| Status::not_found(format!("no bundle descriptor {id:?}")))?;
        Ok(Response::new(Arc::unwrap_or_clone(descriptor)))
    }
}

#[tonic::async_trait]
impl beam_fn_data_server::BeamFnData for Services {
    type DataStream = Outbound;

    async fn data(
        &self,
        request: Request<Streaming<fnapi::Elements>>,
    ) -> Result<Response<Self::DataStream>, Status> {
        let link = self.caller(request.metadata())?;
        let outbound = link.attach_data()?;
        let mut inbound = Inbound::new(&link, request);
        tokio::spawn(async move {
            // Nothing else is awaited: a worker whose data were not read could not read ours, and both would stand still.
            let end = loop {
                match inbound.next().await {
                    Ok(Some(elements)) => link.on_elements(elements),
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            };
            link.stream_ended(&end_of("data", end)).await;
        });
        Ok(Response::new(outbound))
    }
}

#[tonic::async_trait]
impl beam_fn_state_server::BeamFnState for Services {
    type StateStream = ReceiverStream<Result<fnapi::StateResponse, Status>>;

    async fn state(
        &self,
        request: Request<Streaming<fnapi::StateRequest>>,
    ) -> Result<Response<Self::StateStream>, Status> {
        let link = self.caller(request.metadata())?;
        let (answers, outbound) = link.attach_state()?;
        let counted = link.attach()?;
        let mut inbound = Inbound::new(&link, request);
        tokio::spawn(async move {
            let _counted = counted;
            loop {
                match inbound.next().await {
                    Ok(Some(request)) => link.on_state(request, &answers).await,
                    Ok(None) => break,
                    Err(status) => {
                        link.stream_ended(&end_of("state", Err(status))).await;
                        break;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

#[tonic::async_trait]
impl beam_fn_logging_server::BeamFnLogging for Services {
    type LoggingStream = ReceiverStream<Result<fnapi::LogControl, Status>>;

    async fn logging(
        &self,
        request: Request<Streaming<fnapi::log_entry::List>>,
    ) -> Result<Response<Self::LoggingStream>, Status> {
        let link = self.caller(request.metadata())?;
        let counted = link.attach()?;
        let hub = self.hub.clone();
        let mut inbound = request.into_inner();
        // Nothing is ever sent, but the stream must end with the worker's: a harness awaits that before it exits.
        let (open, controls) = mpsc::channel(1);
        tokio::spawn(async move {
            let _held = (open, counted);
            // A worker's last words matter: this stream is read to its own end, not to the worker's.
            loop {
                match inbound.message().await {
                    Ok(Some(list)) => {
                        for entry in list.log_entries {
                            link.on_log(&entry);
                            hub.log.log(&link.identity(), &entry);
                        }
                    }
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        let text = format!(
                            "what worker {} logs is not taken: {}",
                            link.name(),
                            status.message()
                        );
                        return hub.warn(&link.identity(), text);
                    }
                    Ok(None) | Err(_) => return,
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(controls)))
    }
}

#[tonic::async_trait]
impl beam_fn_worker_status_server::BeamFnWorkerStatus for Services {
    type WorkerStatusStream = UnboundedReceiverStream<Result<fnapi::WorkerStatusRequest, Status>>;

    async fn worker_status(
        &self,
        request: Request<Streaming<fnapi::WorkerStatusResponse>>,
    ) -> Result<Response<Self::WorkerStatusStream>, Status> {
        let link = self.caller(request.metadata())?;
        let questions = link.attach_status()?;
        let counted = link.attach()?;
        let mut inbound = Inbound::new(&link, request);
        tokio::spawn(async move {
            let _counted = counted;
            // A worker without this stream is none the worse for it.
            while let Ok(Some(answer)) = inbound.next().await {
                link.status.answered(answer);
            }
        });
        Ok(Response::new(UnboundedReceiverStream::new(questions)))
    }
}

#[tonic::async_trait]
impl provision_service_server::ProvisionService for Services {
    async fn get_provision_info(
        &self,
        request: Request<fnapi::GetProvisionInfoRequest>,
    ) -> Result<Response<fnapi::GetProvisionInfoResponse>, Status> {
        let link = self.caller(request.metadata())?;
        Ok(Response::new(fnapi::GetProvisionInfoResponse {
            info: Some(link.provision.clone()),
        }))
    }
}
