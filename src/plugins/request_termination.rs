//! Answers requests itself, with what it was told to say.
//!
//! ```yaml
//! plugin: request-termination
//! config: {status_code: 503, message: Back at noon}
//! ```

use std::borrow::Cow;

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderName, HeaderValue, StatusCode};
use percent_encoding::percent_decode_str;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::plugin::{BuildCx, Invalid, Kind, Outcome, Phases, Plugin, Reply, ReplyBody, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The status of the answer, 200 to 599.
    status_code: u16,
    /// What the answer says, as `{"message": …}`. Excludes `body` and `content_type`.
    message: Option<String>,
    /// The body of the answer, sent as it is.
    body: Option<String>,
    /// The type of `body`; `application/json; charset=utf-8` if it is not given.
    content_type: Option<String>,
    /// Answers with what is known about the request, as JSON: for finding out what arrives here. The body of the request is
    /// told if the plugin has no `trigger` and is of a route, a service or everything. Excludes `body` and `content_type`.
    echo: bool,
    /// Only requests with a header or a query argument of this name are answered; others go on.
    trigger: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { status_code: 503, message: None, body: None, content_type: None, echo: false, trigger: None }
    }
}

pub(crate) struct RequestTermination {
    status: StatusCode,
    says: Says,
    trigger: Option<Trigger>,
}

enum Says {
    Nothing,
    Message(Cow<'static, str>),
    Body(Bytes, HeaderValue),
    Echo(Option<Cow<'static, str>>, Process),
}

/// Who answers, for `echo`.
struct Process {
    node: String,
    host: String,
}

struct Trigger {
    argument: String,
    /// None if no header can have this name.
    header: Option<HeaderName>,
}

impl Kind for RequestTermination {
    const NAME: &'static str = "request-termination";
    const PRIORITY: i32 = 2;
    const PHASES: Phases = Phases::ACCESS;
    const GUARD: bool = true;
    type Config = Config;
    type Plugin = RequestTermination;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let status =
            StatusCode::from_u16(config.status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} cannot be the status of a whole answer", config.status_code);
            invalid.push(Invalid::new("status_code", message, "use one of 200 to 599"));
        }
        if config.message.is_some() && (config.body.is_some() || config.content_type.is_some()) {
            let remedy = "use either `message`, or `body` with `content_type`";
            invalid.push(Invalid::new("message", "excludes `body` and `content_type`", remedy));
        }
        if config.content_type.is_some() && config.body.is_none() {
            invalid.push(Invalid::new("content_type", "says of what type `body` is, and there is none", "set `body`"));
        }
        if config.echo && (config.body.is_some() || config.content_type.is_some()) {
            invalid.push(Invalid::new("echo", "excludes `body` and `content_type`", "remove them, or `echo`"));
        }
        let content_type = HeaderValue::from_str(config.content_type.as_deref().unwrap_or(JSON)).ok();
        if content_type.is_none() {
            invalid.push(Invalid::new(
                "content_type",
                "cannot stand in a header",
                "use a media type, such as text/plain",
            ));
        }
        if config.trigger.as_deref() == Some("") {
            invalid.push(Invalid::new("trigger", "is empty", "name a header or a query argument, or remove it"));
        }
        let (Some(status), Some(content_type), true) = (status, content_type, invalid.is_empty()) else {
            return Err(invalid);
        };
        let message = config.message.map(Cow::from).or(default_message(status).map(Cow::from));
        let says = match (config.echo, config.body, message) {
            (true, _, message) => Says::Echo(message, Process { node: cx.node.to_owned(), host: host_name() }),
            (false, Some(body), _) => Says::Body(body.into(), content_type),
            (false, None, Some(message)) => Says::Message(message),
            (false, None, None) => Says::Nothing,
        };
        let trigger = config.trigger.map(|argument| {
            let header = HeaderName::from_bytes(argument.as_bytes()).ok();
            Trigger { argument, header }
        });
        Ok(RequestTermination { status, says, trigger })
    }
}

impl Plugin for RequestTermination {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        if self.trigger.as_ref().is_some_and(|trigger| !trigger.is_in(cx)) {
            return Outcome::Next;
        }
        let reply = |body| Reply::new(self.status, body, REASON);
        Outcome::Reply(match &self.says {
            Says::Nothing => reply(ReplyBody::Empty),
            Says::Message(message) => reply(ReplyBody::Plain(message.clone())),
            Says::Body(body, content_type) => {
                reply(ReplyBody::Raw(body.clone())).with(CONTENT_TYPE, content_type.clone())
            }
            Says::Echo(message, process) => {
                let body = echo(message.as_deref(), process, cx).to_string().into();
                reply(ReplyBody::Raw(body)).with(CONTENT_TYPE, HeaderValue::from_static(JSON))
            }
        })
    }

    /// What has to wait for a trigger does not hold up every body: such an echo is without one.
    fn reads_body(&self) -> Option<usize> {
        (matches!(self.says, Says::Echo(..)) && self.trigger.is_none()).then_some(MOST_ECHOED)
    }
}

impl Trigger {
    fn is_in(&self, cx: &RequestCx<'_>) -> bool {
        self.header.as_ref().is_some_and(|header| cx.head.headers.contains_key(header))
            || arguments(cx.query.unwrap_or_default()).any(|(name, _)| name == self.argument)
    }
}

fn echo(message: Option<&str>, process: &Process, cx: &RequestCx<'_>) -> Value {
    let headers = cx.head.headers.iter();
    let headers = headers.map(|(name, value)| (name.as_str().into(), String::from_utf8_lossy(value.as_bytes()).into()));
    let query = || arguments(cx.query.unwrap_or_default());
    let content_type = cx.head.headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let raw_body = cx.body.filter(|body| !body.is_empty());
    let body = match raw_body {
        Some(body) if content_type.starts_with(b"application/json") => serde_json::from_slice(body).ok(),
        Some(body) if content_type.starts_with(b"application/x-www-form-urlencoded") => {
            std::str::from_utf8(body).ok().map(|body| grouped(arguments(body)))
        }
        _ => None,
    };
    // The host is without its port, but for the colons of an IPv6 address.
    let host = cx.client.host;
    let name = host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
    json!({
        "message": message,
        "kong": { "node_id": process.node, "worker_pid": std::process::id(), "hostname": process.host },
        "request": {
            "scheme": cx.client.scheme.as_str(),
            "host": name.map_or(host, |(name, _)| name),
            "port": cx.client.listen_port,
            "headers": grouped(headers),
            "query": grouped(query()),
            "body": body,
            "raw_body": raw_body.map(|body| String::from_utf8_lossy(body)),
            "method": cx.head.method.as_str(),
            "path": cx.path,
            "uri_captures": {},
        },
        "matched_route": { "name": &*cx.route.route },
        "matched_service": { "name": &*cx.route.service },
    })
}

/// What is there once as it is, what is there more often as a list.
fn grouped<'a>(pairs: impl Iterator<Item = (Cow<'a, str>, Value)>) -> Value {
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

/// Names and values of a query or a form; what has no `=` is `true`, as Kong shows it.
fn arguments(query: &str) -> impl Iterator<Item = (Cow<'_, str>, Value)> {
    query.split('&').filter(|argument| !argument.is_empty()).map(|argument| match argument.split_once('=') {
        Some((name, value)) => (decoded(name), Value::from(decoded(value))),
        None => (decoded(argument), Value::Bool(true)),
    })
}

fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return text.into();
    }
    let text = text.replace('+', " ");
    percent_decode_str(&text).decode_utf8_lossy().into_owned().into()
}

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

/// Elsewhere than on Linux the name is not known.
fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

const JSON: &str = "application/json; charset=utf-8";
const REASON: &str = "terminated";
/// Bodies up to here are echoed, in bytes.
const MOST_ECHOED: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use http::Request;
    use serde_json::json;

    use super::*;
    use crate::plugin::Entry;
    use crate::plugin::testing::{Visit, build, chain};

    const KIND: Entry<RequestTermination> = Entry::NEW;

    // kong-compat §4.28
    #[tokio::test]
    async fn it_answers_as_it_was_told() {
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
            let outcome = Visit::get("/").run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.replied().map(|status| status.as_u16()), Some(status), "{config}");
            assert_eq!(outcome.reply.as_ref().unwrap().body, body, "{config}");
            assert_eq!(outcome.header("content-type"), content_type, "{config}");
        }
    }

    // kong-compat §4.28
    #[tokio::test]
    async fn a_trigger_is_a_header_or_a_query_argument_of_that_name() {
        let chain = chain(&[(&KIND, json!({"trigger": "X Stop"}))]);
        for (visit, is_stopped) in [
            (Visit::get("/?a=1"), false),
            (Visit::get("/?X%20Stop=1"), true),
            (Visit::get("/?a&X+Stop"), true),
            (Visit::get("/?x-stop"), false),
        ] {
            let uri = visit.request.uri().clone();
            assert_eq!(visit.run(&chain).await.reply.is_some(), is_stopped, "{uri}");
        }
        let chain = self::chain(&[(&KIND, json!({"trigger": "X-Stop", "echo": true}))]);
        assert!(Visit::get("/").header("x-stop", "").run(&chain).await.reply.is_some());
        assert!(Visit::get("/").header("x-go", "").run(&chain).await.reply.is_none());
        assert_eq!(chain.reads_body(), None, "what waits for a trigger lets bodies stream");
    }

    // kong-compat §4.28
    #[tokio::test]
    async fn an_echo_says_what_arrived() {
        let chain = chain(&[(&KIND, json!({"echo": true, "status_code": 404}))]);
        let request = Request::post("/a/b?x=1&x=2&y&z=%26").header("host", "shop.example:8080");
        let request = request.header("content-type", "application/json").body(Bytes::from("{\"a\": [1]}")).unwrap();
        let outcome = Visit::new(request).header("x-one", "1").run(&chain).await;
        assert_eq!(outcome.replied(), Some(StatusCode::NOT_FOUND));
        assert_eq!(outcome.header("content-type"), Some(JSON));
        let said: Value = serde_json::from_str(outcome.message().unwrap()).unwrap();
        assert_eq!(said["message"], "Not found");
        assert_eq!(said["kong"]["node_id"], "test");
        assert_eq!(said["kong"]["worker_pid"], std::process::id());
        assert!(said["kong"]["hostname"].is_string());
        let headers = json!({"host": "shop.example:8080", "content-type": "application/json", "x-one": "1"});
        let request = json!({
            "scheme": "http", "host": "shop.example", "port": 80, "method": "POST", "path": "/a/b", "headers": headers,
            "query": {"x": ["1", "2"], "y": true, "z": "&"}, "body": {"a": [1]}, "raw_body": "{\"a\": [1]}",
            "uri_captures": {},
        });
        assert_eq!(said["request"], request);
        assert_eq!(said["matched_route"], json!({"name": "default.test.web..80"}));
        assert_eq!(said["matched_service"], json!({"name": "default.web.80"}));
    }

    // kong-compat §4.28
    #[test]
    fn what_excludes_each_other_is_refused() {
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
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
            assert!(invalid.iter().any(|invalid| invalid.field == field), "{config}: {invalid:?}");
        }
    }
}
