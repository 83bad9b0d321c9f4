//! Addresses of this service that containers reach.

use bollard::Docker;
use bollard::query_parameters::InspectNetworkOptions;
use purlin_net::{Acceptor, MAX_CONNECTIONS, Silence};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::engine::reason;

/// A port on a network's gateway that leads to a port of this service, which listens on localhost only.
pub(super) struct Door {
    pub(super) url: String,
    task: JoinHandle<()>,
}

impl Drop for Door {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Door {
    /// Opens one on the network's gateway.
    pub(super) async fn open(docker: &Docker, network: &str, to: &str) -> Result<Self, String> {
        let options = None::<InspectNetworkOptions>;
        let found = docker.inspect_network(network, options).await;
        let found =
            found.map_err(|e| format!("Docker network {network:?} cannot be used: {}", reason(&e)))?;
        let gateway = found
            .ipam
            .and_then(|ipam| ipam.config)
            .into_iter()
            .flatten()
            .find_map(|config| {
                let named = config.gateway.filter(|gateway| !gateway.is_empty());
                named.or_else(|| first_address(&config.subnet?))
            })
            .ok_or_else(|| {
                format!("Docker network {network:?} names no gateway, so this service cannot be reached from it; use --docker_network=host")
            })?;
        let listener = TcpListener::bind((gateway.as_str(), 0)).await.map_err(|e| {
            format!(
                "cannot listen on {gateway}, the gateway of Docker network {network:?} ({e}); the engine must run on \
                 this machine, or use --docker_network=host"
            )
        })?;
        let port = listener.local_addr().map_err(|e| e.to_string())?.port();
        let host = if gateway.contains(':') {
            format!("[{gateway}]")
        } else {
            gateway
        };
        let to = to.to_owned();
        let mut acceptor = Acceptor::new(listener, Silence::AtFirst, MAX_CONNECTIONS);
        let task = tokio::spawn(async move {
            loop {
                let (mut inside, _) = acceptor.next().await;
                let to = to.clone();
                tokio::spawn(async move {
                    if let Ok(mut outside) = TcpStream::connect(&to).await {
                        let _ = outside.set_nodelay(true);
                        // Ends with either side.
                        let _ = tokio::io::copy_bidirectional_with_sizes(
                            &mut inside,
                            &mut outside,
                            1 << 18,
                            1 << 18,
                        )
                        .await;
                    }
                });
            }
        });
        Ok(Self {
            url: format!("{host}:{port}"),
            task,
        })
    }
}

/// The first address of a subnet such as 172.17.0.0/16: older engines do not name the default network's gateway, which it is.
fn first_address(subnet: &str) -> Option<String> {
    let (base, _) = subnet.split_once('/')?;
    let base: std::net::Ipv4Addr = base.parse().ok()?;
    let first = u32::from(base).checked_add(1)?;
    Some(std::net::Ipv4Addr::from(first).to_string())
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_gateway_is_the_first_address() {
        let first = |subnet| super::first_address(subnet);
        assert_eq!(first("172.17.0.0/16").as_deref(), Some("172.17.0.1"));
        assert_eq!(first("fd00::/80"), None);
        assert_eq!(first("nonsense"), None);
    }
}
