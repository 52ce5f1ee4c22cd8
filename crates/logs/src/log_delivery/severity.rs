//! Syslog severities of requests, and messages in the format of RFC 5424.

use std::time::SystemTime;

use http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Severities of RFC 5424, section 6.2.1. A smaller number is more severe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SyslogSeverity {
    Emerg,
    Alert,
    Crit,
    Err,
    Warning,
    Notice,
    Info,
    Debug,
}

/// Which severity requests have, by the status of their responses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Severities {
    /// Requests that are less severe are not logged.
    pub log_level: SyslogSeverity,
    /// Statuses below 400.
    pub successful: SyslogSeverity,
    /// Statuses from 400 to 499.
    pub client_errors: SyslogSeverity,
    /// Statuses from 500.
    pub server_errors: SyslogSeverity,
}

impl Severities {
    /// The severity of a request, or `None` if it is not logged.
    pub(crate) fn of(&self, status: StatusCode) -> Option<SyslogSeverity> {
        let severity = match status.as_u16() {
            ..400 => self.successful,
            400..500 => self.client_errors,
            _ => self.server_errors,
        };
        (severity <= self.log_level).then_some(severity)
    }
}

/// A message of RFC 5424, section 6, without its end.
pub(crate) struct SyslogMessage<'m> {
    /// The code of the facility, from 0 to 23.
    pub facility: u8,
    pub severity: SyslogSeverity,
    pub time: SystemTime,
    /// The host that logs.
    pub hostname: &'m str,
    pub app: &'m str,
    /// An element in brackets; `-` if there is none.
    pub structured_data: &'m str,
    pub text: &'m [u8],
}

impl SyslogMessage<'_> {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let priority = self.facility * 8 + self.severity as u8;
        // Fields of the head are visible ASCII characters without spaces.
        let hostname: String = self.hostname.chars().filter(char::is_ascii_graphic).take(255).collect();
        let hostname = if hostname.is_empty() { "-" } else { &hostname };
        let SyslogMessage { app, structured_data, text, .. } = self;
        let time = Timestamp::try_from(self.time).unwrap_or_default();
        let mut message = format!("<{priority}>1 {time:.3} {hostname} {app} - - {structured_data} ").into_bytes();
        message.extend_from_slice(text);
        message
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn severities_depend_on_the_status_and_the_level() {
        let severities = Severities {
            log_level: SyslogSeverity::Warning,
            successful: SyslogSeverity::Info,
            client_errors: SyslogSeverity::Warning,
            server_errors: SyslogSeverity::Crit,
        };
        for (status, expected) in [
            (200, None),
            (399, None),
            (400, Some(SyslogSeverity::Warning)),
            (499, Some(SyslogSeverity::Warning)),
            (500, Some(SyslogSeverity::Crit)),
        ] {
            assert_eq!(severities.of(StatusCode::from_u16(status).unwrap()), expected, "{status}");
        }
    }

    #[test]
    fn messages_have_the_format_of_rfc_5424() {
        let message = SyslogMessage {
            facility: 1,
            severity: SyslogSeverity::Info,
            time: UNIX_EPOCH + Duration::from_millis(1_700_000_000_123),
            hostname: "node a\n",
            app: "kong",
            structured_data: "-",
            text: b"{}",
        };
        let text = String::from_utf8(message.to_bytes()).unwrap();
        assert_eq!(text, "<14>1 2023-11-14T22:13:20.123Z nodea kong - - - {}");
    }
}
