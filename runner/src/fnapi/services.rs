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

use super::Connections;
use super::connection::WorkerConnection;
use super::presence::Presence;
use super::window::Outbound;

/// The implementation behind every service of the server.
#[derive(Clone)]
pub(crate) struct Services {
    pub(crate) connections: Arc<Connections>,
}

impl Services {
    /// The worker that a call comes from.
    fn caller(&self, metadata: &MetadataMap) -> Result<Arc<WorkerConnection>, Status> {
        let id = metadata.get("worker_id").ok_or_else(|| {
            Status::invalid_argument("the call carries no worker_id metadata, so the worker cannot be told")
        })?;
        let id = id
            .to_str()
            .map_err(|_| Status::invalid_argument("the worker_id metadata is no text"))?;
        let connection = self.connections.workers.lock().get(id).cloned();
        connection.ok_or_else(|| {
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
    fn new(connection: &WorkerConnection, request: Request<Streaming<T>>) -> Self {
        Self {
            stream: request.into_inner(),
            presence: connection.presence(),
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
        let connection = self.caller(request.metadata())?;
        let requests = connection.attach_control()?;
        let mut inbound = Inbound::new(&connection, request);
        tokio::spawn(async move {
            let end = loop {
                match inbound.next().await {
                    Ok(Some(response)) => connection.on_response(response),
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            };
            connection.stream_ended(&end_of("control", end)).await;
        });
        Ok(Response::new(UnboundedReceiverStream::new(requests)))
    }

    async fn get_process_bundle_descriptor(
        &self,
        request: Request<fnapi::GetProcessBundleDescriptorRequest>,
    ) -> Result<Response<fnapi::ProcessBundleDescriptor>, Status> {
        let connection = self.caller(request.metadata())?;
        let id = request.into_inner().process_bundle_descriptor_id;
        let descriptor = connection.descriptor(&id);
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
        let connection = self.caller(request.metadata())?;
        let outbound = connection.attach_data()?;
        let mut inbound = Inbound::new(&connection, request);
        tokio::spawn(async move {
            // Nothing else is awaited: a worker whose data were not read could not read ours, and both would stand still.
            let end = loop {
                match inbound.next().await {
                    Ok(Some(elements)) => connection.on_elements(elements),
                    Ok(None) => break Ok(()),
                    Err(status) => break Err(status),
                }
            };
            connection.stream_ended(&end_of("data", end)).await;
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
        let connection = self.caller(request.metadata())?;
        let (answers, outbound) = connection.attach_state()?;
        let counted = connection.attach()?;
        let mut inbound = Inbound::new(&connection, request);
        tokio::spawn(async move {
            let _counted = counted;
            loop {
                match inbound.next().await {
                    Ok(Some(request)) => connection.on_state(request, &answers).await,
                    Ok(None) => break,
                    Err(status) => {
                        connection.stream_ended(&end_of("state", Err(status))).await;
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
        let connection = self.caller(request.metadata())?;
        let counted = connection.attach()?;
        let connections = self.connections.clone();
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
                            connection.on_log(&entry);
                            connections.log.log(&connection.identity(), &entry);
                        }
                    }
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        let text = format!(
                            "what worker {} logs is not taken: {}",
                            connection.name(),
                            status.message()
                        );
                        return connections.warn(&connection.identity(), text);
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
        let connection = self.caller(request.metadata())?;
        let questions = connection.attach_status()?;
        let counted = connection.attach()?;
        let mut inbound = Inbound::new(&connection, request);
        tokio::spawn(async move {
            let _counted = counted;
            // A worker without this stream is none the worse for it.
            while let Ok(Some(answer)) = inbound.next().await {
                connection.status.answered(answer);
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
        let connection = self.caller(request.metadata())?;
        Ok(Response::new(fnapi::GetProvisionInfoResponse {
            info: Some(connection.provision.clone()),
        }))
    }
}
