//! Version information of this build.

/// The version of the release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Commit of the build, set by the build environment in `PORTICO_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("PORTICO_COMMIT");

/// Operating system and CPU architecture, for example `linux/x86_64`.
pub(crate) fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// Version, commit and platform as one line of text: `portico 0.1.0 (linux/x86_64)` if the commit is unknown.
pub fn text() -> String {
    match COMMIT {
        Some(commit) => format!("portico {VERSION} ({commit}, {})", platform()),
        None => format!("portico {VERSION} ({})", platform()),
    }
}

/// Version, commit and platform as JSON.
pub fn json() -> serde_json::Value {
    serde_json::json!({ "version": VERSION, "commit": COMMIT, "platform": platform() })
}
