//! Which program this is.

/// The version of the release.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The commit it was built from, when whoever built it said so in `PORTICO_COMMIT`.
pub const COMMIT: Option<&str> = option_env!("PORTICO_COMMIT");

/// `linux/x86_64`
pub fn platform() -> String {
    format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH)
}

/// One line for a person: `portico 0.1.0 (linux/x86_64)`.
pub fn text() -> String {
    match COMMIT {
        Some(commit) => format!("portico {VERSION} ({commit}, {})", platform()),
        None => format!("portico {VERSION} ({})", platform()),
    }
}

/// The same for a program.
pub fn json() -> serde_json::Value {
    serde_json::json!({ "version": VERSION, "commit": COMMIT, "platform": platform() })
}
