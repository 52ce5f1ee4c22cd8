//! `request-termination`: responds with a configured status and body instead of forwarding the request.
//!
//! ```yaml
//! plugin: request-termination
//! config: {status_code: 503, message: Back at noon}
//! ```

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::context::UriCaptures;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, ReplyBody, RequestCx};

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
    /// Respond with a JSON description of the request, for debugging. It includes the request body if the plugin is
    /// attached to a route, to a service or globally; consumers and consumer groups alone do not suffice. Cannot be
    /// combined with `body` or `content_type`.
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
    /// `None` if the name is not a valid header name.
    header: Option<HeaderName>,
}

impl PluginKind for RequestTermination {
    const NAME: &'static str = "request-termination";
    const PRIORITY: i32 = 2;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    type Config = Config;
    type Plugin = RequestTermination;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        // As in Kong, an empty text is the same as none.
        let config = Config {
            message: config.message.filter(|text| !text.is_empty()),
            body: config.body.filter(|text| !text.is_empty()),
            content_type: config.content_type.filter(|text| !text.is_empty()),
            ..config
        };
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
        if config.trigger.as_deref() == Some("") {
            invalid.push(Diagnostic::in_config(
                "trigger",
                "is empty",
                "set it to the name of a header or query parameter, or remove it",
            ));
        }
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
        let trigger = config.trigger.map(|parameter| {
            let header = HeaderName::from_bytes(parameter.as_bytes()).ok();
            Trigger { parameter, header }
        });
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

    fn body_buffer_limit(&self) -> Option<usize> {
        matches!(self.content, TerminationContent::Echo(..)).then_some(MAX_ECHOED_BYTES)
    }

    /// Bodies of requests that the plugin forwards stream.
    fn buffers_body(&self, head: &Parts) -> bool {
        self.trigger.as_ref().is_none_or(|trigger| trigger.is_in(&head.headers, head.uri.query()))
    }
}

impl Trigger {
    fn is_in(&self, headers: &HeaderMap, query: Option<&str>) -> bool {
        self.header.as_ref().is_some_and(|header| headers.contains_key(header))
            || parameters(query.unwrap_or_default()).any(|(name, _)| name == self.parameter)
    }
}

/// The description of a request, in Kong's format.
fn describe_request(message: Option<&str>, process: &RespondingProcess, cx: &RequestCx<'_>) -> Value {
    // The host is that of the client, as in Kong: the endpoint would get another one.
    let is_of_client = |(name, _): &(&HeaderName, &HeaderValue)| !FORWARDING_HEADERS.contains(&name.as_str());
    let headers = cx.head.headers.iter().filter(is_of_client).map(|(name, value)| {
        let value = if name == HOST { cx.client.host.into() } else { String::from_utf8_lossy(value.as_bytes()) };
        (name.as_str().into(), value.into())
    });
    let content_type = cx.head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let raw_body = cx.body.filter(|body| !body.is_empty());
    let body = match raw_body {
        Some(body) if content_type.starts_with(b"application/json") => serde_json::from_slice(body).ok(),
        Some(body) if content_type.starts_with(b"application/x-www-form-urlencoded") => {
            std::str::from_utf8(body).ok().map(|body| group_by_name(parameters(body)))
        }
        _ => None,
    };
    // `host` does not contain the port, and `port` is the listener's, as in Kong. IPv6 addresses are in brackets, so
    // digits after the last colon are a port.
    let authority = cx.client.host;
    let host_and_port = authority.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    json!({
        "message": message,
        "kong": { "node_id": process.node, "worker_pid": std::process::id(), "hostname": process.host },
        "request": {
            "scheme": cx.client.scheme.as_str(),
            "host": host_and_port.map_or(authority, |(host, _)| host),
            "port": cx.client.listen_port,
            "headers": group_by_name(headers),
            "query": group_by_name(parameters(cx.query.unwrap_or_default())),
            "body": body,
            "raw_body": raw_body.map(|body| String::from_utf8_lossy(body)),
            "method": cx.head.method.as_str(),
            "path": cx.path,
            "uri_captures": describe_captures(cx.uri_captures),
        },
        "matched_route": { "name": &*cx.route.route },
        "matched_service": { "name": &*cx.route.service },
    })
}

/// The groups of the route's regular expression. Without groups, both are empty objects, as in Kong.
fn describe_captures(captures: &dyn UriCaptures) -> Value {
    let named: Map<_, _> =
        captures.named_groups().into_iter().map(|(name, text)| (name.to_owned(), text.into())).collect();
    let unnamed: Vec<_> = (1..=MAX_ECHOED_GROUPS).map_while(|number| captures.group(number)).collect();
    json!({ "named": named, "unnamed": if unnamed.is_empty() { json!({}) } else { json!(unnamed) } })
}

/// An object of all names. The value of a name that occurs several times is a list.
fn group_by_name<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Value)>) -> Value {
    let mut fields = Map::new();
    for (name, value) in pairs {
        match fields.get_mut(&*name) {
            Some(Value::Array(values)) => values.push(value),
            Some(first) => *first = Value::Array(vec![first.take(), value]),
            None => {
                fields.insert(name.into_owned(), value);
            }
        }
    }
    Value::Object(fields)
}

/// Names and values of a query or a form. A name without `=` has the value `true`, as in Kong.
fn parameters(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Value)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| match pair.split_once('=') {
        Some((name, value)) => (decode_parameter(name), Value::from(decode_parameter(value))),
        None => (decode_parameter(pair), Value::Bool(true)),
    })
}

fn decode_parameter(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned().into()
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
/// Headers that the endpoint would get from the proxy. Kong's echo has only those of the client.
const FORWARDING_HEADERS: &[&str] = &[
    "x-forwarded-for",
    "x-forwarded-proto",
    "x-forwarded-host",
    "x-forwarded-port",
    "x-forwarded-path",
    "x-forwarded-prefix",
    "x-real-ip",
    "x-request-id",
    "x-kong-request-id",
    "via",
];
/// The maximum number of groups in an echo.
const MAX_ECHOED_GROUPS: usize = 32;
/// Size limit of echoed bodies, in bytes.
const MAX_ECHOED_BYTES: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_api::testing::{TestRequest, build, chain};

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
        let chain = chain(&[(&KIND, json!({"trigger": "X Stop"}))]);
        for (request, is_terminated) in [
            (TestRequest::get("/?a=1"), false),
            (TestRequest::get("/?X%20Stop=1"), true),
            (TestRequest::get("/?a&X+Stop"), true),
            (TestRequest::get("/?x-stop"), false),
        ] {
            let uri = request.request.uri().clone();
            assert_eq!(request.run(&chain).await.reply.is_some(), is_terminated, "{uri}");
        }
        let chain = self::chain(&[(&KIND, json!({"trigger": "X-Stop", "echo": true}))]);
        assert!(TestRequest::get("/").header("x-stop", "").run(&chain).await.reply.is_some());
        assert!(TestRequest::get("/").header("x-go", "").run(&chain).await.reply.is_none());
        let plugin = build(&KIND, &json!({"trigger": "X-Stop", "echo": true})).unwrap();
        for (uri, header, is_buffered) in [("/", "x-stop", true), ("/?X-Stop", "x-go", true), ("/", "x-go", false)] {
            let (head, ()) = Request::get(uri).header(header, "").body(()).unwrap().into_parts();
            assert_eq!(plugin.buffers_body(&head), is_buffered, "{uri} {header}: others stream");
        }
    }

    // docs/kong-compatibility.md, 4.28
    #[tokio::test]
    async fn echo_describes_the_request() {
        let chain = chain(&[(&KIND, json!({"echo": true, "status_code": 404}))]);
        let request = Request::post("/a/b?x=1&x=2&y&z=%26").header("host", "shop.example:8080");
        let request = request.header("x-forwarded-for", "192.0.2.1").header("via", "1.1 portico");
        let request = request.header("content-type", "application/json").body(Bytes::from("{\"a\": [1]}")).unwrap();
        let mut request = TestRequest::new(request).header("x-one", "1");
        request.uri_captures.0 = vec![("", "a".to_owned()), ("name", "b".to_owned())];
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
            "uri_captures": {"named": {"name": "b"}, "unnamed": ["a", "b"]},
        });
        assert_eq!(echo["request"], request);
        assert_eq!(echo["matched_route"], json!({"name": "default.test.web..80"}));
        assert_eq!(echo["matched_service"], json!({"name": "default.web.80"}));
    }

    // docs/kong-compatibility.md, 4.28
    #[tokio::test]
    async fn empty_texts_are_not_set() {
        let config = json!({"message": "", "body": "b", "content_type": ""});
        let outcome = TestRequest::get("/").run(&chain(&[(&KIND, config)])).await;
        assert_eq!(outcome.reply.as_ref().unwrap().body, ReplyBody::Raw("b".into()));
        assert_eq!(outcome.response_header("content-type"), Some(JSON));
        let outcome = TestRequest::get("/").run(&chain(&[(&KIND, json!({"echo": true, "body": ""}))])).await;
        let echo: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!(echo["request"]["uri_captures"], json!({"named": {}, "unnamed": {}}));
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
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert!(invalid.iter().any(|invalid| invalid.field == field), "{config}: {invalid:?}");
        }
    }
}
