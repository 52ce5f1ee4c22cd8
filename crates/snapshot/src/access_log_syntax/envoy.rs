//! Variables in the notation of Envoy: `%RESPONSE_CODE%`, `%REQ(X-A?X-B):20%`, `%START_TIME(%s)%`.

use http::HeaderName;

use super::builder::TemplateBuilder;
use super::parts::LineTemplateError;
use super::variable::{
    DurationUnit, LineVariable, NamedVariable, SeriesLabel, TimeForm, find, is_secret_field, time_pattern,
};

pub(super) fn parse(text: &str, builder: &mut TemplateBuilder) -> Result<(), LineTemplateError> {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let index = text.len() - rest.len();
        rest = &rest[character.len_utf8()..];
        if character != '%' {
            builder.text(character);
            continue;
        }
        if let Some(after) = rest.strip_prefix('%') {
            builder.text('%');
            rest = after;
            continue;
        }
        let no_end = || LineTemplateError::at(text, index, "the variable has no end", "write a percent sign after it");
        let is_part =
            |character: char| character.is_ascii_uppercase() || character.is_ascii_digit() || character == '_';
        let (name, after) = rest.split_at(rest.find(|next| !is_part(next)).unwrap_or(rest.len()));
        let (argument, after) = match after.strip_prefix('(') {
            Some(inner) => {
                let (argument, after) = inner.split_once(')').ok_or_else(no_end)?;
                (Some(argument), after)
            }
            None => (None, after),
        };
        let (limit, after) = match after.strip_prefix(':') {
            Some(limited) => {
                let (limit, after) = limited.split_once('%').ok_or_else(no_end)?;
                let limit = limit.parse::<usize>().ok().filter(|limit| *limit > 0);
                let invalid = || {
                    let remedy = "write a number of at least 1 after the colon";
                    LineTemplateError::at(text, index, "the length of the variable is no number", remedy)
                };
                (limit.ok_or_else(invalid)?, after)
            }
            None => (usize::MAX, after.strip_prefix('%').ok_or_else(no_end)?),
        };
        let written = &text[index..text.len() - after.len()];
        rest = after;
        let place = VariablePlace { text, index, written };
        let (variable, otherwise) = place.variable(name, argument)?;
        builder.limited_variable(variable, otherwise, limit);
    }
    Ok(())
}

/// Where a variable is, for errors.
struct VariablePlace<'t> {
    text: &'t str,
    index: usize,
    written: &'t str,
}

impl VariablePlace<'_> {
    fn variable(
        &self,
        name: &str,
        argument: Option<&str>,
    ) -> Result<(LineVariable, Option<LineVariable>), LineTemplateError> {
        match (name, argument) {
            ("START_TIME", Some(pattern)) if !pattern.is_empty() => {
                let pattern = pattern.replace("%E3S", "%S%.3f").replace("%E6S", "%S%.6f").replace("%E*S", "%S%.f");
                let form = time_pattern(&pattern).ok_or_else(|| {
                    let message = format!("`{pattern}` is not a format of times");
                    LineTemplateError::at(
                        self.text,
                        self.index,
                        message,
                        "use one of strftime, such as %Y-%m-%dT%H:%M:%SZ",
                    )
                })?;
                Ok((LineVariable::Time(form), None))
            }
            ("REQ" | "RESP", Some(names)) => {
                let is_request = name == "REQ";
                let (first, second) =
                    names.split_once('?').map_or((names, None), |(first, other)| (first, Some(other)));
                let otherwise = second.map(|name| self.field(name, is_request)).transpose()?;
                Ok((self.field(first, is_request)?, otherwise))
            }
            (_, None | Some("")) => {
                find(VARIABLES, name).map(|variable| (variable, None)).ok_or_else(|| self.unknown(name))
            }
            (_, Some(_)) => Err(self.unknown(name)),
        }
    }

    /// A field, or a pseudo-header field of HTTP/2.
    fn field(&self, name: &str, is_request: bool) -> Result<LineVariable, LineTemplateError> {
        let lower = name.to_ascii_lowercase();
        let table = if is_request { REQUEST_FIELDS } else { RESPONSE_FIELDS };
        if let Some(variable) = find(table, &lower) {
            return Ok(variable);
        }
        let name = HeaderName::try_from(&*lower).map_err(|_| {
            let message = format!("`{name}` in {} is not the name of a field", self.written);
            LineTemplateError::at(self.text, self.index, message, "use the name of a header field")
        })?;
        if is_secret_field(&name) {
            return Err(LineTemplateError::secret(self.text, self.index, self.written));
        }
        Ok(if is_request { LineVariable::RequestField(name) } else { LineVariable::ResponseField(name) })
    }

    fn unknown(&self, name: &str) -> LineTemplateError {
        let known = VARIABLES.iter().map(|(known, _)| *known);
        LineTemplateError::unknown((self.text, self.index), self.written, name, known, |known| format!("%{known}%"))
    }
}

/// All variables without an argument.
pub(super) const VARIABLES: &[NamedVariable] = &[
    ("START_TIME", LineVariable::Time(TimeForm::Rfc3339)),
    ("PROTOCOL", LineVariable::Protocol),
    ("RESPONSE_CODE", LineVariable::Status),
    ("RESPONSE_CODE_DETAILS", LineVariable::Error),
    ("RESPONSE_FLAGS", LineVariable::Error),
    ("CONNECTION_TERMINATION_DETAILS", LineVariable::Error),
    ("UPSTREAM_TRANSPORT_FAILURE_REASON", LineVariable::Error),
    ("BYTES_RECEIVED", LineVariable::BytesIn),
    ("BYTES_SENT", LineVariable::BytesOut),
    ("DOWNSTREAM_WIRE_BYTES_RECEIVED", LineVariable::RequestBytes),
    ("DOWNSTREAM_WIRE_BYTES_SENT", LineVariable::ResponseBytes),
    ("DURATION", LineVariable::Duration(DurationUnit::WholeMilliseconds)),
    ("UPSTREAM_HOST", LineVariable::Endpoint),
    ("UPSTREAM_REMOTE_ADDRESS", LineVariable::Endpoint),
    ("UPSTREAM_CLUSTER", LineVariable::Label(SeriesLabel::Upstream)),
    ("UPSTREAM_CLUSTER_RAW", LineVariable::Label(SeriesLabel::Upstream)),
    ("UPSTREAM_REQUEST_ATTEMPT_COUNT", LineVariable::AttemptCount),
    ("ROUTE_NAME", LineVariable::Label(SeriesLabel::Route)),
    ("REQUESTED_SERVER_NAME", LineVariable::ServerName),
    ("DOWNSTREAM_REMOTE_ADDRESS", LineVariable::Client),
    ("DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT", LineVariable::ClientIp),
    ("DOWNSTREAM_REMOTE_PORT", LineVariable::ClientPort),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS", LineVariable::Client),
    ("DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT", LineVariable::ClientIp),
    ("DOWNSTREAM_TLS_VERSION", LineVariable::TlsVersion),
    ("DOWNSTREAM_TLS_CIPHER", LineVariable::TlsCipher),
    ("FILTER_CHAIN_NAME", LineVariable::Label(SeriesLabel::Listener)),
    ("STREAM_ID", LineVariable::RequestId),
    ("TRACE_ID", LineVariable::TraceId),
];

/// Fields of `REQ` that are not read from the head of the request.
pub(super) const REQUEST_FIELDS: &[NamedVariable] = &[
    (":method", LineVariable::Method),
    (":path", LineVariable::Target),
    (":authority", LineVariable::Authority),
    (":scheme", LineVariable::Scheme),
    ("x-envoy-original-path", LineVariable::Target),
    ("x-request-id", LineVariable::RequestId),
];

/// Fields of `RESP` that are not read from the head of the response.
pub(super) const RESPONSE_FIELDS: &[NamedVariable] =
    &[(":status", LineVariable::Status), ("x-envoy-upstream-service-time", LineVariable::EndpointMilliseconds)];
