//! `compression`: compresses responses, and decompresses requests for backends that cannot.
//!
//! ```yaml
//! plugin: compression
//! config:
//!   min_length: 1024
//!   codings: [zstd, br, gzip]
//! ```
//!
//! A response is compressed if all of these apply:
//!
//! - `Accept-Encoding` of the request accepts one of the codings. The one with the highest weight is used, and the
//!   first one of `codings` among equals. Without the field, nothing is compressed.
//! - The media type is one of `types`, and not that of gRPC.
//! - The body has at least `min_length` bytes, or its length is not known in advance.
//! - It has no `Content-Encoding` yet, no `Content-Range`, and no `Cache-Control: no-transform`.
//! - Neither the request nor the response has credentials, or `with_credentials` is set. A client that can choose a
//!   part of a compressed page can find out its secrets by the length (the attack BREACH). The plugin takes
//!   `Authorization`, `Proxy-Authorization` and cookies of the request, an authenticated consumer, and `Set-Cookie` of
//!   the response as signs of secrets; it does not see any others, such as keys in a query that no plugin reads.
//!
//! A compressed response has `Content-Encoding`, no `Content-Length`, a weak `ETag` instead of a strong one, and
//! neither `Accept-Ranges` nor digests. `Vary: Accept-Encoding` is added to each response that another client could get
//! compressed. The response to HEAD has the fields of the response to GET.
//!
//! The body is compressed last, after the filters of all other plugins, in parts of 16 KiB while it is sent. When the
//! backend pauses, as between server-sent events, everything that it has sent so far is passed on at once.
//! Without room for the memory of an encoder, the response is sent as it is, and
//! `portico_plugin_unfiltered_bodies_total` counts it.
//!
//! With `request.decompress`, bodies of requests in the codings gzip, deflate, br and zstd are decompressed after
//! authentication; `Content-Encoding` and digests are removed. Plugins of higher priorities see the body as the client
//! sent it, those of lower priorities the decompressed one. The body is buffered. The plugin rejects other and multiple
//! codings with 415, bodies that are not in their coding with 400, and those that are too large with 413. Requests of
//! gRPC and upgrades pass unchanged.

mod accepted;
mod encoder;
mod media_types;
mod upload;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use http::header::{
    AUTHORIZATION, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_RANGE, COOKIE, PROXY_AUTHORIZATION,
    SET_COOKIE, VARY,
};
use http::{HeaderMap, HeaderValue, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use self::accepted::{Accepted, Coding};
use self::encoder::EncodedBody;
use self::media_types::MediaTypes;
use self::upload::{RequestConfig, Uploads};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::content_coding::DIGESTS;
use crate::plugin_api::{
    AccessOutcome, BodyCoding, BodyFilter, BuildCx, ChangedFields, CodedHead, Phases, Plugin, PluginKind, RequestCx,
    ResponseCx, ResponseOutcome, StreamingFilter, record,
};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The content codings to compress with, in the order of preference. An empty list compresses nothing.
    codings: Vec<Coding>,
    /// The media types to compress: names such as `text/html`, types such as `text/*`, and suffixes such as
    /// `application/*+json`.
    types: Vec<String>,
    /// The smallest body to compress, in bytes.
    min_length: u64,
    /// The level of each coding.
    #[serde(deserialize_with = "record")]
    levels: LevelsConfig,
    /// Compress also if the request or the response has credentials. Set it only if no page repeats what another site
    /// can put into a request.
    with_credentials: bool,
    /// What happens to the bodies of requests.
    #[serde(deserialize_with = "record")]
    request: RequestConfig,
}

impl Default for Config {
    fn default() -> Self {
        const TYPES: [&str; 11] = [
            "text/*",
            "application/json",
            "application/*+json",
            "application/javascript",
            "application/xml",
            "application/*+xml",
            "application/wasm",
            "application/x-ndjson",
            "font/ttf",
            "font/otf",
            "image/svg+xml",
        ];
        Config {
            codings: Coding::ALL.to_vec(),
            types: TYPES.map(str::to_owned).to_vec(),
            min_length: 1024,
            levels: LevelsConfig::default(),
            with_credentials: false,
            request: RequestConfig::default(),
        }
    }
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
struct LevelsConfig {
    /// From 1, the fastest, to 9.
    gzip: u8,
    /// From 0, the fastest, to 6. Higher levels need 8 MiB of memory and more for each response.
    br: u8,
    /// From 1, the fastest, to 12. Higher levels are too slow for responses that are not stored.
    zstd: u8,
}

impl Default for LevelsConfig {
    fn default() -> Self {
        LevelsConfig { gzip: 5, br: 4, zstd: 3 }
    }
}

impl LevelsConfig {
    fn check(&self) -> Vec<Diagnostic> {
        let levels = [("gzip", self.gzip, 1..=9), ("br", self.br, 0..=6), ("zstd", self.zstd, 1..=12)];
        let wrong = levels.into_iter().filter(|(_, level, range)| !range.contains(level));
        wrong
            .map(|(name, level, range)| {
                let message = format!("{level} is not a level of {name}");
                let remedy = format!("use a number from {} to {}", range.start(), range.end());
                Diagnostic::in_config(format!("levels.{name}"), message, remedy)
            })
            .collect()
    }

    fn of(&self, coding: Coding) -> u8 {
        match coding {
            Coding::Gzip => self.gzip,
            Coding::Br => self.br,
            Coding::Zstd => self.zstd,
        }
    }
}

pub(crate) struct Compression {
    responses: Arc<Responses>,
    /// None if requests are not decompressed.
    uploads: Option<Uploads>,
}

/// Which responses are compressed, and how.
struct Responses {
    codings: Box<[Coding]>,
    types: MediaTypes,
    min_length: u64,
    levels: LevelsConfig,
    with_credentials: bool,
}

impl PluginKind for Compression {
    const NAME: &'static str = "compression";
    // After authentication, so that only known clients make Portico decompress, and before plugins that read bodies.
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1005;
    const PHASES: Phases = Phases::ACCESS_AND_RESPONSE;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = Compression;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let Config { codings, types, min_length, levels, with_credentials, request } = config;
        let mut problems = levels.check();
        for (index, coding) in codings.iter().enumerate() {
            if codings[..index].contains(coding) {
                let message = format!("{} is listed twice", coding.name());
                problems.push(Diagnostic::in_config(format!("codings[{index}]"), message, "list each coding once"));
            }
        }
        if codings.is_empty() && !request.decompress {
            let remedy = "list a coding, or set `request.decompress`";
            problems.push(Diagnostic::in_config("codings", "is empty, so the plugin would do nothing", remedy));
        }
        if types.is_empty() && !codings.is_empty() {
            let remedy = "list a type, or set `codings: []` to compress no responses";
            problems.push(Diagnostic::in_config("types", "is empty, so nothing would be compressed", remedy));
        }
        let types = MediaTypes::build("types", &types).map_err(|wrong| problems.extend(wrong));
        let uploads = Uploads::build(&request, cx).map_err(|wrong| problems.extend(wrong));
        let (Ok(types), Ok(uploads), []) = (types, uploads, &problems[..]) else { return Err(problems) };
        let responses = Responses { codings: codings.into(), types, min_length, levels, with_credentials };
        Ok(Compression { responses: Arc::new(responses), uploads })
    }
}

/// What the response phase needs to know of the request.
#[derive(Clone, Copy)]
struct RequestTraits {
    accepted: Accepted,
    has_credentials: bool,
}

impl Plugin for Compression {
    fn may_wait(&self) -> bool {
        self.uploads.is_some()
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        if !self.responses.codings.is_empty() {
            let headers = &cx.head.headers;
            let identity = &*cx.identity;
            // Authentication plugins may have removed what they have read.
            let has_credentials =
                [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE].iter().any(|name| headers.contains_key(name))
                    || identity.consumer.is_some()
                    || identity.is_authenticated();
            let facts = RequestTraits { accepted: Accepted::from_headers(headers), has_credentials };
            cx.set_plugin_data(facts);
        }
        match &self.uploads {
            Some(uploads) => uploads.access(cx),
            None => AccessOutcome::Continue,
        }
    }

    fn response<'a>(&'a self, cx: &'a mut ResponseCx<'_>) -> ResponseOutcome<'a> {
        if let Some(facts) = cx.plugin_data::<RequestTraits>().copied() {
            let responses = Arc::clone(&self.responses);
            cx.push_body_filter(BodyFilter::Coding(Box::new(move |head| responses.choose(facts, head))));
        }
        ResponseOutcome::Continue
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        if !self.responses.codings.is_empty() {
            fields.response.add(&VARY);
            fields.response.add(&CONTENT_ENCODING);
        }
        if self.uploads.is_some() {
            fields.request.add(&CONTENT_ENCODING);
            fields.request.add(&CONTENT_LENGTH);
            for name in &DIGESTS {
                fields.request.add(name);
            }
        }
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        self.uploads.as_ref().map(Uploads::max_bytes)
    }

    fn buffers_body(&self, head: &request::Parts) -> bool {
        self.uploads.is_some() && upload::is_encoded(&head.headers)
    }
}

impl Responses {
    /// The coding of a response, to whose head `Vary` is added if the choice depends on the client.
    fn choose(&self, request: RequestTraits, head: CodedHead<'_>) -> Option<BodyCoding> {
        let CodedHead { status, headers, length } = head;
        if headers.contains_key(CONTENT_ENCODING) || forbids_changes(headers) {
            return None;
        }
        // The response has the fields of a 200, but not all of those that describe its body (RFC 9110, section 15.4.5).
        let is_unmodified = status == StatusCode::NOT_MODIFIED;
        if !is_unmodified && !self.types.include(headers) || length.is_some_and(|length| length < self.min_length) {
            return None;
        }
        add_vary(headers);
        let has_whole_body = ![StatusCode::NO_CONTENT, StatusCode::RESET_CONTENT, StatusCode::PARTIAL_CONTENT]
            .contains(&status)
            && !headers.contains_key(CONTENT_RANGE);
        let has_secrets = request.has_credentials || headers.contains_key(SET_COOKIE);
        if is_unmodified || !has_whole_body || has_secrets && !self.with_credentials {
            return None;
        }
        let coding = request.accepted.best(&self.codings)?;
        let level = self.levels.of(coding);
        Some(BodyCoding {
            name: HeaderValue::from_static(coding.name()),
            memory_bytes: encoder::memory_bytes(coding, level),
            start: Box::new(move || {
                let body = EncodedBody::new(coding, level, length).ok()?;
                Some(Box::new(body) as Box<dyn StreamingFilter>)
            }),
        })
    }
}

/// Whether `Cache-Control` has `no-transform` (RFC 9111, section 5.2.2.6).
fn forbids_changes(headers: &HeaderMap) -> bool {
    has_member(headers, CACHE_CONTROL.as_str(), "no-transform")
}

fn add_vary(headers: &mut HeaderMap) {
    if !has_member(headers, VARY.as_str(), "accept-encoding") && !has_member(headers, VARY.as_str(), "*") {
        headers.append(VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

/// Whether the list in a field has this member.
fn has_member(headers: &HeaderMap, name: &str, member: &str) -> bool {
    let mut members = headers.get_all(name).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.any(|found| found.trim_ascii().eq_ignore_ascii_case(member.as_bytes()))
}
