//! `redirect`: redirects clients to another URL.
//!
//! ```yaml
//! plugin: redirect
//! config: {location: "https://shop.example/", keep_incoming_path: true}
//! ```

use http::header::{CONTENT_TYPE, LOCATION};
use http::{HeaderValue, StatusCode, Uri};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{AccessOutcome, BuildCx, Phases, Plugin, PluginKind, Reply, ReplyBody, RequestCx};

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Status of the response, 200 to 599.
    #[serde(default = "moved_permanently")]
    status_code: u16,
    /// The URL to redirect to, with scheme and host.
    location: String,
    /// Use the normalized path and the query of the request in place of those in `location`.
    #[serde(default)]
    keep_incoming_path: bool,
}

pub(crate) struct RedirectPlugin {
    status: StatusCode,
    location: HeaderValue,
    /// Scheme and authority of `location`, if the path is taken from the request.
    origin: Option<String>,
}

impl PluginKind for RedirectPlugin {
    const NAME: &'static str = "redirect";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 779;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = false;
    type Config = Config;
    type Plugin = RedirectPlugin;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let status =
            StatusCode::from_u16(config.status_code).ok().filter(|status| (200..600).contains(&status.as_u16()));
        if status.is_none() {
            let message = format!("{} is not a status of 200 to 599", config.status_code);
            invalid.push(Diagnostic::in_config(
                "status_code",
                message,
                "use a status for redirects: 301, 302, 303, 307 or 308",
            ));
        }
        let origin = url_origin(&config.location);
        let location = HeaderValue::from_str(&config.location).ok();
        if origin.is_none() || location.is_none() {
            let message = format!("{:?} is not a URL with scheme and host", config.location);
            invalid.push(Diagnostic::in_config(
                "location",
                message,
                "use an absolute URL, such as https://shop.example/cart",
            ));
        }
        match (status, location) {
            (Some(status), Some(location)) if invalid.is_empty() => {
                Ok(RedirectPlugin { status, location, origin: origin.filter(|_| config.keep_incoming_path) })
            }
            _ => Err(invalid),
        }
    }
}

impl Plugin for RedirectPlugin {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let location = match &self.origin {
            Some(origin) => {
                let (question_mark, query) = cx.query.map_or(("", ""), |query| ("?", query));
                let location = [origin, cx.path, question_mark, query].concat();
                HeaderValue::try_from(location).unwrap_or_else(|_| self.location.clone())
            }
            None => self.location.clone(),
        };
        let reply = Reply::new(self.status, ReplyBody::Raw("redirecting".into()), "redirected");
        let reply = reply.with_header(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        AccessOutcome::Reply(reply.with_header(LOCATION, location))
    }
}

/// `scheme://authority` of an absolute URL.
fn url_origin(location: &str) -> Option<String> {
    let uri: Uri = location.parse().ok()?;
    let (scheme, authority) = (uri.scheme()?, uri.authority()?);
    Some(format!("{scheme}://{authority}")).filter(|_| !authority.host().is_empty())
}

fn moved_permanently() -> u16 {
    301
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<RedirectPlugin> = RegisteredKind::NEW;

    // docs/kong-compatibility.md, 4.26
    #[tokio::test]
    async fn requests_are_redirected() {
        for (config, uri, status, location) in [
            (json!({"location": "https://a.example"}), "/x?y", 301, "https://a.example"),
            (
                json!({"location": "https://a.example/b?c#d", "status_code": 308}),
                "/x?y",
                308,
                "https://a.example/b?c#d",
            ),
            (
                json!({"location": "https://a.example:8443/b?c", "keep_incoming_path": true}),
                "/x/z?y=1",
                301,
                "https://a.example:8443/x/z?y=1",
            ),
            (json!({"location": "http://a.example", "keep_incoming_path": true}), "/", 301, "http://a.example/"),
            // A path that begins with two slashes remains a path.
            (
                json!({"location": "http://a.example", "keep_incoming_path": true}),
                "http://b//evil.example/",
                301,
                "http://a.example//evil.example/",
            ),
        ] {
            let outcome = TestRequest::get(uri).run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.reply_status().map(|status| status.as_u16()), Some(status), "{config}");
            assert_eq!(outcome.response_header("location"), Some(location), "{config}");
            assert_eq!(outcome.message(), Some("redirecting"), "{config}");
        }
    }

    // docs/kong-compatibility.md, 4.26
    #[test]
    fn location_must_be_an_absolute_url() {
        for (config, field) in [
            (json!({}), "config"),
            (json!({"location": "/b"}), "config.location"),
            (json!({"location": "a.example"}), "config.location"),
            (json!({"location": "https://a.example/\n"}), "config.location"),
            (json!({"location": "https://a.example", "status_code": 99}), "config.status_code"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
