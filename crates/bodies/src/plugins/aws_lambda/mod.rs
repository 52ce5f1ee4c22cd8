//! `aws-lambda`: invokes a function of AWS Lambda and responds with its result.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: thumbnails
//! plugin: aws-lambda
//! config:
//!   aws_region: eu-west-1
//!   aws_key: {secretKeyRef: {name: aws, key: access-key}}
//!   aws_secret: {secretKeyRef: {name: aws, key: secret-key}}
//!   function_name: thumbnails
//!   awsgateway_compatible: true
//!   is_proxy_integration: true
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: aws
//! stringData:
//!   access-key: AKIDEXAMPLE
//!   secret-key: only-for-trying-it-out
//! ```
//!
//! The function takes the place of the backend: the request is never forwarded, and the rule needs no backend. What
//! other plugins and the authorization server of the rule reject does not reach the function. The payload contains the
//! request that a backend would get: as other plugins, the authorization server and the filters of the rule have
//! changed it. Mirrors, timeouts and retries cannot apply, so a rule with them is invalid; sessions have no effect.

mod config;
mod payload;
mod result;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderName, HeaderValue, Method, StatusCode, request};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::aws_environment::AwsKeys;
use crate::plugin_api::aws_environment::is_region;
use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind};
use crate::plugin_api::remote::is_host;
use crate::plugin_api::{BackendReplacement, Plugin, RemoteUrl, ReplaceBackendCx, Reply, ReplyBody};
use crate::plugin_kit::aws_credentials::{AwsCredentials, MetadataVersion, StsEndpoint, amazon_host};
use crate::plugin_kit::aws_signature::{SigningScope, sign};
use crate::plugin_kit::form_body::query_value;
use crate::plugin_kit::remote_server::{RemoteServer, RemoteServerConfig};
use config::{Config, ImdsVersion, InvocationType, LogType, PayloadVersion};
use payload::{ForwardedParts, PayloadFormat};
use result::ResultMapping;

pub(crate) struct AwsLambda {
    server: RemoteServer,
    /// The outer one is what a rebuilt plugin finds in the state of plugins.
    #[expect(
        clippy::redundant_allocation,
        reason = "the state of plugins finds the outer one, and calls share the inner one"
    )]
    credentials: Arc<Arc<AwsCredentials>>,
    region: String,
    invocation_type: InvocationType,
    log_type: LogType,
    format: PayloadFormat,
    encodes_body: bool,
    skips_large_bodies: bool,
    preserves_status: bool,
    mapping: ResultMapping,
}

/// Maximum size in bytes of a request body. Lambda accepts payloads of 6 MB, and base64 adds a third.
const MAX_BODY: usize = 4 << 20;
/// Maximum size in bytes of a result, above the 6 MB of Lambda.
const MAX_RESULT: usize = 7 << 20;
const INVOCATION_TYPE: HeaderName = HeaderName::from_static("x-amz-invocation-type");
const LOG_TYPE: HeaderName = HeaderName::from_static("x-amz-log-type");

impl PluginKind for AwsLambda {
    const NAME: &'static str = "aws-lambda";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 750;
    const PHASES: Phases = Phases::REPLACE_BACKEND;
    // Requests to a function must not reach a backend.
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if config.function_name.is_empty() {
            let remedy = "set it to the name or the ARN of the function";
            invalid.push(Diagnostic::in_config("function_name", "is missing", remedy));
        }
        if config.proxy_url.is_some() {
            let remedy = "remove it, and let the cluster route requests to AWS";
            invalid.push(Diagnostic::in_config("proxy_url", "is not supported", remedy));
        }
        let unhandled_status = config.unhandled_status.and_then(|status| {
            let parsed = StatusCode::from_u16(status).ok().filter(|_| status >= 200);
            if parsed.is_none() {
                let message = format!("{status} is not a status of a response");
                invalid.push(Diagnostic::in_config("unhandled_status", message, "use 200 to 999"));
            }
            parsed
        });
        let environment = cx.services.aws_environment();
        let region = config.aws_region.clone().or_else(|| environment.as_ref()?.region.clone());
        let region = match region {
            Some(region) if is_region(&region) => region,
            Some(_) => {
                let remedy = "use the name of a region, such as eu-west-1";
                invalid.push(Diagnostic::in_config("aws_region", "is not a region", remedy));
                String::new()
            }
            // Test servers check no region.
            None if config.host.is_some() => "us-east-1".to_owned(),
            None => {
                let remedy = "set it to the region of the function, such as eu-west-1";
                invalid.push(Diagnostic::in_config("aws_region", "is missing", remedy));
                String::new()
            }
        };
        let credentials = config.credentials(&region, cx).map_err(|errors| invalid.extend(errors));
        let url = config.url(&region).map_err(|error| invalid.push(error));
        let (Ok(credentials), Ok(url), []) = (credentials, url, &invalid[..]) else { return Err(invalid) };
        let server = RemoteServerConfig {
            field: "host",
            url: &url,
            timeout_field: "timeout",
            timeout: config.timeout,
            keep_alive: config.keepalive,
            verify: config.ssl_verify,
            max_response: MAX_RESULT,
        };
        Ok(AwsLambda {
            server: RemoteServer::new(server, cx)?,
            credentials,
            region,
            invocation_type: config.invocation_type,
            log_type: config.log_type,
            format: config.payload_format(),
            encodes_body: config.base64_encode_body,
            skips_large_bodies: config.skip_large_bodies,
            preserves_status: config.preserve_lambda_api_error_code,
            mapping: ResultMapping {
                is_proxy_integration: config.is_proxy_integration,
                unhandled_status,
                log_type: config.log_type,
                empty_arrays: config.empty_arrays_mode,
            },
        })
    }
}

impl Plugin for AwsLambda {
    fn replace_backend<'a>(&'a self, cx: &'a mut ReplaceBackendCx<'_>) -> BackendReplacement<'a> {
        BackendReplacement::Wait(Box::pin(self.invoke(cx)))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        let length = head.headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
        !self.skips_large_bodies || length.is_none_or(|length| length <= MAX_BODY as u64)
    }
}

impl AwsLambda {
    async fn invoke(&self, cx: &mut ReplaceBackendCx<'_>) -> Box<Reply> {
        let payload = Bytes::from(self.format.payload(cx, self.encodes_body).to_string());
        let (now, client, log_type) = (cx.now, cx.client.address, self.log_type);
        let scope = SigningScope { region: &self.region, service: "lambda" };
        let is_expected: fn(StatusCode) -> bool =
            if self.preserves_status { |_| true } else { |status| status.is_success() || status.is_redirection() };
        let sending = self.credentials.with_keys(now, |keys| {
            let mut is_signed = None;
            let pending = self.server.begin(client, |request| {
                request.method = Method::POST;
                let headers = &mut request.headers;
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                headers.insert(INVOCATION_TYPE, HeaderValue::from_static(self.invocation_type.as_str()));
                if log_type == LogType::Tail {
                    headers.insert(LOG_TYPE, HeaderValue::from_static("Tail"));
                }
                request.body = payload;
                is_signed = sign(request, keys, scope, now);
            });
            is_signed.map(|()| pending)
        });
        let pending = match sending.await {
            Ok(Some(pending)) => pending,
            Ok(None) => {
                self.server.failed("the credentials cannot be sent in a header");
                return no_result();
            }
            Err(error) => {
                self.server.failed(&format!("there are no credentials: {error}"));
                return no_result();
            }
        };
        let mut kept = cx.body_budget.begin();
        let Ok(response) = pending.collect(is_expected, &mut *kept).await else { return no_result() };
        cx.kept.push(kept);
        let status = response.status;
        if status.is_client_error() || status.is_server_error() {
            return Reply::negotiated(status, "An unexpected error occurred", "invocation_refused");
        }
        self.mapping.reply(response).unwrap_or_else(|error| {
            let error = format!("could not JSON decode Lambda function response: {error}");
            let body = serde_json::json!({"message": "Bad Gateway", "error": error}).to_string();
            Reply::new(StatusCode::BAD_GATEWAY, ReplyBody::Raw(body.into()), "invalid_function_result")
                .with_header(CONTENT_TYPE, HeaderValue::from_static("application/json; charset=utf-8"))
        })
    }
}

/// The reply if there is no result.
fn no_result() -> Box<Reply> {
    Reply::negotiated(StatusCode::INTERNAL_SERVER_ERROR, "An unexpected error occurred", "no_function_result")
}

impl Config {
    fn url(&self, region: &str) -> Result<String, Diagnostic> {
        let without_brackets = |host: &str| host.strip_prefix('[')?.strip_suffix(']').map(str::to_owned);
        let host = match &self.host {
            Some(host) if !is_host(without_brackets(host).as_deref().unwrap_or(host)) => {
                let remedy = "set it to a name or an IP address, without scheme, port and path";
                return Err(Diagnostic::in_config("host", "is not a host", remedy));
            }
            Some(host) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
            Some(host) => host.clone(),
            None => amazon_host("lambda", region),
        };
        if self.port == 0 {
            return Err(Diagnostic::in_config("port", "must not be 0", "set it to the port of the Lambda API"));
        }
        let (scheme, default_port) = if self.disable_https { ("http", 80) } else { ("https", 443) };
        // The header Host, which is signed, has no default port.
        let port = if self.port == default_port { String::new() } else { format!(":{}", self.port) };
        let function = query_value(&self.function_name);
        let qualifier = self.qualifier.as_deref().map(|qualifier| format!("?Qualifier={}", query_value(qualifier)));
        let qualifier = qualifier.unwrap_or_default();
        Ok(format!("{scheme}://{host}{port}/2015-03-31/functions/{function}/invocations{qualifier}"))
    }

    fn payload_format(&self) -> PayloadFormat {
        let parts = ForwardedParts {
            method: self.forward_request_method,
            uri: self.forward_request_uri,
            headers: self.forward_request_headers,
            body: self.forward_request_body,
        };
        match (self.awsgateway_compatible, self.awsgateway_compatible_payload_version) {
            (true, PayloadVersion::V1) => PayloadFormat::GatewayV1,
            (true, PayloadVersion::V2) => PayloadFormat::GatewayV2,
            _ if parts.method || parts.uri || parts.headers || parts.body => PayloadFormat::Parts(parts),
            _ => PayloadFormat::Merged,
        }
    }

    /// A plugin that is rebuilt with the same credentials keeps what was issued for them.
    #[expect(
        clippy::redundant_allocation,
        reason = "the state of plugins finds the outer one, and calls share the inner one"
    )]
    fn credentials(&self, region: &str, cx: &BuildCx<'_>) -> Result<Arc<Arc<AwsCredentials>>, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let environment = cx.services.aws_environment();
        let own_keys = match (&self.aws_key, &self.aws_secret) {
            (Some(access_key), Some(secret_key)) => {
                Some(AwsKeys { access_key: access_key.clone(), secret_key: secret_key.clone(), session_token: None })
            }
            (None, None) => {
                if environment.is_none() {
                    let message = "is missing, and plugins may not use the credentials of Portico's own Pod";
                    let remedy = "set aws_key and aws_secret to references such as {secretKeyRef: {name: aws, key: \
                                  access-key}}; the operator of Portico can permit the Pod's credentials with \
                                  --allow-aws-pod-credentials";
                    invalid.push(Diagnostic::in_config("aws_key", message, remedy));
                }
                None
            }
            (Some(_), None) => {
                invalid.push(Diagnostic::in_config("aws_secret", "is missing, but aws_key is set", "set both or none"));
                None
            }
            (None, Some(_)) => {
                invalid.push(Diagnostic::in_config("aws_key", "is missing, but aws_secret is set", "set both or none"));
                None
            }
        };
        let amazon_url = format!("https://{}/", amazon_host("sts", region));
        let url = self.aws_sts_endpoint_url.as_deref().unwrap_or(&amazon_url);
        let own_sts = RemoteUrl::parse(url).map_err(|error| {
            let remedy = "set it to the URL of the server, such as https://sts.eu-west-1.amazonaws.com";
            invalid.push(Diagnostic::in_config("aws_sts_endpoint_url", error, remedy));
        });
        if let Ok(url) = &own_sts {
            invalid.extend(cx.check_host("aws_sts_endpoint_url", &url.host));
        }
        let amazon_sts = RemoteUrl::parse(&amazon_url);
        let (Ok(own_sts), Ok(amazon_sts), []) = (own_sts, amazon_sts, &invalid[..]) else { return Err(invalid) };
        let endpoint = |url: RemoteUrl, verify: bool| StsEndpoint {
            url,
            region: region.to_owned(),
            namespace: cx.namespace().map(str::to_owned),
            verify,
        };
        let identity = (&self.aws_key, &self.aws_secret, &self.aws_assume_role_arn, &self.aws_role_session_name);
        let servers = (&self.aws_sts_endpoint_url, self.ssl_verify, region, self.aws_imds_protocol_version);
        let fingerprint = hex(&sha256(format!("{identity:?} {servers:?}").as_bytes()));
        let name = format!("{} aws credentials {fingerprint}", cx.object);
        let metadata = match self.aws_imds_protocol_version {
            ImdsVersion::V1 => MetadataVersion::V1,
            ImdsVersion::V2 => MetadataVersion::V2,
        };
        Ok(cx.state.get_or_create(&name, || {
            let base = match (own_keys, environment) {
                (Some(keys), _) => AwsCredentials::of_keys(keys, cx.services),
                // The token of the Pod is a secret of the operator: it only goes to Amazon, with a verified name.
                (None, environment) => AwsCredentials::of_environment(
                    &environment.unwrap_or_default(),
                    metadata,
                    endpoint(amazon_sts, true),
                    cx.services,
                ),
            };
            match &self.aws_assume_role_arn {
                None => base,
                Some(role) => {
                    let session = self.aws_role_session_name.clone();
                    base.assuming(role.clone(), session, endpoint(own_sts, self.ssl_verify))
                }
            }
        }))
    }
}
