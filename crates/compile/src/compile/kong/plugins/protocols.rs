//! The field `protocols` of a KongPlugin: what a plugin supports, and whether it runs for requests.

use crate::api::kong::PluginSettings;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::AnyPluginKind;
use crate::plugin_api::kind::{HTTP_FAMILY, STREAM_FAMILY};

/// Diagnostics about protocols that the plugin does not support.
pub(super) fn unsupported(kind: &dyn AnyPluginKind, settings: &PluginSettings) -> Vec<Diagnostic> {
    let supported = kind.protocols();
    let is_supported = |name: &str| supported.contains(&name) || is_of_http(name);
    let unsupported = settings.protocols.iter().enumerate().filter(|(_, name)| !is_supported(name));
    let problem = |(index, name): (usize, &String)| {
        let message = format!("{} does not support {name}", kind.name());
        Diagnostic::error(
            format!("protocols[{index}]"),
            message,
            format!("use one or more of {}", supported.join(", ")),
        )
    };
    unsupported.map(problem).collect()
}

/// Whether all protocols are stream protocols, so the plugin does not run for requests. As in Kong, a plugin with any
/// protocol of HTTP runs for all requests, so `protocols: [https]` also covers plain text and gRPC. An unknown name may
/// be meant as one of HTTP.
pub(super) fn are_only_of_streams(settings: &PluginSettings) -> bool {
    !settings.protocols.is_empty() && settings.protocols.iter().all(|name| STREAM_FAMILY.contains(&&**name))
}

/// The diagnostic about stream protocols of a plugin that supports only requests in this version.
pub(super) fn problem_of_streams(kind: &dyn AnyPluginKind) -> Diagnostic {
    let message = format!(
        "these are stream protocols, for which {} is not supported by this version, so the plugin never runs",
        kind.name()
    );
    Diagnostic::error("protocols", message, format!("use one or more of {}", HTTP_FAMILY.join(", ")))
}

/// Whether a plugin with this protocol runs for requests. All plugins support these protocols.
pub(super) fn is_of_http(name: &str) -> bool {
    HTTP_FAMILY.contains(&name) || matches!(name, "ws" | "wss")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn unknown_names_are_no_stream_protocols() {
        for (protocols, expected) in [
            (&[][..], false),
            (&["tcp", "tls"], true),
            (&["tcp", "http"], false),
            (&["ws"], false),
            (&["htp"], false),
            (&["HTTP"], false),
            (&["tcp", "HTTP"], false),
        ] {
            let settings = serde_json::from_value(json!({"plugin": "key-auth", "protocols": protocols})).unwrap();
            assert_eq!(are_only_of_streams(&settings), expected, "{protocols:?}");
        }
    }
}
