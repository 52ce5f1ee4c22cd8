//! The paths of the servers of a document, which precede the paths of its operations.

use serde_json::Value;

use super::document::{ApiDocument, OpenApiVersion};

/// Paths without a slash at the end. There is at least one, which may be empty.
pub type BasePaths = Vec<String>;

/// The most servers that are read.
const MAX_SERVERS: usize = 16;

/// The base paths of a document: `basePath`, or the paths of `servers` with the default values of their variables.
pub fn base_paths(document: &ApiDocument) -> BasePaths {
    let mut paths: BasePaths = match document.version {
        OpenApiVersion::V2 => {
            document.root.get("basePath").and_then(Value::as_str).map(normalized).into_iter().collect()
        }
        OpenApiVersion::V30 | OpenApiVersion::V31 => {
            let servers = document.root.get("servers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            servers.iter().take(MAX_SERVERS).filter_map(path_of_server).collect()
        }
    };
    paths.sort();
    paths.dedup();
    if paths.is_empty() {
        paths.push(String::new());
    }
    paths
}

/// A path without a slash at the end.
pub(super) fn normalized(path: &str) -> String {
    let path = path.trim_end_matches('/');
    if path.is_empty() || path.starts_with('/') { path.to_owned() } else { format!("/{path}") }
}

fn path_of_server(server: &Value) -> Option<String> {
    let mut url = server.get("url")?.as_str()?.to_owned();
    if let Some(variables) = server.get("variables").and_then(Value::as_object) {
        for (name, variable) in variables.iter().take(MAX_SERVERS) {
            let default = variable.get("default").and_then(Value::as_str).unwrap_or_default();
            url = url.replace(&format!("{{{name}}}"), default);
        }
    }
    let rest = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').map_or("", |slash| &rest[slash..]),
        None => &url,
    };
    Some(normalized(rest.split(['?', '#']).next().unwrap_or_default()))
}
