//! The server that the backend of a request names, which plugins may ask for.

use super::backend::SelectedAction;
use crate::endpoint_tls::UpstreamProtocol;
use crate::plugin_api::named_backend::{NamedBackend, NamedServer, NamedServerTls};
use crate::snapshot::rule::BackendTarget;
use crate::upstream::EndpointAddress;

impl NamedBackend for SelectedAction<'_> {
    fn server(&self) -> Option<NamedServer> {
        let SelectedAction::Forward(_, backend) = self else { return None };
        let BackendTarget::Upstream(upstream) = &backend.target else { return None };
        let endpoints = upstream.endpoints();
        let [EndpointAddress::Name { host, port }] = &endpoints.addresses[..] else { return None };
        let tls = upstream
            .key
            .tls
            .as_ref()
            .map(|tls| NamedServerTls { name: tls.configured_name().map(str::to_owned), settings: tls.clone() });
        let is_http1 = upstream.key.protocol == UpstreamProtocol::Http1;
        is_http1.then(|| NamedServer { host: host.clone(), port: *port, tls })
    }
}
