//! Writes a record as a line by a template. Values of clients are escaped by their place in the template, so that they
//! end neither a quoted text nor a line.

use std::borrow::Cow;
use std::io::Write;
use std::time::Duration;

use http::header::{FORWARDED, HOST, USER_AGENT};
use http::{HeaderName, HeaderValue, Method, Uri};

use super::encode;
use super::line::{strip_user_info, to_text_lossy};
use super::query::{redact_url, redact_values};
use super::{AccessLogRecord, times};
use crate::access_log_syntax::{DurationUnit, LineTemplate, LineVariable, SeriesLabel, ValueForm};
use crate::plugin_api::completed_request::{Attempt, AttemptOutcome, REDACTED};
use crate::plugin_api::masking::MaskedAccessField;
use crate::snapshot::rule_telemetry::RuleTelemetry;

/// Appends one line, including its line feed.
pub(super) fn write(template: &LineTemplate, record: &AccessLogRecord<'_>, line: &mut Vec<u8>) {
    let writer = ValueWriter { record };
    for part in &template.parts {
        line.extend_from_slice(part.before.as_bytes());
        let mut variables = std::iter::once(&part.variable).chain(part.otherwise.as_ref());
        if !variables.any(|variable| writer.write(variable, part.form, part.max_bytes, line)) {
            let is_json = part.form == ValueForm::JsonValue;
            line.extend_from_slice(if is_json { "null" } else { template.missing }.as_bytes());
        }
    }
    line.extend_from_slice(template.after.as_bytes());
    line.push(b'\n');
}

struct ValueWriter<'w, 'r> {
    record: &'w AccessLogRecord<'r>,
}

impl<'w> ValueWriter<'w, '_> {
    /// Writes the value of a variable. Returns false if there is none.
    fn write(&self, variable: &LineVariable, form: ValueForm, max_bytes: usize, line: &mut Vec<u8>) -> bool {
        if let Some(has_value) = self.write_number(variable, line) {
            return has_value;
        }
        let start = line.len();
        let quote = if form == ValueForm::JsonValue { &b"\""[..] } else { b"" };
        line.extend_from_slice(quote);
        let has_value = match self.write_plain(variable, line) {
            Some(has_value) => has_value,
            None if *variable == LineVariable::RequestLine => self.write_request_line(form, max_bytes, line),
            None => match self.text(variable) {
                Some(text) => {
                    escape(cut(&text, max_bytes), form, line);
                    true
                }
                None => false,
            },
        };
        if has_value {
            line.extend_from_slice(quote);
        } else {
            line.truncate(start);
        }
        has_value
    }

    /// Writes a number. `None` if the variable is no number.
    fn write_number(&self, variable: &LineVariable, line: &mut Vec<u8>) -> Option<bool> {
        let record = self.record;
        let is_of_endpoint =
            || record.tries.last().is_some_and(|last| matches!(last.outcome, AttemptOutcome::Status(_)));
        let head = |read: fn(&super::CapturedHeads) -> u64| record.captured.map_or(0, read);
        let number = match variable {
            LineVariable::ClientPort => Some(record.client.port().into()).filter(|_| !self.masks_client()),
            LineVariable::ListenerPort => record.listen_port.map(u64::from),
            LineVariable::Status => record.status.map(|status| status.as_u16().into()),
            LineVariable::BytesIn => Some(record.bytes_in),
            LineVariable::BytesOut => Some(record.bytes_out),
            LineVariable::BytesOutIfAny => Some(record.bytes_out).filter(|bytes| *bytes > 0),
            LineVariable::RequestBytes => Some(record.bytes_in + head(|heads| heads.request_bytes)),
            LineVariable::ResponseBytes => Some(record.bytes_out + head(|heads| heads.response_bytes)),
            LineVariable::EndpointBytes => Some(record.bytes_out).filter(|_| is_of_endpoint()),
            LineVariable::AttemptCount => Some(record.tries.len() as u64),
            LineVariable::EndpointMilliseconds => {
                record.tries.last().and_then(|last| last.first_byte).map(|time| whole(time.as_millis()))
            }
            LineVariable::Duration(DurationUnit::Seconds) => {
                seconds(record.duration, line);
                return Some(true);
            }
            LineVariable::Duration(DurationUnit::WholeSeconds) => Some(record.duration.as_secs()),
            LineVariable::Duration(DurationUnit::WholeMilliseconds) => Some(whole(record.duration.as_millis())),
            LineVariable::Duration(DurationUnit::WholeMicroseconds) => Some(whole(record.duration.as_micros())),
            LineVariable::Time(form) => return times::write_number(record.time, form, line).then_some(true),
            _ => return None,
        };
        if let Some(number) = number {
            encode::number(number, line);
        }
        Some(number.is_some())
    }

    /// Writes a value that needs no escapes. `None` if the variable may need some.
    fn write_plain(&self, variable: &LineVariable, line: &mut Vec<u8>) -> Option<bool> {
        let record = self.record;
        let each = |write: fn(&Attempt, &mut Vec<u8>), line: &mut Vec<u8>| {
            for (index, attempt) in record.tries.iter().enumerate() {
                if index > 0 {
                    line.extend_from_slice(b", ");
                }
                write(attempt, line);
            }
            Some(!record.tries.is_empty())
        };
        let time = |duration: Option<Duration>, line: &mut Vec<u8>| match duration {
            Some(duration) => seconds(duration, line),
            None => line.push(b'-'),
        };
        match variable {
            LineVariable::None => Some(false),
            LineVariable::Client | LineVariable::ClientIp if self.masks_client() => None,
            LineVariable::Client => {
                encode::address(&record.client, line);
                Some(true)
            }
            LineVariable::ClientIp => {
                write!(line, "{}", record.client.ip()).expect("writing to a Vec cannot fail");
                Some(true)
            }
            LineVariable::Time(form) => {
                times::write_text(record.time, form, line);
                Some(true)
            }
            LineVariable::Endpoint => {
                let address = record.address.as_ref();
                address.inspect(|address| encode::address(address, line));
                Some(address.is_some())
            }
            // A forwarded connection has an endpoint and no attempts of its own.
            LineVariable::Endpoints if record.tries.is_empty() => self.write_plain(&LineVariable::Endpoint, line),
            LineVariable::Endpoints => each(|attempt, line| encode::address(&attempt.endpoint, line), line),
            LineVariable::EndpointStatuses => each(
                |attempt, line| match attempt.outcome {
                    AttemptOutcome::Status(status) | AttemptOutcome::Failed { status, .. } => {
                        encode::number(status.as_u16().into(), line);
                    }
                    AttemptOutcome::Unfinished => line.push(b'-'),
                },
                line,
            ),
            LineVariable::EndpointTimes => each(|attempt, line| seconds(attempt.total, line), line),
            LineVariable::EndpointConnectTimes if record.tries.is_empty() => {
                time(record.connect_duration, line);
                Some(true)
            }
            // Zero for a kept connection, as in nginx.
            LineVariable::EndpointConnectTimes => {
                each(|attempt, line| seconds(attempt.connect.unwrap_or_default(), line), line)
            }
            LineVariable::EndpointHeaderTimes => each(
                |attempt, line| match attempt.first_byte {
                    Some(duration) => seconds(duration, line),
                    None => line.push(b'-'),
                },
                line,
            ),
            _ => None,
        }
    }

    fn write_request_line(&self, form: ValueForm, max_bytes: usize, line: &mut Vec<u8>) -> bool {
        let (method, target) = (self.record.method.as_ref(), self.target());
        let words = [method.map(Method::as_str), target.as_deref(), self.record.protocol];
        if method.is_none() && target.is_none() {
            return false;
        }
        for (index, word) in words.into_iter().enumerate() {
            if index > 0 {
                line.push(b' ');
            }
            escape(cut(word.unwrap_or("-"), max_bytes), form, line);
        }
        true
    }

    /// A value that is escaped.
    fn text(&self, variable: &LineVariable) -> Option<Cow<'w, str>> {
        let text = self.unmasked_text(variable)?;
        Some(if self.record.masks().is_empty() { text } else { self.masked_text(variable, text) })
    }

    /// The value without what the masks of the request cover.
    #[cold]
    fn masked_text(&self, variable: &LineVariable, text: Cow<'w, str>) -> Cow<'w, str> {
        match variable {
            LineVariable::Client | LineVariable::ClientIp => self.record.masked(Some(MaskedAccessField::Client), text),
            LineVariable::Consumer => self.record.masked(Some(MaskedAccessField::Consumer), text),
            LineVariable::Host | LineVariable::Authority | LineVariable::ServerName => {
                self.record.masked(Some(MaskedAccessField::Host), text)
            }
            LineVariable::Path => self.record.masked(Some(MaskedAccessField::Path), text),
            LineVariable::RequestField(name) if *name == HOST => {
                self.record.masked(Some(MaskedAccessField::Host), text)
            }
            LineVariable::RequestField(name) if *name == USER_AGENT => {
                self.record.masked(Some(MaskedAccessField::UserAgent), text)
            }
            LineVariable::RequestField(name) if names_client(name) => {
                self.record.masked(Some(MaskedAccessField::Client), text)
            }
            LineVariable::RequestField(_)
            | LineVariable::ResponseField(_)
            | LineVariable::Query
            | LineVariable::QueryWithMark
            | LineVariable::QueryParameter(_) => self.record.masked(None, text),
            // The target is masked in its parts, and the others are no values of clients.
            _ => text,
        }
    }

    fn masks_client(&self) -> bool {
        self.record.mask_of(MaskedAccessField::Client).is_some()
    }

    fn unmasked_text(&self, variable: &LineVariable) -> Option<Cow<'w, str>> {
        let record = self.record;
        let text = |text: Option<&'w str>| text.filter(|text| !text.is_empty()).map(Cow::Borrowed);
        let query = record.target.as_ref().and_then(Uri::query);
        match variable {
            // Only if they are masked.
            LineVariable::Client | LineVariable::ClientIp => Some(Cow::Borrowed("")),
            LineVariable::Consumer => text(record.consumer.as_deref()),
            LineVariable::Method => text(record.method.as_ref().map(Method::as_str)),
            LineVariable::Target => self.target(),
            LineVariable::Path => text(record.target.as_ref().map(Uri::path)),
            LineVariable::Query => query.map(|query| Cow::Owned(self.redacted(query))),
            LineVariable::QueryWithMark => {
                Some(query.map_or(Cow::Borrowed(""), |query| Cow::Owned(format!("?{}", self.redacted(query)))))
            }
            LineVariable::QueryMark => Some(Cow::Borrowed(if query.is_some() { "?" } else { "" })),
            LineVariable::QueryParameter(name) => self.parameter(query?, name),
            LineVariable::Protocol => text(record.protocol),
            LineVariable::Scheme => {
                text(record.method.as_ref().map(|_| if record.tls.is_some() { "https" } else { "http" }))
            }
            LineVariable::Host => record.host.as_ref().map(host_name),
            LineVariable::Authority => record.host.as_ref().map(|host| strip_user_info(to_text_lossy(host))),
            LineVariable::TlsVersion => text(record.tls),
            LineVariable::TlsCipher => text(record.tls_cipher),
            LineVariable::ServerName => text(record.server_name.as_deref()),
            LineVariable::Label(label) => text(self.label(*label)),
            LineVariable::UpstreamName => {
                let name = record.telemetry.map(|telemetry| &*telemetry.upstream);
                text(name.or_else(|| self.label(SeriesLabel::Upstream)))
            }
            LineVariable::AlternativeUpstream => {
                let backend = self.label(SeriesLabel::Upstream).unwrap_or_default();
                let name = record.telemetry?.alternative_of(backend);
                Some(Cow::Borrowed(name.map_or("", |name| name)))
            }
            LineVariable::RequestId => record.request_id.as_ref().map(to_text_lossy),
            LineVariable::TraceId => record.trace.map(|trace| Cow::Owned(trace.trace.long_text())),
            LineVariable::SpanId => record.trace.map(|trace| Cow::Owned(trace.server_span.to_string())),
            LineVariable::Error => text(record.error),
            LineVariable::RequestField(name) => self.field(name, &record.captured?.request),
            LineVariable::ResponseField(name) => self.field(name, &record.captured?.response),
            // Numbers and plain values.
            _ => None,
        }
    }

    fn label(&self, label: SeriesLabel) -> Option<&'w str> {
        if let Some(RuleTelemetry { names, .. }) = self.record.telemetry {
            match label {
                SeriesLabel::RouteNamespace => return Some(&names.namespace),
                SeriesLabel::RouteName => return Some(&names.ingress),
                // Those of the rule, also if an alternative has got the request.
                SeriesLabel::UpstreamService => return Some(&names.service),
                SeriesLabel::UpstreamPort => return Some(&names.service_port),
                SeriesLabel::Gateway
                | SeriesLabel::Listener
                | SeriesLabel::Route
                | SeriesLabel::Rule
                | SeriesLabel::Upstream => {}
            }
        }
        let labels = &self.record.series.as_ref()?.labels;
        // `kind/namespace/name` and `namespace/service:port`.
        let part_of_route = |index| labels.route.split('/').nth(index);
        let service = labels.backend.split_once('/').and_then(|(_, service)| service.rsplit_once(':'));
        match label {
            SeriesLabel::Gateway => Some(&labels.gateway),
            SeriesLabel::Listener => Some(&labels.listener),
            SeriesLabel::Route => Some(&labels.route),
            SeriesLabel::RouteNamespace => part_of_route(1),
            SeriesLabel::RouteName => part_of_route(2),
            SeriesLabel::Rule => Some(&labels.rule),
            SeriesLabel::Upstream => Some(&labels.backend),
            SeriesLabel::UpstreamService => service.map(|(service, _)| service),
            // A remark may follow, such as `80/UDP`.
            SeriesLabel::UpstreamPort => {
                service.map(|(_, port)| &port[..port.bytes().take_while(u8::is_ascii_digit).count()])
            }
        }
    }

    /// Path and query.
    fn target(&self) -> Option<Cow<'w, str>> {
        let target = self.record.target.as_ref()?;
        let path = Some(target.path()).filter(|path| !path.is_empty());
        let masked_path = |path: &'w str| self.record.masked(Some(MaskedAccessField::Path), Cow::Borrowed(path));
        Some(match target.query() {
            Some(query) => {
                let query = self.record.masked(None, Cow::Owned(self.redacted(query)));
                Cow::Owned(format!("{}?{query}", masked_path(path.unwrap_or("/"))))
            }
            None => masked_path(path?),
        })
    }

    fn redacted(&self, query: &str) -> String {
        redact_values(query, |name| self.record.shows_parameter(name))
    }

    fn parameter(&self, query: &'w str, name: &str) -> Option<Cow<'w, str>> {
        let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
        // nginx compares names without regard to case.
        let (found, value) = pairs.find(|(found, _)| found.eq_ignore_ascii_case(name))?;
        Some(Cow::Borrowed(if self.record.shows_parameter(found) { value } else { "*" }))
    }

    /// The values of a field, separated by commas.
    fn field(&self, name: &HeaderName, fields: &'w [(HeaderName, HeaderValue)]) -> Option<Cow<'w, str>> {
        let mut values = fields.iter().filter(|(found, _)| found == name).map(|(_, value)| value);
        let first = values.next()?;
        let is_credential = self.record.credentials.is_some_and(|all| all.has_header(name));
        if is_credential || (self.record.privacy.masks_clients && names_client(name)) {
            return Some(Cow::Borrowed(REDACTED));
        }
        let text = values.fold(to_text_lossy(first), |all, next| Cow::Owned(format!("{all}, {}", to_text_lossy(next))));
        Some(redact_url(&text, |name| self.record.shows_parameter(name)).map_or(text, Cow::Owned))
    }
}

/// Whether a field contains the address of the client.
fn names_client(name: &HeaderName) -> bool {
    let names = ["x-forwarded-for", "x-real-ip", "x-client-ip", "true-client-ip", "cf-connecting-ip"];
    *name == FORWARDED || names.contains(&name.as_str())
}

/// Seconds with three decimals.
fn seconds(duration: Duration, line: &mut Vec<u8>) {
    write!(line, "{}.{:03}", duration.as_secs(), duration.subsec_millis()).expect("writing to a Vec cannot fail");
}

fn whole(number: u128) -> u64 {
    u64::try_from(number).unwrap_or(u64::MAX)
}

/// The host without user information and port.
pub(in crate::proxy) fn host_name(host: &HeaderValue) -> Cow<'_, str> {
    without_port(strip_user_info(to_text_lossy(host)))
}

fn without_port(host: Cow<'_, str>) -> Cow<'_, str> {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    match host.rsplit_once(':').filter(|(name, port)| is_port(port) && (!name.contains(':') || name.ends_with(']'))) {
        Some((name, _)) => Cow::Owned(name.to_owned()),
        None => host,
    }
}

/// The beginning of a long text.
fn cut(text: &str, max_bytes: usize) -> &str {
    &text[..text.floor_char_boundary(max_bytes)]
}

fn escape(text: &str, form: ValueForm, line: &mut Vec<u8>) {
    if matches!(form, ValueForm::JsonText | ValueForm::JsonValue) {
        for character in text.chars() {
            match character {
                '"' | '\\' => line.extend_from_slice(&[b'\\', character as u8]),
                '\0'..='\x1f' | '\x7f' => {
                    write!(line, "\\u{:04x}", character as u32).expect("writing to a Vec cannot fail");
                }
                _ => line.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        return;
    }
    for byte in text.bytes() {
        let is_plain = byte.is_ascii_graphic() || (byte == b' ' && form == ValueForm::Quoted);
        if is_plain && byte != b'"' && byte != b'\\' {
            line.push(byte);
        } else {
            write!(line, "\\x{byte:02X}").expect("writing to a Vec cannot fail");
        }
    }
}

#[cfg(test)]
mod tests;
