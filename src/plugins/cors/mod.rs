//! Tells browsers which sites may read what is answered, and answers their preflight requests.
//!
//! ```yaml
//! plugin: cors
//! config: {origins: ["https://shop.example", "https://*.shop.example"], credentials: true, max_age: 3600}
//! ```

mod origin;
#[cfg(test)]
mod tests;

use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS,
    ACCESS_CONTROL_REQUEST_METHOD, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plugin::{AnswerCx, BuildCx, Invalid, Kind, Outcome, Phases, Plugin, Reply, ReplyBody, RequestCx, Scopes};

use origin::{Asking, Origins, Verdict};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Who may read answers; everybody if it is empty. An entry is `*`, an origin such as `https://shop.example:8443`, an
    /// origin with `*.` before its host, which is every subdomain and not the host itself, or a regular expression: of the
    /// whole host if there is no colon in it, else of the whole origin. A single origin is returned to everybody, whoever
    /// asks. A host without a scheme matches nothing.
    origins: Vec<String>,
    /// The request headers that a site may set; those that it asks for if it is empty.
    headers: Vec<String>,
    /// The answer's headers that a site may read, besides those that every site may.
    exposed_headers: Vec<String>,
    /// The methods that a site may use.
    methods: Vec<Verb>,
    /// For how many seconds a browser may remember the answer to a preflight request.
    max_age: Option<i64>,
    /// Whether a site may send cookies and the like along.
    credentials: bool,
    /// Whether public sites may reach this one in a private network, if their browser asks for that.
    private_network: bool,
    /// Lets preflight requests go to the endpoint, and its answer back as it is.
    preflight_continue: bool,
    /// Whether answers to requests without `Origin` have these headers too.
    allow_origin_absent: bool,
}

impl Default for Config {
    fn default() -> Self {
        use Verb::{Connect, Delete, Get, Head, Options, Patch, Post, Put, Trace};
        Config {
            origins: Vec::new(),
            headers: Vec::new(),
            exposed_headers: Vec::new(),
            methods: vec![Get, Head, Put, Patch, Post, Delete, Options, Trace, Connect],
            max_age: None,
            credentials: false,
            private_network: false,
            preflight_continue: false,
            allow_origin_absent: true,
        }
    }
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
enum Verb {
    Get,
    Head,
    Put,
    Patch,
    Post,
    Delete,
    Options,
    Trace,
    Connect,
}

impl Verb {
    fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Head => "HEAD",
            Verb::Put => "PUT",
            Verb::Patch => "PATCH",
            Verb::Post => "POST",
            Verb::Delete => "DELETE",
            Verb::Options => "OPTIONS",
            Verb::Trace => "TRACE",
            Verb::Connect => "CONNECT",
        }
    }
}

pub(crate) struct Cors {
    origins: Origins,
    headers: Option<HeaderValue>,
    exposed: Option<HeaderValue>,
    methods: HeaderValue,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    origin_may_be_absent: bool,
}

/// What a request says that its answer needs.
enum Seen {
    /// The endpoint's answer to a preflight request is its own affair, and ours is complete.
    Nothing,
    Origin(HeaderValue),
}

impl Kind for Cors {
    const NAME: &'static str = "cors";
    const PRIORITY: i32 = 2000;
    const PHASES: Phases = Phases::ACCESS_AND_ANSWER;
    const GUARD: bool = false;
    const SCOPES: Scopes = Scopes::FOR_EVERYBODY;
    type Config = Config;
    type Plugin = Cors;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let mut invalid = Vec::new();
        let headers = joined("headers", &config.headers, &mut invalid);
        let exposed = joined("exposed_headers", &config.exposed_headers, &mut invalid);
        let methods: Vec<&str> = config.methods.iter().map(|verb| verb.as_str()).collect();
        let methods = HeaderValue::try_from(methods.join(",")).expect("letters and commas are a header value");
        let origins = Origins::parsed(&config.origins, cx).map_err(|wrong| invalid.extend(wrong)).ok();
        match origins {
            Some(origins) if invalid.is_empty() => Ok(Cors {
                origins,
                headers,
                exposed,
                methods,
                max_age: config.max_age.map(HeaderValue::from),
                credentials: config.credentials,
                private_network: config.private_network,
                preflight_continue: config.preflight_continue,
                origin_may_be_absent: config.allow_origin_absent,
            }),
            _ => Err(invalid),
        }
    }
}

impl Plugin for Cors {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        let asks = &cx.head.headers;
        let Some(origin) = asks.get(ORIGIN) else { return Outcome::Next };
        if cx.head.method != Method::OPTIONS || !asks.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            let origin = Seen::Origin(origin.clone());
            cx.keep(origin);
            return Outcome::Next;
        }
        if self.preflight_continue {
            cx.keep(Seen::Nothing);
            return Outcome::Next;
        }
        let reply = self.preflight(origin, asks);
        cx.keep(Seen::Nothing);
        Outcome::Reply(reply)
    }

    fn answer(&self, cx: &mut AnswerCx<'_>) {
        let origin = match cx.kept::<Seen>() {
            Some(Seen::Nothing) => return,
            Some(Seen::Origin(origin)) => Some(origin.clone()),
            None if self.origin_may_be_absent => None,
            None => return,
        };
        self.say_who_may(origin.as_ref(), cx.headers);
        if let Some(exposed) = &self.exposed {
            cx.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed.clone());
        }
    }
}

impl Cors {
    fn preflight(&self, origin: &HeaderValue, asks: &HeaderMap) -> Box<Reply> {
        let mut reply = Reply::new(StatusCode::OK, ReplyBody::Empty, "preflight");
        let headers = &mut reply.headers;
        self.say_who_may(Some(origin), headers);
        if let Some(may) = self.headers.as_ref().or_else(|| asks.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, may.clone());
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(max_age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        if self.private_network && asks.get(REQUEST_PRIVATE_NETWORK).is_some_and(|asked| asked == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        reply
    }

    fn say_who_may(&self, origin: Option<&HeaderValue>, headers: &mut HeaderMap) {
        let asking = origin.and_then(|origin| origin.to_str().ok()).and_then(Asking::parsed);
        let verdict = self.origins.verdict(asking);
        if !matches!(self.origins, Origins::Any) {
            vary_by_origin(headers);
        }
        match &verdict {
            Verdict::Any => _ = headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            // Both are ASCII without control characters: the entry was checked, the origin came in a header.
            Verdict::This(origin) => match HeaderValue::from_str(origin) {
                Ok(origin) => _ = headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                Err(_) => _ = headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN),
            },
            Verdict::No => _ = headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN),
        }
        if !self.credentials {
            return;
        }
        match (verdict, origin) {
            // Browsers take no `*` together with credentials.
            (Verdict::Any, Some(origin)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                vary_by_origin(headers);
            }
            (Verdict::Any, None) => return,
            (Verdict::This(_) | Verdict::No, _) => {}
        }
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Adds to what the endpoint says, once.
fn vary_by_origin(headers: &mut HeaderMap) {
    let is_said = headers.get_all(VARY).iter().any(|vary| {
        let mut names = vary.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name.eq_ignore_ascii_case(b"origin") || name == b"*")
    });
    if !is_said {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

fn joined(field: &str, names: &[String], invalid: &mut Vec<Invalid>) -> Option<HeaderValue> {
    for (at, name) in names.iter().enumerate() {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("{name:?} cannot be the name of a header");
            invalid.push(Invalid::new(
                format!("{field}[{at}]"),
                message,
                "use letters, digits and `-`, or `*` for all",
            ));
        }
    }
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(",")).ok() }
}

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
