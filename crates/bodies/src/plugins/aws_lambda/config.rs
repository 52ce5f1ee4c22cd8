//! The configuration of `aws-lambda`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Invokes a function of AWS Lambda and responds with its result.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[expect(clippy::struct_excessive_bools, reason = "each is a field of Kong's plugin")]
pub(crate) struct Config {
    /// Name, partial ARN or ARN of the function. Required.
    pub(super) function_name: String,
    /// Version or alias of the function.
    pub(super) qualifier: Option<String>,
    /// Region of the function. Required, unless `host` is set or Portico's own environment has one and its credentials
    /// are permitted.
    pub(super) aws_region: Option<String>,
    /// Access key, with `aws_secret`. Without both, the credentials are those of Portico's own Pod, which the operator
    /// of Portico has to permit with `--allow-aws-pod-credentials`.
    pub(super) aws_key: Option<String>,
    /// Secret access key. Write a reference to a Secret.
    pub(super) aws_secret: Option<String>,
    /// Role that the credentials assume, as an ARN.
    pub(super) aws_assume_role_arn: Option<String>,
    /// Name of the session of the role.
    pub(super) aws_role_session_name: String,
    /// URL of the server that issues the credentials of `aws_assume_role_arn`. The default is that of the region.
    pub(super) aws_sts_endpoint_url: Option<String>,
    /// Version of the protocol of the machine's metadata service, for credentials of Portico's own machine.
    pub(super) aws_imds_protocol_version: ImdsVersion,
    /// Host of the Lambda API. The default is that of the region.
    pub(super) host: Option<String>,
    /// Port of the Lambda API.
    pub(super) port: u16,
    /// Use HTTP instead of HTTPS.
    pub(super) disable_https: bool,
    /// Whether to verify the certificates of the Lambda API and of the server in `aws_sts_endpoint_url`.
    pub(super) ssl_verify: bool,
    /// Not supported: proxies between Portico and AWS.
    pub(super) proxy_url: Option<String>,
    /// Timeout of an invocation in milliseconds, from connecting to the end of the response. At most 60000 takes
    /// effect.
    pub(super) timeout: u32,
    /// How many milliseconds an idle connection is kept open. At most 600000 takes effect.
    pub(super) keepalive: u32,
    /// How the function is invoked: `RequestResponse` waits for its result, `Event` does not, and `DryRun` only checks
    /// whether it could be invoked.
    pub(super) invocation_type: InvocationType,
    /// With `Tail`, the client gets the end of the function's log in `X-Amz-Log-Result`.
    pub(super) log_type: LogType,
    /// Status of responses to invocations in which the function has failed, 200 to 999. The default is the status of
    /// the invocation, which is 200.
    pub(super) unhandled_status: Option<u16>,
    /// Respond with the status of the Lambda API if it refuses an invocation, instead of 500.
    pub(super) preserve_lambda_api_error_code: bool,
    /// Add the method to the payload, as `request_method`.
    pub(super) forward_request_method: bool,
    /// Add the path with the query as `request_uri`, and the parameters of the query as `request_uri_args`.
    pub(super) forward_request_uri: bool,
    /// Add the headers, as `request_headers`.
    pub(super) forward_request_headers: bool,
    /// Add the body as `request_body`, and the fields of JSON and of forms as `request_body_args`.
    pub(super) forward_request_body: bool,
    /// Send the event that Amazon API Gateway sends.
    pub(super) awsgateway_compatible: bool,
    /// Version of that event.
    pub(super) awsgateway_compatible_payload_version: PayloadVersion,
    /// The result of the function has the response: `statusCode`, `headers`, `multiValueHeaders`, `body` and
    /// `isBase64Encoded`.
    pub(super) is_proxy_integration: bool,
    /// Invoke the function without the body if `Content-Length` is above 4 MiB. Otherwise, and without
    /// `Content-Length`, larger bodies are rejected with 413.
    pub(super) skip_large_bodies: bool,
    /// Encode bodies in base64: in events all, with `forward_request_body` those that are neither text nor fields.
    pub(super) base64_encode_body: bool,
    /// With `legacy`, empty lists in JSON results become empty objects, as in Kong. `correct` leaves them.
    pub(super) empty_arrays_mode: EmptyArraysMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ImdsVersion {
    V1,
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum InvocationType {
    RequestResponse,
    Event,
    DryRun,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum LogType {
    Tail,
    None,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub(crate) enum PayloadVersion {
    #[serde(rename = "1.0")]
    V1,
    #[serde(rename = "2.0")]
    V2,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum EmptyArraysMode {
    Legacy,
    Correct,
}

impl InvocationType {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            InvocationType::RequestResponse => "RequestResponse",
            InvocationType::Event => "Event",
            InvocationType::DryRun => "DryRun",
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Config {
            function_name: String::new(),
            qualifier: None,
            aws_region: None,
            aws_key: None,
            aws_secret: None,
            aws_assume_role_arn: None,
            aws_role_session_name: "kong".to_owned(),
            aws_sts_endpoint_url: None,
            aws_imds_protocol_version: ImdsVersion::V1,
            host: None,
            port: 443,
            disable_https: false,
            ssl_verify: true,
            proxy_url: None,
            timeout: 60_000,
            keepalive: 60_000,
            invocation_type: InvocationType::RequestResponse,
            log_type: LogType::None,
            unhandled_status: None,
            preserve_lambda_api_error_code: false,
            forward_request_method: false,
            forward_request_uri: false,
            forward_request_headers: false,
            forward_request_body: false,
            awsgateway_compatible: false,
            awsgateway_compatible_payload_version: PayloadVersion::V1,
            is_proxy_integration: false,
            skip_large_bodies: true,
            base64_encode_body: true,
            empty_arrays_mode: EmptyArraysMode::Legacy,
        }
    }
}
