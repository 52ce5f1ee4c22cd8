//! What a line of the access log is made of, and what of it is masked.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderValue, Method, StatusCode, Uri};

use super::captured::CapturedHeads;
use crate::plugin_api::CredentialLocations;
use crate::plugin_api::completed_request::Attempt;
use crate::plugin_api::masking::{LogMask, MaskedAccessField};
use crate::plugin_api::trace::RequestTrace;
use crate::proxy::telemetry::stats::RequestSeries;
use crate::snapshot::rule_telemetry::RuleTelemetry;
use crate::upstream::EndpointPick;

/// Which personal data lines contain.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Privacy {
    /// Names of the query parameters whose values are written.
    pub shown_parameters: Vec<Box<str>>,
    /// Whether only the network of a client is written.
    pub masks_clients: bool,
}

/// The values of one access-log line.
#[derive(Debug)]
pub(in crate::proxy) struct AccessLogRecord<'r> {
    /// When the request began or the connection was accepted.
    pub(in crate::proxy) time: SystemTime,
    pub(in crate::proxy) client: SocketAddr,
    /// The TLS version, if the connection uses TLS.
    pub(in crate::proxy) tls: Option<&'static str>,
    pub(in crate::proxy) tls_cipher: Option<&'static str>,
    pub(in crate::proxy) server_name: Option<Arc<str>>,
    /// The port of the listener that clients see, if the request reached one.
    pub(in crate::proxy) listen_port: Option<u16>,
    /// None, like protocol and target, if malformed input has none that can be recognized, and for a TCP connection.
    pub(in crate::proxy) method: Option<Method>,
    /// The version of HTTP, or `TCP`.
    pub(in crate::proxy) protocol: Option<&'static str>,
    pub(in crate::proxy) host: Option<HeaderValue>,
    pub(in crate::proxy) target: Option<Uri>,
    /// None for a TCP connection.
    pub(in crate::proxy) status: Option<StatusCode>,
    pub(in crate::proxy) bytes_in: u64,
    pub(in crate::proxy) bytes_out: u64,
    pub(in crate::proxy) duration: Duration,
    /// The time until an endpoint was connected, for a TCP connection.
    pub(in crate::proxy) connect_duration: Option<Duration>,
    /// The series with the labels.
    pub(in crate::proxy) series: Option<Arc<RequestSeries>>,
    /// What the dialect of the rule calls its upstreams, if it has names for them and lines may have them.
    pub(in crate::proxy) telemetry: Option<&'r RuleTelemetry>,
    /// The endpoint that the request was last sent to, or to which the connection was forwarded.
    pub(in crate::proxy) address: Option<SocketAddr>,
    /// Why that endpoint was picked for a request.
    pub(in crate::proxy) pick: Option<EndpointPick>,
    /// The attempts to get a response; none for a connection that is forwarded.
    pub(in crate::proxy) tries: &'r [Attempt],
    /// Why a failed request was not sent again, if its failure is one that is retried.
    pub(in crate::proxy) retry_stop: Option<&'static str>,
    /// The consumer that a plugin authenticated.
    pub(in crate::proxy) consumer: Option<Arc<str>>,
    pub(in crate::proxy) request_id: Option<HeaderValue>,
    pub(in crate::proxy) trace: Option<RequestTrace>,
    /// The reason of the request error, or why the TCP connection did not end regularly.
    pub(in crate::proxy) error: Option<&'static str>,
    pub(in crate::proxy) user_agent: Option<HeaderValue>,
    /// What the templates in use read of the heads.
    pub(in crate::proxy) captured: Option<&'r CapturedHeads>,
    /// Where the plugins of the request read credentials.
    pub(in crate::proxy) credentials: Option<&'r CredentialLocations>,
    pub(in crate::proxy) privacy: &'r Privacy,
}

impl AccessLogRecord<'_> {
    /// What the plugins of the request mask in its line.
    pub(super) fn masks(&self) -> &[Arc<LogMask>] {
        self.credentials.map_or(&[], |credentials| &credentials.masks)
    }

    /// The text without what matches the patterns of a mask. All of it is replaced if a mask names the field.
    pub(super) fn masked<'t>(&self, field: Option<MaskedAccessField>, text: Cow<'t, str>) -> Cow<'t, str> {
        self.masks().iter().fold(text, |text, mask| match field {
            Some(field) => mask.mask_access_field(field, text),
            None => mask.mask_text(&text).map_or(text, Cow::Owned),
        })
    }

    /// What is written for a field that is masked as a whole.
    pub(super) fn mask_of(&self, field: MaskedAccessField) -> Option<&str> {
        let mask = self.masks().iter().find(|mask| mask.access_log.contains(&field))?;
        Some(mask.object.text().replacement())
    }

    /// Whether the value of a query parameter is written.
    pub(super) fn shows_parameter(&self, name: &str) -> bool {
        let is_credential = || self.credentials.is_some_and(|all| all.has_parameter(name.as_bytes()));
        self.privacy.shown_parameters.iter().any(|shown| **shown == *name) && !is_credential()
    }
}
