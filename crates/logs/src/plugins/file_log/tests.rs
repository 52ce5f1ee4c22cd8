//! Tests of the configuration.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::{FileLog, LogFolder};
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::testing::{build_with, notes};

const KIND: RegisteredKind<FileLog> = RegisteredKind::NEW;

/// The message of the configuration in a gateway with this folder.
fn error(folder: Option<&str>, path: &str) -> Option<String> {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let _folder = LogFolder::set(&state, folder.map(PathBuf::from));
    let invalid = build_with(&KIND, &json!({"path": path}), &state, &services).err()?;
    let [diagnostic] = &invalid[..] else { panic!("{path}: {invalid:?}") };
    assert_eq!(diagnostic.field, "config.path");
    Some(diagnostic.message.clone())
}

// docs/kong-compatibility.md, 4.10
#[test]
fn files_are_in_the_folder_of_the_gateway() {
    let not_of_kong = Some("is not a name that Kong accepts");
    let outside = Some("is outside of the folder for logs of plugins");
    let not_plain = Some("is not the absolute path of a file");
    for (path, expected) in [
        ("/dev/stdout", None),
        ("/dev/stderr", None),
        ("/logs/requests.json", None),
        ("/logs/shop/requests.json", None),
        ("/logs", outside),
        ("/logs2/requests.json", outside),
        ("/etc/passwd", outside),
        ("/logs/../etc/passwd", not_plain),
        ("logs/requests.json", not_plain),
        ("/logs/", not_plain),
        ("/logs/a\0b", not_plain),
        ("", Some("is missing")),
        ("/logs/o vo.log", None),
        ("/logs/ovo*", not_of_kong),
        ("/logs/ovo`", not_of_kong),
        ("/logs/a&b", not_of_kong),
        ("/logs/a%b", not_of_kong),
        ("/logs/a\\b", not_of_kong),
        ("/logs/ovo  ", not_of_kong),
        (" /logs/ovo", not_plain),
    ] {
        assert_eq!(error(Some("/logs"), path).as_deref(), expected, "{path:?}");
    }
}

#[test]
fn without_a_folder_there_are_only_the_streams_of_the_process() {
    assert_eq!(error(None, "/dev/stdout"), None);
    let expected = "is a file, and the gateway has no folder for logs of plugins";
    assert_eq!(error(None, "/logs/requests.json").as_deref(), Some(expected));
}

/// `portico check` does not know the flags of the gateway.
#[test]
fn any_file_is_valid_where_the_folder_is_unknown() {
    assert!(notes(&KIND, &json!({"path": "/logs/requests.json"})).is_empty());
    let notes = notes(&KIND, &json!({"path": "/logs/requests.json", "reopen": true}));
    assert_eq!(notes[0].field, "config.reopen");
}
