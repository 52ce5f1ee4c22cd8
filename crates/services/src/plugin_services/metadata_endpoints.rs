//! Connections to the endpoints of the machine that have the credentials of its identity. Plugins reach no other
//! address this way, and these addresses in no other way.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::plugin_api::{Remote, RemoteFailure, RemoteStream};
use crate::plugin_kit::remote_client::RemoteConnector;

pub(super) struct MetadataEndpoints;

/// EC2, ECS, and the two addresses of EKS Pod Identity.
const ENDPOINTS: [IpAddr; 4] = [
    IpAddr::V4(Ipv4Addr::new(169, 254, 169, 254)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 2)),
    IpAddr::V4(Ipv4Addr::new(169, 254, 170, 23)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x23)),
];

/// Whether plain HTTP may go to the address: only what does not leave the machine. Agents of containers listen on its
/// loopback addresses.
fn is_endpoint(address: IpAddr) -> bool {
    ENDPOINTS.contains(&address) || address.is_loopback()
}

impl RemoteConnector for MetadataEndpoints {
    fn connect(&self, remote: Remote) -> BoxFuture<'static, Result<Box<dyn RemoteStream>, RemoteFailure>> {
        async move {
            let name = format!("{}:{}", remote.host, remote.port);
            let unreachable = |reason: String| RemoteFailure::Unreachable(format!("{name}{reason}"));
            let address = remote.host.parse::<IpAddr>().ok().filter(|address| is_endpoint(*address));
            let address = address.filter(|_| remote.tls.is_none());
            let address = address.ok_or_else(|| unreachable(" is no endpoint of this machine".to_owned()))?;
            let connecting = TcpStream::connect(SocketAddr::new(address, remote.port));
            match timeout(remote.timeout, connecting).await {
                Ok(Ok(stream)) => Ok(Box::new(stream) as _),
                Ok(Err(error)) => Err(unreachable(format!(": cannot connect: {error}"))),
                Err(_) => Err(unreachable(format!(": no connection within {:?}", remote.timeout))),
            }
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn only_endpoints_of_the_machine_are_reached() {
        let is_endpoint = |text: &str| super::is_endpoint(text.parse().unwrap());
        for address in ["169.254.169.254", "169.254.170.2", "169.254.170.23", "fd00:ec2::23", "127.0.0.1", "::1"] {
            assert!(is_endpoint(address), "{address}");
        }
        for address in ["169.254.169.253", "10.0.0.1", "192.0.2.1", "fd00:ec2::1"] {
            assert!(!is_endpoint(address), "{address}");
        }
    }
}
