//! TestStreams whose events an endpoint of the user's serves.

use std::time::Duration;

use purlin_engine::Event;
use purlin_net::{Purpose, endpoint, root_cause};
use purlin_proto::interactive::EventsRequest;
use purlin_proto::interactive::test_stream_service_client::TestStreamServiceClient;
use tokio::sync::mpsc;

use super::actor::Input;
use crate::translate::RemoteStream;

/// How long the service may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(10);

/// Reads the events of a stream to their end.
pub(super) async fn serve(mut stream: RemoteStream, inputs: mpsc::UnboundedSender<Input>) {
    let transform = stream.transform;
    let last = match read(&mut stream, &inputs).await {
        Ok(()) => Input::Event(Event::TestStreamEvents {
            transform,
            events: Vec::new(),
            done: true,
        }),
        Err(error) => {
            let url = &stream.endpoint.url;
            Input::Fail(format!(
                "transform \"{}\": the TestStream service at {url}: {error}",
                stream.leaf.name()
            ))
        }
    };
    // A job that has ended wants no more.
    let _ = inputs.send(last);
}

async fn read(stream: &mut RemoteStream, inputs: &mpsc::UnboundedSender<Input>) -> Result<(), String> {
    let endpoint =
        endpoint(&stream.endpoint.url, Purpose::Calls, CONNECT).map_err(|error| error.to_string())?;
    let channel = endpoint.connect().await;
    let channel = channel.map_err(|error| format!("cannot be reached ({})", root_cause(&error)))?;
    let mut client = TestStreamServiceClient::new(channel);
    let request = EventsRequest {
        output_ids: stream.output_ids(),
    };
    let mut events = client
        .events(request)
        .await
        .map_err(|status| status.message().to_owned())?
        .into_inner();
    while let Some(event) = events
        .message()
        .await
        .map_err(|status| status.message().to_owned())?
    {
        let event = stream.event(&event)?;
        let events = vec![event];
        let _ = inputs.send(Input::Event(Event::TestStreamEvents {
            transform: stream.transform,
            events,
            done: false,
        }));
    }
    Ok(())
}
