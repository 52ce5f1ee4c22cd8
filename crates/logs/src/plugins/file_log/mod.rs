//! `file-log`: appends a line with a JSON object about each request to a file of the gateway's machine.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: log
//! plugin: file-log
//! config: {path: /dev/stdout}
//! ```
//!
//! `path` is `/dev/stdout`, `/dev/stderr`, or a file in the folder of `--file-log-folder`: without that limit, the
//! permission to create a KongPlugin would be one to append to any file of the gateway. The file is created with the
//! mode 0644, and opened for each batch of lines, so that it may be moved at any time.
//!
//! Requests never wait for the disk. Lines wait in a queue of at most 10,000, which is also limited by
//! `--max-queued-bytes`. If the file cannot be written, the conditions of the object say so, and lines are written
//! again for a minute. The metrics `portico_plugin_queue_…` count what is written and what is dropped.
//!
//! The objects are those of the plugin `http-log`, without credentials.

mod line_file;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use bytes::Bytes;
use schemars::JsonSchema;
use serde::Deserialize;

use self::line_file::LineFile;
use crate::diagnostic::Diagnostic;
use crate::log_delivery::{DEFAULT_LOG_QUEUE, DeliveryReports};
use crate::plugin_api::batch_queue::BatchQueue;
use crate::plugin_api::{BuildCx, LogCx, Phases, Plugin, PluginKind, PluginState};
use crate::plugin_kit::log_fields::CustomFields;

/// Appends logs of requests to a file.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The file: `/dev/stdout`, `/dev/stderr`, or a path in the folder of `--file-log-folder`.
    path: Option<String>,
    /// No effect: the file is always opened again.
    reopen: bool,
    /// Fields to add to the objects: the value of each field is that of an expression in a subset of Lua, as in
    /// http-log.
    custom_fields_by_lua: BTreeMap<String, String>,
}

pub(crate) struct FileLog {
    queue: Arc<BatchQueue>,
    custom_fields: CustomFields,
}

/// The folder in which plugins may write files. In effect while `app` holds it.
pub struct LogFolder(Option<PathBuf>);

impl LogFolder {
    /// Sets the folder of the process.
    pub fn set(state: &PluginState, folder: Option<PathBuf>) -> Arc<Self> {
        state.get_or_create(NAME, || LogFolder(folder))
    }
}

impl PluginKind for FileLog {
    const NAME: &'static str = NAME;
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 9;
    const PHASES: Phases = Phases::LOG;
    const FAIL_CLOSED: bool = false;
    const LOGS_SESSIONS: bool = true;
    type Config = Config;
    type Plugin = FileLog;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        // `portico check` does not know the folder of the gateway.
        let folder = cx.state.get::<LogFolder>(NAME);
        let path = parse_path(config.path.as_deref(), folder.as_deref());
        let path = path.map_err(|error| invalid.push(error)).ok();
        let custom_fields = CustomFields::parse(&config.custom_fields_by_lua, &mut invalid);
        let (Some(path), true) = (path, invalid.is_empty()) else { return Err(invalid) };
        if config.reopen {
            cx.note(Diagnostic::in_config("reopen", "has no effect: the file is always opened again", "remove it"));
        }
        let queue = cx.state.get_or_create(&format!("{} {path:?}", cx.object), || {
            let file = LineFile::new(path.clone(), DeliveryReports::new("path", cx));
            BatchQueue::start(DEFAULT_LOG_QUEUE, Arc::new(file), cx)
        });
        Ok(FileLog { queue, custom_fields })
    }
}

impl Plugin for FileLog {
    fn log(&self, cx: &LogCx<'_>) {
        self.queue.push_for(&cx.names.namespace, Bytes::from(self.custom_fields.object(cx)));
    }

    fn logs_heads(&self) -> bool {
        true
    }
}

fn parse_path(text: Option<&str>, folder: Option<&LogFolder>) -> Result<PathBuf, Diagnostic> {
    let invalid = |message: &str, remedy: &str| Err(Diagnostic::in_config("path", message, remedy));
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        return invalid("is missing", "set it to the file, such as /dev/stdout");
    };
    let path = Path::new(text);
    if [STDOUT, STDERR].contains(&text) {
        return Ok(path.to_owned());
    }
    let is_plain = path.components().all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !path.is_absolute() || !is_plain || text.ends_with('/') || text.contains('\0') {
        return invalid("is not the absolute path of a file", "write the whole path without `..`");
    }
    if text.contains(['*', '&', '%', '`', '\\']) || text.ends_with(char::is_whitespace) {
        let remedy = "use a name without `*`, `&`, `%`, backticks, backslashes, and without spaces at its end";
        return invalid("is not a name that Kong accepts", remedy);
    }
    match folder {
        None => Ok(path.to_owned()),
        Some(LogFolder(Some(folder))) if path.starts_with(folder) && path != folder => Ok(path.to_owned()),
        Some(LogFolder(Some(folder))) => {
            let remedy = format!("use /dev/stdout, or a file in {}, the folder of --file-log-folder", folder.display());
            invalid("is outside of the folder for logs of plugins", &remedy)
        }
        Some(LogFolder(None)) => {
            let remedy = "use /dev/stdout, or start the gateway with --file-log-folder and write into that folder";
            invalid("is a file, and the gateway has no folder for logs of plugins", remedy)
        }
    }
}

const NAME: &str = "file-log";
const STDOUT: &str = "/dev/stdout";
const STDERR: &str = "/dev/stderr";
