//! Flags of the access log.

use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use clap::builder::BoolishValueParser;
use thiserror::Error;

use crate::access_log_syntax::AccessLogField;
use crate::access_log_syntax::{LineRule, LineRules, LineTemplate};
use crate::process_log::LogFormat;

#[derive(Debug, Args)]
#[command(next_help_heading = "Logs and metrics")]
pub(super) struct AccessLogArgs {
    /// Destination of the access log: a file (reopened on SIGHUP), - for standard output, or off
    #[arg(long, value_name = "FILE", default_value = "-", env = "PORTICO_ACCESS_LOG")]
    access_log: PathBuf,

    /// Format of an access log entry: json, text, combined, common, or a template with variables of nginx, Envoy or
    /// Apache; default: that of --log-format
    #[arg(long, value_name = "FORMAT", env = "PORTICO_ACCESS_LOG_FORMAT")]
    access_log_format: Option<AccessLogFormatArg>,

    /// Fields of an access log entry in this order, separated by commas; default: all but `query`,
    /// `consumer` and `connect_ms`
    #[arg(long, value_name = "FIELD", value_delimiter = ',', env = "PORTICO_ACCESS_LOG_FIELDS")]
    access_log_fields: Vec<AccessLogField>,

    /// Rules that select access log entries, separated by commas: the first one that applies decides, as in
    /// `keep status=5xx,keep duration>=1s,keep 1%`
    #[arg(long, value_name = "RULE", value_delimiter = ',', env = "PORTICO_ACCESS_LOG_FILTER")]
    access_log_filter: Vec<LineRule>,

    /// Query parameters whose values are written to the access log, separated by commas
    #[arg(long, value_name = "NAME", value_delimiter = ',', env = "PORTICO_ACCESS_LOG_QUERY_VALUES")]
    access_log_query_values: Vec<String>,

    /// Write only the network of a client to the access log: 24 bits of IPv4, 48 bits of IPv6, no port
    #[arg(long, env = "PORTICO_ACCESS_LOG_MASK_CLIENTS", value_parser = BoolishValueParser::new())]
    access_log_mask_clients: bool,
}

/// Destination and format of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogOptions {
    Off,
    Stdout(LogFormat),
    File(PathBuf, LogFormat),
}

/// What an entry contains, and which entries there are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogContent {
    /// Fields of an entry, in order.
    pub fields: Vec<AccessLogField>,
    /// Takes the place of format and fields.
    pub template: Option<LineTemplate>,
    pub rules: LineRules,
    /// Query parameters whose values are written.
    pub query_values: Vec<String>,
    pub masks_clients: bool,
}

/// Flags of the access log that contradict each other.
#[derive(Debug, Error, PartialEq, Eq)]
pub(crate) enum AccessLogUsageError {
    #[error("--access-log-fields contains `{field}` twice; list it once")]
    DuplicateField { field: AccessLogField },
    #[error("--access-log-fields has no effect on a template in --access-log-format; give one of them")]
    TemplateAndFields,
}

#[derive(Clone, Debug)]
enum AccessLogFormatArg {
    Fields(LogFormat),
    Template(LineTemplate),
}

impl FromStr for AccessLogFormatArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "json" => Ok(AccessLogFormatArg::Fields(LogFormat::Json)),
            "text" => Ok(AccessLogFormatArg::Fields(LogFormat::Text)),
            template => {
                let template = LineTemplate::parse(template).map_err(|error| error.to_string())?;
                Ok(AccessLogFormatArg::Template(template))
            }
        }
    }
}

impl AccessLogArgs {
    /// `log_format`: that of all logs. `is_terminal`: whether standard output is one.
    pub(super) fn resolve(
        self,
        log_format: Option<LogFormat>,
        is_terminal: bool,
    ) -> Result<(AccessLogOptions, AccessLogContent), AccessLogUsageError> {
        let (format, template) = match self.access_log_format {
            None => (log_format, None),
            Some(AccessLogFormatArg::Fields(format)) => (Some(format), None),
            Some(AccessLogFormatArg::Template(template)) => (log_format, Some(template)),
        };
        if template.is_some() && !self.access_log_fields.is_empty() {
            return Err(AccessLogUsageError::TemplateAndFields);
        }
        let content = AccessLogContent {
            fields: resolve_fields(self.access_log_fields)?,
            template,
            rules: LineRules(self.access_log_filter.into()),
            query_values: self.access_log_query_values,
            masks_clients: self.access_log_mask_clients,
        };
        Ok((resolve_destination(self.access_log, format, is_terminal), content))
    }
}

fn resolve_destination(path: PathBuf, format: Option<LogFormat>, is_terminal: bool) -> AccessLogOptions {
    if path == Path::new("off") {
        AccessLogOptions::Off
    } else if path == Path::new("-") {
        let default_format = if is_terminal { LogFormat::Text } else { LogFormat::Json };
        AccessLogOptions::Stdout(format.unwrap_or(default_format))
    } else {
        AccessLogOptions::File(path, format.unwrap_or(LogFormat::Json))
    }
}

fn resolve_fields(fields: Vec<AccessLogField>) -> Result<Vec<AccessLogField>, AccessLogUsageError> {
    if fields.is_empty() {
        return Ok(AccessLogField::defaults());
    }
    let duplicate = fields.iter().enumerate().find(|(index, field)| fields[..*index].contains(field));
    match duplicate.map(|(_, field)| *field) {
        Some(field) => Err(AccessLogUsageError::DuplicateField { field }),
        None => Ok(fields),
    }
}
