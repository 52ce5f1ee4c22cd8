//! Process logs: structured events on stderr, as text or JSON.

mod stderr;
mod targets;

use std::borrow::Cow;
use std::fmt::{self, Debug};
use std::str::FromStr;

use anstyle::Style;
use clap::ValueEnum;
use tracing::field::Field;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::field::MakeExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::fmt::format::{Writer, debug_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

pub use stderr::{flush, write_stderr};
use targets::{VisibleTargets, visible_target};

/// Log settings.
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

/// Minimum level of logged events: a default and exceptions for single modules.
#[derive(Clone, Debug, PartialEq)]
pub struct LogFilter(Targets);

/// Starts logging for the whole process; only the first call succeeds.
pub fn init(options: &LogOptions) -> Result<(), TryInitError> {
    subscriber(options, || stderr::Stderr).try_init()
}

fn subscriber<W>(options: &LogOptions, writer: W) -> impl Subscriber + Send + Sync + 'static
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(options.color);
    let layer = match options.format {
        LogFormat::Text => layer
            .fmt_fields(debug_fn(write_field).delimited(" "))
            .map_event_format(|format| VisibleTargets(format.with_ansi(options.color)))
            .boxed(),
        // Flat, so that each field of an event is a top-level field of the line for every log collector.
        LogFormat::Json => layer.json().flatten_event(true).with_ansi(false).map_event_format(VisibleTargets).boxed(),
    };
    tracing_subscriber::registry().with(layer.with_filter(VisibleTargets(options.filter.0.clone())))
}

/// Writes a field as `name=value`, or only its value if it is the message. Control characters are escaped because
/// values come from untrusted clients; the default of `tracing_subscriber` lets a `%value` control the terminal or
/// start a new line.
fn write_field(writer: &mut Writer<'_>, field: &Field, value: &dyn Debug) -> fmt::Result {
    if field.name() != "message" {
        let (name_style, equals_style) = match writer.has_ansi_escapes() {
            true => (Style::new().italic(), Style::new().dimmed()),
            false => (Style::new(), Style::new()),
        };
        write!(writer, "{name_style}{}{name_style:#}{equals_style}={equals_style:#}", field.name())?;
    }
    for character in format!("{value:?}").chars() {
        if character.is_control() {
            write!(writer, "{}", character.escape_default())?;
        } else {
            writer.write_char(character)?;
        }
    }
    Ok(())
}

/// Parses `LEVEL` followed by any number of `,MODULE=LEVEL`. The grammar of `tracing_subscriber` differs: it takes a
/// misspelled level for the name of a module.
impl FromStr for LogFilter {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut directives = text.split(',');
        let mut targets = Targets::new().with_default(level(directives.next().unwrap_or_default())?);
        for target in SILENCED_LIBRARIES {
            targets = targets.with_target(*target, LevelFilter::OFF);
        }
        for directive in directives {
            let (target, level_name) =
                directive.split_once('=').filter(|(target, _)| is_module(target)).ok_or_else(|| {
                    format!("`{directive}` is not MODULE=LEVEL; write for example info,portico::proxy=debug")
                })?;
            // Would match no event, because filters apply to the targets that users see.
            if let Cow::Owned(visible) = visible_target(target) {
                return Err(format!("`{directive}` names a crate; write {visible}={level_name}"));
            }
            targets = targets.with_target(target, level(level_name)?);
        }
        Ok(LogFilter(targets))
    }
}

/// Libraries that log each failed request to the API server, and each mistake of a client or endpoint, with which it
/// could fill the log. Portico logs the consequences once, or counts them. A filter that names one of these libraries
/// enables its log.
const SILENCED_LIBRARIES: &[&str] = &["h2", "hyper", "kube_client", "kube_runtime", "rustls"];

fn is_module(text: &str) -> bool {
    let is_name =
        |name: &str| !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    text.split("::").all(is_name)
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

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Arc;

    use parking_lot::Mutex;
    use tracing::{debug, info};

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// Returns the log output of `events`.
    fn logged(filter: &str, format: LogFormat, color: bool, events: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let writer = buffer.clone();
        let options = LogOptions { filter: filter.parse().unwrap(), format, color };
        tracing::subscriber::with_default(subscriber(&options, move || writer.clone()), events);
        String::from_utf8(std::mem::take(&mut buffer.0.lock())).unwrap()
    }

    #[test]
    fn json_lines_have_the_fields_of_the_event() {
        let line = logged("info", LogFormat::Json, true, || info!(routes = 3, "Swapped snapshot"));
        let event: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!((&event["level"], &event["message"]), (&"INFO".into(), &"Swapped snapshot".into()));
        assert_eq!((&event["routes"], &event["target"]), (&3.into(), &"portico::process_log::tests".into()));
        assert!(event["timestamp"].is_string());
    }

    #[test]
    fn color_is_optional() {
        let plain = logged("info", LogFormat::Text, false, || info!(routes = 3, "Swapped snapshot"));
        assert!(plain.ends_with(" INFO portico::process_log::tests: Swapped snapshot routes=3\n"), "{plain}");
        let colored = logged("info", LogFormat::Text, true, || info!("Swapped snapshot"));
        assert!(colored.contains('\u{1b}'), "{colored}");
    }

    #[test]
    fn control_characters_are_escaped() {
        let host = "a\u{1b}[2J\nb";
        let line = logged("info", LogFormat::Text, false, || info!(%host, "Refused {host}"));
        let escaped = r"a\u{1b}[2J\nb";
        assert!(line.ends_with(&format!(" Refused {escaped} host={escaped}\n")), "{line:?}");
    }

    #[test]
    fn modules_have_own_levels() {
        let events = || {
            info!(target: "portico::proxy::serve", "proxy info");
            debug!(target: "portico::proxy::serve", "proxy debug");
            info!(target: "portico::store", "store info");
        };
        for (filter, expected) in [
            ("info", &["proxy info", "store info"][..]),
            ("warn,portico::proxy=debug", &["proxy info", "proxy debug"]),
            ("debug,portico::proxy=error", &["store info"]),
            ("error", &[]),
        ] {
            assert_eq!(messages(filter, events), expected, "{filter}");
        }
    }

    #[test]
    fn modules_have_own_levels_in_all_crates() {
        let events = || {
            debug!(target: "portico_proxy::proxy::http", "http debug");
            info!(target: "portico_logins::plugins::jwt", "jwt info");
            debug!(target: "portico_logins::plugins::jwt", "jwt debug");
            debug!(target: "kube::portico_proxy::proxy", "library debug");
        };
        for (filter, expected) in [
            ("info", &["jwt info"][..]),
            ("info,portico::proxy=debug", &["http debug", "jwt info"]),
            ("error,portico::plugins::jwt=debug", &["jwt info", "jwt debug"]),
            ("debug,portico::plugins=info", &["http debug", "jwt info", "library debug"]),
            ("error,portico=debug", &["http debug", "jwt info", "jwt debug"]),
            ("debug,portico=error", &["library debug"]),
        ] {
            assert_eq!(messages(filter, events), expected, "{filter}");
        }
    }

    /// Returns the messages of the lines of `events`.
    fn messages(filter: &str, events: impl FnOnce()) -> Vec<String> {
        let message_of = |line| {
            let event: serde_json::Value = serde_json::from_str(line).unwrap();
            event["message"].as_str().unwrap().to_owned()
        };
        logged(filter, LogFormat::Json, false, events).lines().map(message_of).collect()
    }

    #[test]
    fn lines_of_all_crates_have_the_targets_that_users_know() {
        let in_span = |event: fn()| tracing::info_span!("HTTP", url = "/").in_scope(event);
        for (format, color) in [(LogFormat::Text, false), (LogFormat::Text, true), (LogFormat::Json, false)] {
            // Without the time.
            let line =
                |event: fn()| logged("info", format, color, || in_span(event)).split_once("INFO").unwrap().1.to_owned();
            let translated = line(|| info!(target: "portico_proxy::proxy::http", routes = 3, "In portico_proxy"));
            assert_eq!(translated, line(|| info!(target: "portico::proxy::http", routes = 3, "In portico_proxy")));
            assert!(translated.contains("portico::proxy::http"), "{translated}");
            let library = line(|| info!(target: "kube::portico_proxy", "Connected"));
            assert!(library.contains("kube::portico_proxy"), "{library}");
        }
    }

    #[test]
    fn libraries_that_log_mistakes_of_peers_are_silent_unless_they_are_named() {
        for module in ["rustls", "h2", "hyper"] {
            let named = format!("info,{module}=warn");
            for (filter, expected) in [("info", false), ("debug", false), (&*named, true)] {
                let log = logged(filter, LogFormat::Text, false, || match module {
                    "rustls" => tracing::warn!(target: "rustls::common_state", "Mistake"),
                    "h2" => tracing::warn!(target: "h2::proto::streams::streams", "Mistake"),
                    _ => tracing::warn!(target: "hyper::proto::h2", "Mistake"),
                });
                assert_eq!(log.contains("Mistake"), expected, "{module} with {filter}");
            }
        }
    }

    #[test]
    fn invalid_filters_are_rejected() {
        let cases = [
            ("", "`` is not a level; write error, warn, info, debug or trace"),
            ("inof", "`inof` is not a level; write error, warn, info, debug or trace"),
            ("INFO", "`INFO` is not a level; write error, warn, info, debug or trace"),
            ("info,debug", "`debug` is not MODULE=LEVEL; write for example info,portico::proxy=debug"),
            ("info,a b=debug", "`a b=debug` is not MODULE=LEVEL; write for example info,portico::proxy=debug"),
            ("info,a::=debug", "`a::=debug` is not MODULE=LEVEL; write for example info,portico::proxy=debug"),
            ("info,a=loud", "`loud` is not a level; write error, warn, info, debug or trace"),
            ("info,", "`` is not MODULE=LEVEL; write for example info,portico::proxy=debug"),
            (
                "info,portico_logins::plugins::jwt=debug",
                "`portico_logins::plugins::jwt=debug` names a crate; write portico::plugins::jwt=debug",
            ),
            ("info,portico_proxy=debug", "`portico_proxy=debug` names a crate; write portico=debug"),
        ];
        for (text, expected) in cases {
            assert_eq!(text.parse::<LogFilter>(), Err(expected.to_owned()), "{text:?}");
        }
    }
}
