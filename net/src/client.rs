//! Connections to servers.

use std::time::Duration;

use tonic::transport::Endpoint;

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Streams that are open for as long as a job runs. A peer that has gone without a word is noticed within 90 seconds.
    Streams,
    /// A few calls, each with a time limit of its own. The peer is not pinged: gRPC servers of other languages end a connection that
    /// pings them more often than every five minutes while nothing else is said.
    Calls,
}

/// Why a text is no address of a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// It asks for TLS.
    #[error("TLS is not supported; give HOST:PORT of a plain endpoint")]
    Tls,
    /// It cannot be read.
    #[error("{address:?} is no address ({reason}); give HOST:PORT")]
    Malformed {
        /// The text.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// The server at `HOST:PORT`, with or without `http://` before it, which has so long to take a connection. Set up for bulk data.
pub fn endpoint(
    address: &str,
    purpose: Purpose,
    connect_timeout: Duration,
) -> Result<Endpoint, AddressError> {
    let address = address.trim();
    let bare = address.strip_prefix("http://").unwrap_or(address);
    if bare.starts_with("https://") {
        return Err(AddressError::Tls);
    }
    let endpoint = Endpoint::from_shared(format!("http://{bare}"));
    let endpoint = endpoint.map_err(|error| AddressError::Malformed {
        address: address.to_owned(),
        reason: error.to_string(),
    })?;
    let endpoint = endpoint
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .initial_stream_window_size(8 << 20)
        .initial_connection_window_size(32 << 20);
    Ok(match purpose {
        Purpose::Calls => endpoint,
        Purpose::Streams => endpoint
            .tcp_keepalive(Some(Duration::from_secs(60)))
            .http2_keep_alive_interval(Duration::from_secs(30))
            .keep_alive_timeout(Duration::from_secs(60))
            .keep_alive_while_idle(true),
    })
}

/// What is at the bottom of an error: layers above it say little.
pub fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(address: &str) -> Result<String, AddressError> {
        let endpoint = endpoint(address, Purpose::Calls, Duration::from_secs(1))?;
        Ok(endpoint.uri().to_string())
    }

    #[test]
    fn addresses_are_taken_with_and_without_a_scheme() {
        for address in ["localhost:8099", "http://localhost:8099", " localhost:8099 "] {
            assert_eq!(read(address).unwrap(), "http://localhost:8099/", "{address}");
        }
        assert_eq!(read("[::1]:8099").unwrap(), "http://[::1]:8099/");
    }

    #[test]
    fn what_is_no_address_is_told() {
        assert_eq!(read("https://localhost:8099"), Err(AddressError::Tls));
        for wrong in ["", "http://", "two words"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("give HOST:PORT"), "{wrong}: {error}");
        }
    }

    #[tokio::test]
    async fn the_cause_of_a_failed_connection_is_told() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = closed.local_addr().unwrap().to_string();
        drop(closed);
        let endpoint = endpoint(&address, Purpose::Streams, Duration::from_secs(5)).unwrap();
        let error = endpoint.connect().await.unwrap_err();
        assert!(
            root_cause(&error).contains("Connection refused"),
            "{}",
            root_cause(&error)
        );
    }
}
