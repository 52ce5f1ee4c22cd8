//! `request-termination`: responds with a configured status and body instead of forwarding the request.
//!
//! ```yaml
//! plugin: request-termination
//! config: {status_code: 503, message: Back at noon}
//! ```

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::fields::UrlEncodedForm;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, ReplyBody, RequestCx};
use crate::plugin_kit::request_json;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Status of the response, 200 to 599.
    status_code: u16,
    /// Message of the response, sent as `{"message": …}`; if unset, the usual message of the status, if there is one.
    /// Cannot be combined with `body` or `content_type`.
    message: Option<String>,
    /// Body of the response, sent unchanged.
    body: Option<String>,
    /// Media type of `body`; if unset, `application/json; charset=utf-8`.
    content_type: Option<String>,
    /// Respond with a JSON description of the request, for debugging. It includes the request body. Cannot be combined
    /// with `body` or `content_type`.
    echo: bool,
    /// Respond only to requests with a header or query parameter of this name, and forward other requests.
    trigger: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { status_code: 503, message: None, body: None, content_type: None, echo: false, trigger: None }
    }
}

pub(crate) struct RequestTermination {
    status: StatusCode,
    content: TerminationContent,
    trigger: Option<Trigger>,
}

/// The content of the response.
enum TerminationContent {
    Empty,
    Message(Cow<'static, str>),
    /// The body and its media type.
    Body(Bytes, HeaderValue),
    /// A description of the request, which also contains the message, if there is one, and the process.
    Echo(Option<Cow<'static, str>>, RespondingProcess),
}

/// The responding process, for `echo`.
struct RespondingProcess {
    node: String,
    host: String,
}

/// The name in `trigger`.
struct Trigger {
    parameter: String,
    header: HeaderName,
}

impl PluginKind for RequestTermination {
    const NAME: &'static str = "request-termination";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 2;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestTermination;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let status =
            StatusCode::from_u16(config.status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} is not a status of 200 to 599", config.status_code);
            invalid.push(Diagnostic::in_config(
                "status_code",
                message,
                "set it to 503, or to another status in this range",
            ));
        }
        if config.message.is_some() && (config.body.is_some() || config.content_type.is_some()) {
            let remedy = "use either `message`, or `body` with `content_type`";
            invalid.push(Diagnostic::in_config("message", "cannot be combined with `body` or `content_type`", remedy));
        }
        if config.content_type.is_some() && config.body.is_none() {
            invalid.push(Diagnostic::in_config(
                "content_type",
                "has no effect without `body`",
                "set `body`, or remove `content_type`",
            ));
        }
        if config.echo && (config.body.is_some() || config.content_type.is_some()) {
            let remedy = "remove `body` and `content_type`, or remove `echo`";
            invalid.push(Diagnostic::in_config("echo", "cannot be combined with `body` or `content_type`", remedy));
        }
        let content_type = HeaderValue::from_str(config.content_type.as_deref().unwrap_or(JSON)).ok();
        if content_type.is_none() {
            invalid.push(Diagnostic::in_config(
                "content_type",
                "is not a valid header value",
                "use a media type, such as text/plain",
            ));
        }
        let texts = [("message", &config.message), ("body", &config.body), ("content_type", &config.content_type)];
        for (field, text) in texts {
            if text.as_deref() == Some("") {
                invalid.push(Diagnostic::in_config(field, "is empty", "remove it, or write a text"));
            }
        }
        let trigger = config.trigger.map(|parameter| {
            let header = HeaderName::from_bytes(parameter.as_bytes());
            header.map(|header| Trigger { parameter, header }).map_err(|_| {
                let remedy = "use letters, digits, `-` and `_`, or remove it";
                Diagnostic::in_config("trigger", "is not the name of a header", remedy)
            })
        });
        let trigger = trigger.transpose().map_err(|error| invalid.push(error)).ok().flatten();
        let (Some(status), Some(content_type), true) = (status, content_type, invalid.is_empty()) else {
            return Err(invalid);
        };
        let message = config.message.map(Cow::from).or(default_message(status).map(Cow::from));
        let content = match (config.echo, config.body, message) {
            (true, _, message) => {
                TerminationContent::Echo(message, RespondingProcess { node: cx.node.to_owned(), host: host_name() })
            }
            (false, Some(body), _) => TerminationContent::Body(body.into(), content_type),
            (false, None, Some(message)) => TerminationContent::Message(message),
            (false, None, None) => TerminationContent::Empty,
        };
        Ok(RequestTermination { status, content, trigger })
    }
}

impl Plugin for RequestTermination {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if self.trigger.as_ref().is_some_and(|trigger| !trigger.is_in(&cx.head.headers, cx.query)) {
            return AccessOutcome::Continue;
        }
        let reply = |body| Reply::new(self.status, body, "terminated");
        AccessOutcome::Reply(match &self.content {
            TerminationContent::Empty => reply(ReplyBody::Empty),
            TerminationContent::Message(message) => reply(ReplyBody::Plain(message.clone())),
            TerminationContent::Body(body, content_type) => {
                reply(ReplyBody::Raw(body.clone())).with_header(CONTENT_TYPE, content_type.clone())
            }
            TerminationContent::Echo(message, process) => {
                let body = describe_request(message.as_deref(), process, cx).to_string().into();
                reply(ReplyBody::Raw(body)).with_header(CONTENT_TYPE, HeaderValue::from_static(JSON))
            }
        })
    }

    fn reads_description(&self) -> bool {
        matches!(self.content, TerminationContent::Echo(..))
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        matches!(self.content, TerminationContent::Echo(..)).then_some(MAX_ECHOED_BYTES)
    }

    /// Bodies of requests that the plugin forwards are not buffered.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.trigger.as_ref().is_none_or(|trigger| trigger.is_in(&head.headers, head.uri.query()))
    }
}

impl Trigger {
    fn is_in(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        headers.contains_key(&self.header)
            || UrlEncodedForm(query.unwrap_or_default().as_bytes())
                .pairs()
                .any(|pair| *pair.name() == *self.parameter.as_bytes())
    }
}

/// The description of a request, in Kong's format. As in Kong, what there is not has no field.
fn describe_request(message: Option<&str>, process: &RespondingProcess, cx: &RequestCx<'_>) -> Value {
    let mut headers = request_json::headers(&cx.head.headers, cx.client.received.host);
    headers.retain(|name, _| !OF_PROXY.contains(&name.as_str()));
    // `host` does not contain the port, and `port` is the listener's, as in Kong. IPv6 addresses are in brackets, so
    // digits after the last colon are a port.
    let authority = cx.client.received.host;
    let host_and_port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    let numbers = 1..;
    let captures = cx.uri_captures;
    let unnamed: Vec<&str> = numbers.map_while(|number| captures.group(number)).collect();
    let named: Map<String, Value> =
        captures.named_groups().into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    let raw_body = cx.body.map(|body| &body[..]).unwrap_or_default();
    let mut echo = json!({
        "kong": { "node_id": process.node, "worker_pid": std::process::id(), "hostname": process.host },
        "request": {
            "scheme": cx.client.scheme.as_str(),
            "host": host_and_port.map_or(authority, |(host, _)| host),
            "port": cx.client.received.port,
            "headers": headers,
            "query": request_json::query(cx.query.unwrap_or_default()),
            "raw_body": String::from_utf8_lossy(raw_body),
            "method": cx.head.method.as_str(),
            "path": cx.path,
            "uri_captures": { "named": named, "unnamed": unnamed },
        },
    });
    if let Some(body) = request_json::body_fields(&cx.head.headers, raw_body).filter(|_| !raw_body.is_empty()) {
        echo["request"]["body"] = body.into();
    }
    if let Some(message) = message {
        echo["message"] = message.into();
    }
    let description = cx.description.map(|description| [&description.route, &description.service]);
    for (field, entity) in ["matched_route", "matched_service"].into_iter().zip(description.into_iter().flatten()) {
        let entity: Value = serde_json::from_str(entity.get()).unwrap_or_default();
        if !entity.is_null() {
            echo[field] = entity;
        }
    }
    echo
}

/// Kong's message for a status.
fn default_message(status: StatusCode) -> Option<&'static str> {
    match status.as_u16() {
        401 => Some("Unauthorized"),
        404 => Some("Not found"),
        405 => Some("Method not allowed"),
        500 => Some("An unexpected error occurred"),
        502 => Some("Bad Gateway"),
        503 => Some("Service unavailable"),
        _ => None,
    }
}

/// The host name; empty on systems other than Linux.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

const JSON: &str = "application/json; charset=utf-8";
/// The fields that the proxy sets in requests to endpoints, which are not the client's.
const OF_PROXY: [&str; 10] = [
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-path",
    "x-forwarded-port",
    "x-forwarded-prefix",
    "x-forwarded-proto",
    "x-kong-request-id",
    "x-real-ip",
    "x-request-id",
    "via",
];
/// Size limit of echoed bodies, in bytes.
const MAX_ECHOED_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<RequestTermination> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 4.28
    #[tokio::test]
    async fn responses_match_the_configuration() {
        let plain = |text: &'static str| ReplyBody::Plain(text.into());
        for (config, status, body, content_type) in [
            (json!({}), 503, plain("Service unavailable"), None),
            (json!({"status_code": 401}), 401, plain("Unauthorized"), None),
            (json!({"status_code": 404}), 404, plain("Not found"), None),
            (json!({"status_code": 405}), 405, plain("Method not allowed"), None),
            (json!({"status_code": 500}), 500, plain("An unexpected error occurred"), None),
            (json!({"status_code": 502}), 502, plain("Bad Gateway"), None),
            (json!({"status_code": 204}), 204, ReplyBody::Empty, None),
            (json!({"status_code": 418, "message": "short"}), 418, plain("short"), None),
            (json!({"body": "{}"}), 503, ReplyBody::Raw("{}".into()), Some(JSON)),
            (json!({"body": "no", "content_type": "text/plain"}), 503, ReplyBody::Raw("no".into()), Some("text/plain")),
        ] {
            let outcome = TestRequest::get("/").run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(status), "{config}");
            assert_eq!(outcome.reply.as_ref().unwrap().body, body, "{config}");
            assert_eq!(outcome.response_header("content-type"), content_type, "{config}");
        }
    }

    // docs/kong-compatibility.md, 4.28
    #[tokio::test]
    async fn triggers_match_headers_and_query_parameters() {
        let chain = chain(&[(&KIND, json!({"trigger": "X-Stop"}))]);
        for (request, is_terminated) in [
            (TestRequest::get("/?a=1"), false),
            (TestRequest::get("/?X%2DStop=1"), true),
            (TestRequest::get("/?a&X-Stop"), true),
            (TestRequest::get("/?x-stop"), false),
        ] {
            let uri = request.request.uri().clone();
            assert_eq!(request.run(&chain).await.reply.is_some(), is_terminated, "{uri}");
        }
        let chain = self::chain(&[(&KIND, json!({"trigger": "X-Stop", "echo": true}))]);
        assert!(TestRequest::get("/").header("x-stop", "").run(&chain).await.reply.is_some());
        assert!(TestRequest::get("/").header("x-go", "").run(&chain).await.reply.is_none());
        for (request, limit) in [
            (TestRequest::get("/").header("x-go", ""), None),
            (TestRequest::get("/").header("x-stop", ""), Some(MAX_ECHOED_BYTES)),
            (TestRequest::get("/?X-Stop"), Some(MAX_ECHOED_BYTES)),
        ] {
            let (head, _) = request.request.into_parts();
            assert_eq!(chain.body_buffer_limit_for(&head), limit, "bodies of forwarded requests stream");
        }
    }

    // docs/kong-compatibility.md, 4.28
    #[tokio::test]
    async fn echo_describes_the_request() {
        let chain = chain(&[(&KIND, json!({"echo": true, "status_code": 404}))]);
        let request = Request::post("/a/b?x=1&x=2&y&z=%26").header("host", "shop.example:8080");
        let request = request.header("content-type", "application/json").body(Bytes::from("{\"a\": [1]}")).unwrap();
        let mut request = TestRequest::new(request).header("x-one", "1").header("x-forwarded-for", "192.0.2.1");
        request.uri_captures.0 = vec![("shop", "a".to_owned()), ("", "b".to_owned())];
        let outcome = request.run(&chain).await;
        assert_eq!(outcome.reply_status(), Some(StatusCode::NOT_FOUND));
        assert_eq!(outcome.response_header("content-type"), Some(JSON));
        // The whole body of the reply, of which the configured or default message is one field.
        let echo: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!(echo["message"], "Not found");
        assert_eq!(echo["kong"]["node_id"], "test");
        assert_eq!(echo["kong"]["worker_pid"], std::process::id());
        assert!(echo["kong"]["hostname"].is_string());
        let headers = json!({"host": "shop.example:8080", "content-type": "application/json", "x-one": "1"});
        // `port` is the listener's, not the one in the Host.
        let request = json!({
            "scheme": "http", "host": "shop.example", "port": 80, "method": "POST", "path": "/a/b", "headers": headers,
            "query": {"x": ["1", "2"], "y": true, "z": "&"}, "body": {"a": [1]}, "raw_body": "{\"a\": [1]}",
            "uri_captures": {"named": {"shop": "a"}, "unnamed": ["a", "b"]},
        });
        assert_eq!(echo["request"], request);
        assert_eq!(echo["matched_route"], json!({"name": "default.test.web..80"}));
        assert_eq!(echo["matched_service"], json!({"name": "default.web.80"}));
    }

    // docs/kong-compatibility.md, 4.28
    #[test]
    fn invalid_and_conflicting_fields_are_rejected() {
        for (config, field) in [
            (json!({"message": "a", "body": "b"}), "config.message"),
            (json!({"message": "a", "content_type": "b/c"}), "config.message"),
            (json!({"content_type": "b/c"}), "config.content_type"),
            (json!({"body": "b", "content_type": "b\n"}), "config.content_type"),
            (json!({"echo": true, "body": "b"}), "config.echo"),
            (json!({"status_code": 600}), "config.status_code"),
            (json!({"status_code": 101}), "config.status_code"),
            (json!({"trigger": ""}), "config.trigger"),
            (json!({"trigger": "a b"}), "config.trigger"),
            (json!({"message": ""}), "config.message"),
            (json!({"body": ""}), "config.body"),
            (json!({"body": "b", "content_type": ""}), "config.content_type"),
            (json!({"status_code": 404.5}), "config.status_code"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert!(invalid.iter().any(|invalid| invalid.field == field), "{config}: {invalid:?}");
        }
    }
}
