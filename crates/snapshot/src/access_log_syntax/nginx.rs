//! Variables in the notation of nginx, with those that ingress-nginx adds: `$status`, `${status}`.

use http::HeaderName;

use super::builder::TemplateBuilder;
use super::parts::LineTemplateError;
use super::variable::{DurationUnit, LineVariable, NamedVariable, SeriesLabel, TimeForm, find, is_secret_field};

pub(super) fn parse(text: &str, builder: &mut TemplateBuilder) -> Result<(), LineTemplateError> {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let index = text.len() - rest.len();
        rest = &rest[character.len_utf8()..];
        if character != '$' {
            builder.text(character);
            continue;
        }
        let name = match rest.strip_prefix('{') {
            Some(braced) => {
                let Some((name, after)) = braced.split_once('}') else {
                    return Err(LineTemplateError::at(text, index, "the variable has no end", "close its bracket"));
                };
                rest = after;
                name
            }
            None => {
                let is_part = |character: char| character.is_ascii_alphanumeric() || character == '_';
                let (name, after) = rest.split_at(rest.find(|next| !is_part(next)).unwrap_or(rest.len()));
                rest = after;
                name
            }
        };
        if name.is_empty() {
            return Err(LineTemplateError::at(text, index, "a variable has no name", "remove the dollar sign"));
        }
        builder.variable(variable(name, (text, index))?);
    }
    Ok(())
}

fn variable(name: &str, (text, index): (&str, usize)) -> Result<LineVariable, LineTemplateError> {
    let name = name.to_ascii_lowercase();
    let written = format!("${name}");
    if let Some(variable) = find(VARIABLES, &name) {
        return Ok(variable);
    }
    let unknown = || {
        let known = VARIABLES.iter().map(|(known, _)| *known);
        LineTemplateError::unknown((text, index), &written, &name, known, |known| format!("${known}"))
    };
    let field = |name: &str| HeaderName::try_from(name.replace('_', "-")).map_err(|_| unknown());
    let allowed = |name: HeaderName| match is_secret_field(&name) {
        true => Err(LineTemplateError::secret(text, index, &written)),
        false => Ok(name),
    };
    if let Some(name) = name.strip_prefix("http_") {
        return Ok(LineVariable::RequestField(allowed(field(name)?)?));
    }
    if let Some(name) = name.strip_prefix("sent_http_").or_else(|| name.strip_prefix("upstream_http_")) {
        return Ok(LineVariable::ResponseField(allowed(field(name)?)?));
    }
    match name.strip_prefix("arg_") {
        Some(parameter) if !parameter.is_empty() => Ok(LineVariable::QueryParameter(parameter.into())),
        _ if name.starts_with("cookie_") => Err(LineTemplateError::secret(text, index, &written)),
        _ => Err(unknown()),
    }
}

/// All variables, except those that end with the name of a field or of a parameter.
pub(super) const VARIABLES: &[NamedVariable] = &[
    ("remote_addr", LineVariable::ClientIp),
    ("realip_remote_addr", LineVariable::ClientIp),
    ("the_real_ip", LineVariable::ClientIp),
    ("remote_port", LineVariable::ClientPort),
    ("remote_user", LineVariable::Consumer),
    ("time_local", LineVariable::Time(TimeForm::Common)),
    ("time_iso8601", LineVariable::Time(TimeForm::Iso8601)),
    ("msec", LineVariable::Time(TimeForm::SecondsAndMilliseconds)),
    ("request", LineVariable::RequestLine),
    ("request_method", LineVariable::Method),
    ("request_uri", LineVariable::Target),
    ("uri", LineVariable::Path),
    ("document_uri", LineVariable::Path),
    ("args", LineVariable::Query),
    ("query_string", LineVariable::Query),
    ("is_args", LineVariable::QueryMark),
    ("server_protocol", LineVariable::Protocol),
    ("scheme", LineVariable::Scheme),
    ("server_port", LineVariable::ListenerPort),
    ("host", LineVariable::Host),
    ("server_name", LineVariable::Host),
    ("http_host", LineVariable::Authority),
    ("status", LineVariable::Status),
    ("body_bytes_sent", LineVariable::BytesOut),
    ("bytes_sent", LineVariable::ResponseBytes),
    ("request_length", LineVariable::RequestBytes),
    ("request_time", LineVariable::Duration(DurationUnit::Seconds)),
    ("session_time", LineVariable::Duration(DurationUnit::Seconds)),
    ("bytes_received", LineVariable::BytesIn),
    ("protocol", LineVariable::Protocol),
    ("ssl_protocol", LineVariable::TlsVersion),
    ("ssl_cipher", LineVariable::TlsCipher),
    ("ssl_server_name", LineVariable::ServerName),
    ("ssl_preread_server_name", LineVariable::ServerName),
    ("upstream_addr", LineVariable::Endpoints),
    ("upstream_status", LineVariable::EndpointStatuses),
    ("upstream_response_time", LineVariable::EndpointTimes),
    ("upstream_connect_time", LineVariable::EndpointConnectTimes),
    ("upstream_header_time", LineVariable::EndpointHeaderTimes),
    ("upstream_response_length", LineVariable::EndpointBytes),
    ("proxy_upstream_name", LineVariable::UpstreamName),
    ("proxy_alternative_upstream_name", LineVariable::AlternativeUpstream),
    ("namespace", LineVariable::Label(SeriesLabel::RouteNamespace)),
    ("ingress_name", LineVariable::Label(SeriesLabel::RouteName)),
    ("service_name", LineVariable::Label(SeriesLabel::UpstreamService)),
    ("service_port", LineVariable::Label(SeriesLabel::UpstreamPort)),
    ("request_id", LineVariable::RequestId),
    ("req_id", LineVariable::RequestId),
    ("gateway", LineVariable::Label(SeriesLabel::Gateway)),
    ("listener", LineVariable::Label(SeriesLabel::Listener)),
    ("route", LineVariable::Label(SeriesLabel::Route)),
    ("rule", LineVariable::Label(SeriesLabel::Rule)),
    ("upstream", LineVariable::Label(SeriesLabel::Upstream)),
    ("trace_id", LineVariable::TraceId),
    ("span_id", LineVariable::SpanId),
    ("error", LineVariable::Error),
];
