//! `cors`: sets the CORS headers of responses and responds to preflight requests.
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

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    AccessOutcome, BuildCx, ChangedFields, Phases, Plugin, PluginKind, RemainingRegexSteps, Reply, ReplyBody,
    RequestCx, ResponseCx, ResponseOutcome, Scopes,
};

use origin::{AllowOrigin, OriginRules, ParsedOrigin};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Origins that may read responses; if empty, all origins. An entry is `*`; an origin such as
    /// `https://shop.example:8443`; or an origin whose host begins with `*.`, which matches all subdomains but not the
    /// domain itself. An origin needs its scheme; without a scheme, `*.shop.example` matches subdomains with any
    /// scheme, and `shop.example` matches no origin of a browser. Any other entry, with characters besides letters,
    /// digits and `.:/-`, is a regular expression: with a colon it must match the whole origin, without a colon the
    /// whole host. If the only entry is an origin, every response contains this origin, and the browser compares it
    /// with the origin of the page.
    origins: Vec<String>,
    /// Headers that cross-origin requests may have; if empty, all that the preflight request lists in
    /// `Access-Control-Request-Headers`.
    headers: Vec<String>,
    /// Response headers that scripts may read. CORS-safelisted headers, such as `Content-Type`, need not be listed.
    exposed_headers: Vec<String>,
    /// Methods that cross-origin requests may use.
    methods: Vec<CorsMethod>,
    /// How many seconds a browser may cache the response to a preflight request; if unset, the browser decides.
    max_age: Option<i64>,
    /// Allow credentials, such as cookies, in cross-origin requests.
    credentials: bool,
    /// Allow requests from public sites to a private network, if the preflight request contains
    /// `Access-Control-Request-Private-Network: true`.
    private_network: bool,
    /// Forward preflight requests to the endpoint, and return its response without setting CORS headers.
    preflight_continue: bool,
    /// Also set the CORS headers on responses to requests without `Origin`.
    allow_origin_absent: bool,
}

impl Default for Config {
    fn default() -> Self {
        use CorsMethod::{Connect, Delete, Get, Head, Options, Patch, Post, Put, Trace};
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
enum CorsMethod {
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

impl CorsMethod {
    fn as_str(self) -> &'static str {
        match self {
            CorsMethod::Get => "GET",
            CorsMethod::Head => "HEAD",
            CorsMethod::Put => "PUT",
            CorsMethod::Patch => "PATCH",
            CorsMethod::Post => "POST",
            CorsMethod::Delete => "DELETE",
            CorsMethod::Options => "OPTIONS",
            CorsMethod::Trace => "TRACE",
            CorsMethod::Connect => "CONNECT",
        }
    }
}

pub(crate) struct CorsPlugin {
    origins: OriginRules,
    /// `None` allows the headers that a preflight request lists.
    headers: Option<HeaderValue>,
    exposed_headers: Option<HeaderValue>,
    methods: HeaderValue,
    max_age: Option<HeaderValue>,
    credentials: bool,
    private_network: bool,
    preflight_continue: bool,
    origin_may_be_absent: bool,
}

/// What the response phase needs to know about the request.
enum RequestOrigin {
    /// A preflight request. Its response stays unchanged, whether it is the endpoint's or the reply of this plugin.
    Preflight,
    /// `Origin` of any other request.
    Origin(HeaderValue),
}

impl PluginKind for CorsPlugin {
    const NAME: &'static str = "cors";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 2000;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = false;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = CorsPlugin;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let headers = join_header_names("headers", &config.headers, &mut invalid);
        let exposed_headers = join_header_names("exposed_headers", &config.exposed_headers, &mut invalid);
        let methods: Vec<&str> = config.methods.iter().map(|method| method.as_str()).collect();
        let methods = HeaderValue::try_from(methods.join(",")).expect("letters and commas are valid in a header value");
        let origins = OriginRules::parse(&config.origins, cx).map_err(|errors| invalid.extend(errors)).ok();
        match origins {
            Some(origins) if invalid.is_empty() => Ok(CorsPlugin {
                origins,
                headers,
                exposed_headers,
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

impl Plugin for CorsPlugin {
    fn may_wait(&self) -> bool {
        false
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.response.add_all(&[
            ACCESS_CONTROL_ALLOW_CREDENTIALS,
            ACCESS_CONTROL_ALLOW_ORIGIN,
            ACCESS_CONTROL_EXPOSE_HEADERS,
            VARY,
        ]);
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let request_headers = &cx.head.headers;
        // An empty field counts as absent.
        let origin = request_headers.get(ORIGIN).filter(|origin| !origin.is_empty());
        let Some(origin) = origin else { return AccessOutcome::Continue };
        if cx.head.method != Method::OPTIONS || !request_headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) {
            let origin = RequestOrigin::Origin(origin.clone());
            cx.set_plugin_data(origin);
            return AccessOutcome::Continue;
        }
        if self.preflight_continue {
            cx.set_plugin_data(RequestOrigin::Preflight);
            return AccessOutcome::Continue;
        }
        let reply = self.preflight_reply(origin, request_headers, cx.regex_steps);
        cx.set_plugin_data(RequestOrigin::Preflight);
        AccessOutcome::Reply(reply)
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        let origin = match cx.plugin_data::<RequestOrigin>() {
            Some(RequestOrigin::Preflight) => return ResponseOutcome::Continue,
            Some(RequestOrigin::Origin(origin)) => Some(origin.clone()),
            None if self.origin_may_be_absent => None,
            None => return ResponseOutcome::Continue,
        };
        self.set_origin_headers(origin.as_ref(), cx.headers, cx.regex_steps);
        if let Some(exposed_headers) = &self.exposed_headers {
            cx.headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, exposed_headers.clone());
        }
        ResponseOutcome::Continue
    }
}

impl CorsPlugin {
    fn preflight_reply(
        &self,
        origin: &HeaderValue,
        request_headers: &HeaderMap,
        steps: &mut RemainingRegexSteps,
    ) -> Box<Reply> {
        let mut reply = Reply::new(StatusCode::OK, ReplyBody::Empty, "preflight");
        let headers = &mut reply.headers;
        self.set_origin_headers(Some(origin), headers, steps);
        if let Some(allowed) = self.headers.as_ref().or_else(|| request_headers.get(ACCESS_CONTROL_REQUEST_HEADERS)) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed.clone());
        }
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, self.methods.clone());
        if let Some(max_age) = &self.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        if self.private_network && request_headers.get(REQUEST_PRIVATE_NETWORK).is_some_and(|value| value == "true") {
            headers.insert(ALLOW_PRIVATE_NETWORK, HeaderValue::from_static("true"));
        }
        reply
    }

    /// Sets or removes `Access-Control-Allow-Origin`, and sets `Vary` and `Access-Control-Allow-Credentials`.
    fn set_origin_headers(
        &self,
        origin: Option<&HeaderValue>,
        headers: &mut HeaderMap,
        steps: &mut RemainingRegexSteps,
    ) {
        let parsed = origin.and_then(|origin| origin.to_str().ok()).and_then(ParsedOrigin::parse);
        let allow_origin = self.origins.decide(parsed, steps);
        if !matches!(self.origins, OriginRules::Any) {
            vary_by_origin(headers);
        }
        match &allow_origin {
            AllowOrigin::Any => _ = headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
            // Always valid: configured origins are validated, and the other value comes from a header.
            AllowOrigin::Exact(origin) => match HeaderValue::from_str(origin) {
                Ok(origin) => _ = headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin),
                Err(_) => _ = headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN),
            },
            AllowOrigin::Denied => _ = headers.remove(ACCESS_CONTROL_ALLOW_ORIGIN),
        }
        if !self.credentials {
            return;
        }
        match (allow_origin, origin) {
            // Browsers reject `*` together with credentials, so the origin of the request replaces it if there is one.
            (AllowOrigin::Any, Some(origin)) => {
                headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
                vary_by_origin(headers);
            }
            (AllowOrigin::Any, None) => return,
            (AllowOrigin::Exact(_) | AllowOrigin::Denied, _) => {}
        }
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
}

/// Adds `Origin` to `Vary`, unless it is already there.
fn vary_by_origin(headers: &mut HeaderMap) {
    let is_present = headers.get_all(VARY).iter().any(|vary| {
        let mut names = vary.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii);
        names.any(|name| name.eq_ignore_ascii_case(b"origin") || name == b"*")
    });
    if !is_present {
        headers.append(VARY, HeaderValue::from_static("Origin"));
    }
}

/// The names as a list in one header value. Reports names that are not valid.
fn join_header_names(field: &str, names: &[String], invalid: &mut Vec<Diagnostic>) -> Option<HeaderValue> {
    for (index, name) in names.iter().enumerate() {
        if HeaderName::from_bytes(name.as_bytes()).is_err() {
            let message = format!("{name:?} is not a valid header name");
            invalid.push(Diagnostic::in_config(
                format!("{field}[{index}]"),
                message,
                "use letters, digits and `-`, or `*` for all",
            ));
        }
    }
    if names.is_empty() { None } else { HeaderValue::try_from(names.join(",")).ok() }
}

const REQUEST_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-request-private-network");
const ALLOW_PRIVATE_NETWORK: HeaderName = HeaderName::from_static("access-control-allow-private-network");
