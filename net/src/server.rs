//! The gRPC server and its limits for a connection.

use std::time::Duration;

use tonic::transport::Server;

/// Who connects to a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Anyone: little is taken before it is asked for.
    Clients,
    /// Workers that this process, or a pool, has started: bulk data.
    Workers,
}

/// Connections that a port for clients has open at a time.
pub const MAX_CONNECTIONS: usize = 1000;
/// Calls of one connection that may be in progress; a client waits with more.
const MAX_STREAMS: u32 = 1000;

/// A tonic server set up for jobs of days.
pub fn grpc_server(side: Side) -> Server {
    // Bytes that a peer may send before they are read: of a call, of a connection, and in one frame.
    let (stream, connection, frame) = match side {
        Side::Clients => (1 << 20, 4 << 20, 64 << 10),
        Side::Workers => (8 << 20, 32 << 20, 1 << 20),
    };
    Server::builder()
        .initial_stream_window_size(stream)
        .initial_connection_window_size(connection)
        .max_frame_size(frame)
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(Duration::from_secs(30)))
        .http2_keepalive_timeout(Some(Duration::from_secs(60)))
        .tcp_nodelay(true)
}
