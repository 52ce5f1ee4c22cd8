//! Logs of our own: structured events on stderr, as text for people or JSON for machines.

use std::str::FromStr;

use clap::ValueEnum;
use tracing::Level;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// How to log.
#[derive(Clone, Debug)]
pub struct LogOptions {
    pub filter: LogFilter,
    pub format: LogFormat,
    pub color: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    Text,
    Json,
}

/// Which events are logged: a level for everything, and others for single modules.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// Starts logging for the whole process; only the first call can.
pub fn init(options: &LogOptions) -> Result<(), TryInitError> {
    subscriber(options, std::io::stderr).try_init()
}

fn subscriber<W>(options: &LogOptions, writer: W) -> impl SubscriberInitExt
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(options.color);
    let layer = match options.format {
        LogFormat::Text => layer.boxed(),
        // Flat, so that a field of an event is a field of the line, whatever collects it.
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(options.filter.0.clone()))
}

/// `LEVEL`, then `,MODULE=LEVEL` as often as needed. Not the grammar of `tracing_subscriber`, for which a misspelt level is
/// the name of a module.
impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.split(',');
        let mut targets = Targets::new().with_default(level(parts.next().unwrap_or_default())?);
        for part in parts {
            let (target, name) = part.split_once('=').filter(|(target, _)| is_module(target)).ok_or_else(|| {
                format!("`{part}` is not a module and its level; write for example info,portico::proxy=debug")
            })?;
            targets = targets.with_target(target, level(name)?);
        }
        Ok(LogFilter(targets))
    }
}

fn is_module(text: &str) -> bool {
    let name = |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.split("::").all(name)
}

fn level(name: &str) -> Result<Level, String> {
    match name {
        "error" => Ok(Level::ERROR),
        "warn" => Ok(Level::WARN),
        "info" => Ok(Level::INFO),
        "debug" => Ok(Level::DEBUG),
        "trace" => Ok(Level::TRACE),
        _ => Err(format!("`{name}` is not a level; write error, warn, info, debug or trace")),
    }
}
