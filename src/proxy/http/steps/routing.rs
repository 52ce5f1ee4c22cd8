//! Selects the listener and the rule of a request.

use std::sync::Arc;

use http::header::{EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, Method, Request};

use super::condition_fields::ConditionFields;
use super::forwarding_headers::ForwardedRequest;
use super::reported_client::client_slot;
use super::request_context::{RequestContext, RoutedRequest};
use super::target::RequestTarget;
use crate::hop_count::HopCount;
use crate::plugin_api::Framing;
use crate::proxy::connection::tls::TlsSession;
use crate::proxy::http::exchange::request_body::RequestBody;
use crate::proxy::http::fields::headers::contains_token;
use crate::proxy::http::record::request_error::RequestError;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};
use crate::snapshot::router::{Matched, RoutingRequest};
use crate::snapshot::rule_options::AcceptedUpgrades;
use crate::snapshot::{HttpBind, HttpListener};

/// Finds the rule of the request. The most specific listener for its host handles it; other listeners are not searched.
pub(in crate::proxy) fn select_rule<'r>(
    cx: &mut RequestContext<'r>,
    request: &Request<RequestBody>,
    target: RequestTarget,
) -> Result<RoutedRequest<'r>, RequestError> {
    let RequestTarget { host, mut path, upgrade } = target;
    let name = host.name();
    let client_tls = cx.exchange().tls.as_deref();
    let bind = cx.view.http_bind(&cx.exchange().connections.address);
    let listener = bind.map_or(Err(RequestError::NoListener), |bind| select_listener(bind, client_tls, &name))?;
    cx.listener = Some(listener);
    let forwarded = ForwardedRequest { host: &host, port: listener.port };
    let record = &*cx.record;
    let fields =
        ConditionFields::new(&record.exchange, request.headers(), forwarded, request.uri(), &record.facts.request_id);
    let routing_request = RoutingRequest {
        path: path.path(),
        query: path.query(),
        method: request.method(),
        headers: request.headers(),
        forwarded: Some(&fields),
        authority: host.raw.as_bytes(),
        scheme: cx.exchange().client.scheme,
        server_name: cx.exchange().tls.as_ref().and_then(|tls| tls.server_name.as_deref()),
        regex_steps: RegexSteps::new(cx.exchange().worker().limits.max_regex_steps),
    };
    let found = listener.find(&name, &routing_request);
    if let Some(input) = routing_request.regex_steps.exceeded() {
        cx.style_without_rule = listener.style_without_rule(&name, &routing_request);
        return Err(match input {
            RegexInput::Target => RequestError::TargetTooLongToMatch,
            RegexInput::Header => RequestError::HeaderTooLongToMatch,
        });
    }
    let Some(Matched { rule, path: matched, normalized, names_method }) = found else {
        cx.style_without_rule = listener.style_without_rule(&name, &routing_request);
        return Err(RequestError::NoRoute);
    };
    let regex_steps = routing_request.regex_steps.remaining();
    drop(fields);
    if let Some(normalized) = normalized {
        path.replace(normalized);
    }
    cx.rule = Some(rule);
    if let Some(observed) = &mut cx.record.facts.observed {
        observed.set_path(matched);
    }
    // The response to TRACE repeats the request with its credentials, so a rule has to name it.
    if request.method() == Method::TRACE && !names_method {
        return Err(RequestError::TraceNotAllowed);
    }
    let upgrade = upgrade.filter(|upgrade| match rule.options().upgrades {
        AcceptedUpgrades::All => true,
        AcceptedUpgrades::WebSocket => upgrade.is_websocket(),
    });
    let framing = if rule.plugins.is_some() { body_framing(request.headers()) } else { Framing::default() };
    Ok(RoutedRequest {
        listener,
        rule,
        matched,
        host,
        path,
        replaced_path: None,
        has_plugin_path: false,
        upgrade,
        framing,
        regex_steps,
        may_have_te: false,
        hops: HopCount::ZERO,
        client: client_slot(cx.exchange(), request.headers()),
    })
}

/// Reads the framing of the request body, before the hop-by-hop headers are removed.
fn body_framing(headers: &HeaderMap) -> Framing {
    let has_token = |name, token| headers.get(name).is_some_and(|value| contains_token(value, token));
    Framing { is_chunked: has_token(TRANSFER_ENCODING, "chunked"), expects_continue: has_token(EXPECT, "100-continue") }
}

/// The listener of the host, if requests for it may arrive on this connection.
///
/// A connection that was opened for another listener must not be used (RFC 9110, section 15.5.20): browsers reuse a
/// connection for every name in its certificate, but the TLS settings of a listener apply only to the connections that
/// were opened for it. The same applies if the listener requires client certificates now that it did not require then.
/// A host without a listener has no better connection, so it gets 404 instead of 421.
fn select_listener<'b>(
    bind: &'b HttpBind,
    client_tls: Option<&TlsSession>,
    host: &str,
) -> Result<&'b Arc<HttpListener>, RequestError> {
    let Some(listener) = bind.listener(host) else {
        return Err(if bind.is_for_streams(host) {
            RequestError::MisdirectedRequest
        } else {
            RequestError::NoListener
        });
    };
    if is_misdirected(bind, listener, client_tls, host) { Err(RequestError::MisdirectedRequest) } else { Ok(listener) }
}

/// Whether the connection was opened for another listener than this one, which is the listener of the host.
fn is_misdirected(bind: &HttpBind, listener: &Arc<HttpListener>, client_tls: Option<&TlsSession>, host: &str) -> bool {
    match (client_tls, &bind.tls) {
        (None, None) => false,
        (Some(client_tls), Some(tls)) => {
            let server_name = client_tls.server_name.as_deref();
            if !tls.accepts_client(server_name, client_tls.client_validation.as_ref()) {
                return true;
            }
            // The common case, which needs no lookup.
            if server_name == Some(host) {
                return false;
            }
            let selected = bind.listener_by_server_name(server_name);
            !selected.is_some_and(|selected| Arc::ptr_eq(selected, listener))
        }
        // The port was changed from HTTP to HTTPS, or back, while the connection was open.
        (None, Some(_)) | (Some(_), None) => true,
    }
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::CertificateDer;

    use super::*;
    use crate::snapshot::certs::Certificates;
    use crate::snapshot::client_validation::{ClientValidation, ClientValidationMode};
    use crate::snapshot::host::{HostMap, HostPattern};
    use crate::snapshot::port_tls::{PortTls, StreamHosts, TlsListener};
    use crate::snapshot::rule_options::UnmatchedStyle;
    use crate::snapshot::stream::StreamRule;
    use crate::snapshot::{Bind, Routes};

    fn pattern(host: &str) -> HostPattern {
        HostPattern::parse(Some(host).filter(|host| *host != "*"))
    }

    fn listeners(hosts: &[&'static str]) -> HostMap<Arc<HttpListener>> {
        let listener = |host: &&'static str| {
            let listener = HttpListener {
                gateway: "a/gateway".into(),
                name: (*host).into(),
                port: 443,
                routes: Routes::ByHost(HostMap::default()),
                unmatched: UnmatchedStyle::default(),
            };
            (pattern(host), Arc::new(listener))
        };
        hosts.iter().map(listener).collect()
    }

    /// Listeners that terminate TLS for some hosts, and others that pass it through.
    fn https(terminated: &[&'static str], passthrough: &[&'static str], certificates: &Arc<Certificates>) -> Bind {
        let terminate = |host: &&'static str| (pattern(host), TlsListener::Terminate(Arc::clone(certificates)));
        let pass = |host: &&'static str| {
            let rule = StreamRule { gateway: "a/gateway".into(), listener: (*host).into(), port: 443, route: None };
            let hosts = StreamHosts { hosts: HostMap::default(), unrouted: Arc::new(rule) };
            (pattern(host), TlsListener::Passthrough(hosts))
        };
        let tls = terminated.iter().map(terminate).chain(passthrough.iter().map(pass)).collect();
        Bind::with_http(listeners(terminated), Some(PortTls::new(tls)))
    }

    fn client_tls(server_name: &str, client_validation: Option<&Arc<ClientValidation>>) -> TlsSession {
        TlsSession {
            server_name: Some(server_name).filter(|name| !name.is_empty()).map(Arc::from),
            version: "TLSv1.3",
            cipher: None,
            resumed: false,
            http2: true,
            client_validation: client_validation.cloned(),
        }
    }

    /// The name of the listener, or the status.
    fn outcome(bind: &Bind, client_tls: Option<&TlsSession>, host: &str) -> String {
        match select_listener(bind.http().unwrap(), client_tls, host) {
            Ok(listener) => listener.name.to_string(),
            Err(error) => error.details().status.as_str().to_owned(),
        }
    }

    #[test]
    fn host_and_connection_decide_between_listener_404_and_421() {
        let certificates = Arc::default();
        let http = Bind::with_http(listeners(&["a.example", "*.wide.example"]), None);
        let tls = https(&["a.example", "b.example", "*.wide.example"], &["pass.wide.example", "*.org"], &certificates);
        let with_any = https(&["*", "a.example"], &["pass.example"], &certificates);
        // The columns: no TLS, and connections with these server names.
        let connections = [None, Some("a.example"), Some("x.wide.example"), Some("unknown.test"), Some("")];
        let offered = connections.map(|name| name.map(|name| client_tls(name, None)));
        for (what, bind, host, expected) in [
            ("HTTP", &http, "a.example", ["a.example", "421", "421", "421", "421"]),
            ("HTTP", &http, "y.wide.example", ["*.wide.example", "421", "421", "421", "421"]),
            ("HTTP", &http, "unknown.test", ["404"; 5]),
            ("HTTPS", &tls, "a.example", ["421", "a.example", "421", "421", "421"]),
            ("HTTPS", &tls, "b.example", ["421"; 5]),
            ("HTTPS", &tls, "y.wide.example", ["421", "421", "*.wide.example", "421", "421"]),
            ("HTTPS", &tls, "pass.wide.example", ["421"; 5]),
            ("HTTPS", &tls, "z.org", ["421"; 5]),
            ("HTTPS", &tls, "unknown.test", ["404"; 5]),
            // The listeners of connections to this name were removed.
            ("HTTPS", &tls, "removed.example", ["404"; 5]),
            ("any host", &with_any, "a.example", ["421", "a.example", "421", "421", "421"]),
            ("any host", &with_any, "unknown.test", ["421", "421", "*", "*", "*"]),
            ("any host", &with_any, "pass.example", ["421"; 5]),
        ] {
            let found = offered.each_ref().map(|client_tls| outcome(bind, client_tls.as_ref(), host));
            assert_eq!(found, expected, "{what}, {host}, over {connections:?}");
        }
    }

    #[test]
    fn client_that_is_not_verified_as_required_now_needs_a_new_connection() {
        let authority = rcgen::generate_simple_self_signed(vec!["authority.example".to_owned()]).unwrap();
        let authority: CertificateDer<'static> = authority.cert.der().clone();
        let validation = |mode| Arc::new(ClientValidation::new(mode, vec![authority.clone()]).unwrap());
        let required = validation(ClientValidationMode::Required);
        let certificates = Arc::new(Certificates::default().with_client_validation(Some(Arc::clone(&required))));
        let bind = https(&["a.example"], &["pass.example"], &certificates);
        let fallback = validation(ClientValidationMode::InsecureFallback);
        for (verified_by, expected) in [(None, "421"), (Some(&fallback), "421"), (Some(&required), "a.example")] {
            let client_tls = client_tls("a.example", verified_by);
            assert_eq!(outcome(&bind, Some(&client_tls), "a.example"), expected, "{verified_by:?}");
            assert_eq!(outcome(&bind, Some(&client_tls), "pass.example"), "421", "{verified_by:?}");
            assert_eq!(outcome(&bind, Some(&client_tls), "unknown.test"), "404", "{verified_by:?}");
        }
    }
}
