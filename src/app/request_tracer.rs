//! Traces of all requests, as the flags `--trace-…` configure them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};

use crate::args::{OtlpProtocolArg, TraceFormatArg, TraceOptions};
use crate::plugin_api::log_delivery::DEFAULT_LOG_QUEUE;
use crate::plugin_api::otlp_delivery::{OtlpProtocol, OtlpSignal};
use crate::plugin_api::trace::TraceFormat;
use crate::plugin_api::trace::otlp::OtlpResource;
use crate::plugin_api::tracer::{ExportFormat, ExportServer};
use crate::plugin_api::{BuildCx, BuildNotes, PluginServices, PluginState};
use crate::proxy::{LateRecording, RequestTracer};
use crate::version::VERSION;

/// The tracer, whose queue begins at once.
pub(super) fn start(
    options: &TraceOptions,
    state: &PluginState,
    services: &Arc<dyn PluginServices>,
    node: &str,
) -> anyhow::Result<RequestTracer> {
    let headers = match &options.headers_file {
        Some(path) => read_headers(path).with_context(|| format!("--trace-headers-file {}", path.display()))?,
        None => BTreeMap::new(),
    };
    let protocol = match options.protocol {
        OtlpProtocolArg::Grpc => OtlpProtocol::Grpc,
        OtlpProtocolArg::HttpProtobuf => OtlpProtocol::HttpProtobuf,
        OtlpProtocolArg::HttpJson => OtlpProtocol::HttpJson,
    };
    let url = match protocol {
        OtlpProtocol::Grpc => options.endpoint.clone(),
        OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => with_path(&options.endpoint),
    };
    let server = ExportServer {
        field: OBJECT,
        url: &url,
        headers: &headers,
        format: ExportFormat::Otlp(protocol, OtlpSignal::Traces),
        timeout: TIMEOUT,
        ssl_verify: true,
    };
    let notes = BuildNotes::default();
    let cx = BuildCx { object: OBJECT, state, services, node, notes: &notes };
    let queue = match server.start(DEFAULT_LOG_QUEUE, &cx) {
        Ok(queue) => queue,
        Err(problems) => {
            let texts: Vec<_> =
                problems.iter().map(|problem| format!("{}; {}", problem.message, problem.remedy)).collect();
            bail!("{OBJECT}: {}", texts.join(". "));
        }
    };
    let resource =
        OtlpResource::new([("service.name", "portico"), ("service.version", VERSION), ("service.instance.id", node)]);
    let formats: Vec<_> = options.propagation.iter().copied().map(format).collect();
    let late = LateRecording::new(options.errors, options.slow);
    Ok(RequestTracer::new(options.sampling, late, &formats, resource, queue))
}

/// The URL with the path of OTLP, unless it has another one.
fn with_path(url: &str) -> String {
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains(['/', '?']));
    if has_path { url.to_owned() } else { format!("{}/v1/traces", url.trim_end_matches('/')) }
}

/// Reads a file with a header in each line. Messages contain no values, which may be secrets.
fn read_headers(path: &Path) -> anyhow::Result<BTreeMap<String, String>> {
    parse_headers(&std::fs::read_to_string(path)?)
}

fn parse_headers(text: &str) -> anyhow::Result<BTreeMap<String, String>> {
    let mut headers = BTreeMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let Some((name, value)) = line.split_once(':') else {
            bail!("line {} is not a header; write `Name: value`", index + 1);
        };
        headers.insert(name.trim().to_owned(), value.trim().to_owned());
    }
    Ok(headers)
}

fn format(format: TraceFormatArg) -> TraceFormat {
    match format {
        TraceFormatArg::W3c => TraceFormat::W3c,
        TraceFormatArg::B3 => TraceFormat::B3,
        TraceFormatArg::B3Single => TraceFormat::B3Single,
        TraceFormatArg::Jaeger => TraceFormat::Jaeger,
        TraceFormatArg::Ot => TraceFormat::Ot,
        TraceFormatArg::Datadog => TraceFormat::Datadog,
        TraceFormatArg::Aws => TraceFormat::Aws,
        TraceFormatArg::Gcp => TraceFormat::Gcp,
        TraceFormatArg::Instana => TraceFormat::Instana,
    }
}

/// The name in metrics, logs and messages, in the place of the object of a plugin.
const OBJECT: &str = "--trace-otlp-endpoint";
/// The timeout of a request to the server, the one of OpenTelemetry's exporters.
const TIMEOUT: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_without_a_path_get_that_of_the_protocol() {
        for (url, expected) in [
            ("http://a.example:4318", "http://a.example:4318/v1/traces"),
            ("http://a.example:4318/", "http://a.example:4318/v1/traces"),
            ("https://a.example/otlp/v1/traces", "https://a.example/otlp/v1/traces"),
            ("https://a.example/?key=a", "https://a.example/?key=a"),
        ] {
            assert_eq!(with_path(url), expected, "{url}");
        }
    }

    #[test]
    fn headers_are_lines_and_messages_contain_no_values() {
        let headers = parse_headers("Authorization: Bearer a:b\n\n x-tenant:shop\n").unwrap();
        let expected = [("Authorization", "Bearer a:b"), ("x-tenant", "shop")];
        assert!(headers.iter().map(|(name, value)| (&**name, &**value)).eq(expected), "{headers:?}");
        let error = parse_headers("a: b\nsecret").unwrap_err().to_string();
        assert!(error.contains("line 2") && !error.contains("secret"), "{error}");
    }
}
