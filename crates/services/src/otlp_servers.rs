//! The servers that get traces, the access log and metrics of the process by OTLP, as the flags `--…-otlp-endpoint`
//! configure them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow, bail};

use crate::args::{OtlpOptions, OtlpProtocolArg};
use crate::otlp_delivery::{OtlpProtocol, OtlpSignal};
use crate::plugin_api::batch_queue::{BatchQueue, QueueSettings};
use crate::plugin_api::otlp_messages::spans_and_logs::OtlpResource;
use crate::plugin_api::{BuildCx, BuildNotes, ClientCertificateFiles, PluginServices, PluginState, TlsFiles};
use crate::tls_files::{read_authorities, read_client_certificate};
use crate::tracer::{ExportFormat, ExportServer};
use crate::version::VERSION;

/// What the requests to all servers have in common.
pub struct OtlpServers<'a> {
    protocol: OtlpProtocol,
    headers: BTreeMap<String, String>,
    tls_files: Option<Arc<TlsFiles>>,
    state: &'a PluginState,
    services: &'a Arc<dyn PluginServices>,
    node: &'a str,
}

impl<'a> OtlpServers<'a> {
    /// Reads the files. Those with certificates are only checked, and read again for each connection.
    pub fn new(
        options: &OtlpOptions,
        state: &'a PluginState,
        services: &'a Arc<dyn PluginServices>,
        node: &'a str,
    ) -> anyhow::Result<Self> {
        let headers = match &options.headers_file {
            Some(path) => read_headers(path).with_context(|| format!("--otlp-headers-file {}", path.display()))?,
            None => BTreeMap::new(),
        };
        let tls_files = check_tls_files(options)?;
        let protocol = match options.protocol {
            OtlpProtocolArg::Grpc => OtlpProtocol::Grpc,
            OtlpProtocolArg::HttpProtobuf => OtlpProtocol::HttpProtobuf,
            OtlpProtocolArg::HttpJson => OtlpProtocol::HttpJson,
        };
        Ok(OtlpServers { protocol, headers, tls_files, state, services, node })
    }

    /// The queue of a server, which begins at once. The flag with its URL is the name in metrics, logs and messages, in
    /// the place of the object of a plugin.
    pub fn start(
        &self,
        flag: &'static str,
        url: &str,
        signal: OtlpSignal,
        queue: QueueSettings,
    ) -> anyhow::Result<Arc<BatchQueue>> {
        let url = match self.protocol {
            OtlpProtocol::Grpc => url.to_owned(),
            OtlpProtocol::HttpProtobuf | OtlpProtocol::HttpJson => with_path(url, signal),
        };
        if let Some(files) = &self.tls_files
            && !url.to_ascii_lowercase().starts_with("https://")
        {
            let file = if files.authorities.is_some() { "--otlp-ca-file" } else { "--otlp-client-cert-file" };
            bail!("{file} has no effect on {flag}, whose URL does not begin with https://; remove one of both");
        }
        let server = ExportServer {
            field: flag,
            url: &url,
            headers: &self.headers,
            format: ExportFormat::Otlp(self.protocol, signal),
            timeout: TIMEOUT,
            ssl_verify: true,
            tls_files: self.tls_files.clone(),
        };
        let notes = BuildNotes::default();
        let cx = BuildCx { object: flag, state: self.state, services: self.services, node: self.node, notes: &notes };
        server.start(queue, &cx).map_err(|problems| {
            let texts: Vec<_> =
                problems.iter().map(|problem| format!("{}; {}", problem.message, problem.remedy)).collect();
            anyhow::anyhow!("{flag}: {}", texts.join(". "))
        })
    }

    /// Which process it is.
    pub fn resource(&self) -> OtlpResource {
        let instance = ("service.instance.id", self.node);
        OtlpResource::new([("service.name", "portico"), ("service.version", VERSION), instance])
    }
}

/// The URL with the path of OTLP, unless it has another one.
fn with_path(url: &str, signal: OtlpSignal) -> String {
    let has_path = url.split_once("://").is_some_and(|(_, rest)| rest.trim_end_matches('/').contains(['/', '?']));
    if has_path { url.to_owned() } else { format!("{}/v1/{}", url.trim_end_matches('/'), signal.name()) }
}

/// The files of certificates, if there are any. They can be used.
fn check_tls_files(options: &OtlpOptions) -> anyhow::Result<Option<Arc<TlsFiles>>> {
    if let Some(path) = &options.ca_file {
        read_authorities(path).map_err(|problem| anyhow!("--otlp-ca-file {problem}"))?;
    }
    let client = options.client_certificate.clone();
    let client = client.map(|(certificate, key)| ClientCertificateFiles { certificate, key });
    if let Some(files) = &client {
        let read = read_client_certificate(files);
        read.map_err(|problem| anyhow!("--otlp-client-cert-file or --otlp-client-key-file {problem}"))?;
    }
    let files = TlsFiles { authorities: options.ca_file.clone(), client };
    Ok((files.authorities.is_some() || files.client.is_some()).then(|| Arc::new(files)))
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

/// The timeout of a request to a server, the one of OpenTelemetry's exporters.
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
            assert_eq!(with_path(url, OtlpSignal::Traces), expected, "{url}");
        }
        assert_eq!(with_path("http://a.example:4318", OtlpSignal::Metrics), "http://a.example:4318/v1/metrics");
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
