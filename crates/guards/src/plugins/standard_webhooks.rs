//! `standard-webhooks`: accepts only webhooks that their sender has signed, as Standard Webhooks specifies.
//!
//! ```yaml
//! apiVersion: configuration.konghq.com/v1
//! kind: KongPlugin
//! metadata:
//!   name: webhooks
//! plugin: standard-webhooks
//! configFrom:
//!   secretKeyRef:
//!     name: webhook-secret
//!     key: config
//! ---
//! apiVersion: v1
//! kind: Secret
//! metadata:
//!   name: webhook-secret
//! stringData:
//!   config: |
//!     secret_v1: whsec_b25seS1mb3ItdHJ5aW5nLWl0LW91dA==
//! ```
//!
//! The sender signs the id, the timestamp and the body of a webhook with HMAC-SHA256, and sends
//!
//! ```text
//! webhook-id: msg_2f8a
//! webhook-timestamp: 1767355200
//! webhook-signature: v1,BASE64
//! ```
//!
//! where the signed text is the id, the timestamp and the body, separated by dots. `webhook-signature` may list several
//! signatures, separated by spaces, of which one must be right: senders do that while they replace a secret. Other
//! versions than `v1` are ignored. All other requests get 400.
//!
//! A webhook can be repeated while its timestamp is within the tolerance, and senders repeat one that was not
//! confirmed. So a backend must ignore a `webhook-id` that it has already processed.

use std::time::{Duration, SystemTime};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use http::{HeaderMap, HeaderName, StatusCode, request};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::{BuildCx, Phases, PluginKind, Scopes};
use crate::plugin_api::login::BASE64;
use crate::plugin_api::{AccessOutcome, Assertions, CredentialLocations, Plugin, Reply, RequestCx};
use crate::plugin_kit::authentication::declare_identity;

/// Accepts only webhooks that their sender has signed.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The secret that the sender has. After `whsec_`, as Standard Webhooks writes secrets, it is decoded from base64;
    /// any other text is the secret itself.
    secret_v1: String,
    /// How many seconds the timestamp of a webhook may differ from Portico's clock.
    #[serde(default = "default_tolerance")]
    tolerance_second: u32,
}

fn default_tolerance() -> u32 {
    300
}

const ID: HeaderName = HeaderName::from_static("webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("webhook-signature");
/// The beginning of a secret in base64.
const BASE64_SECRET: &str = "whsec_";
/// Size limit of a webhook, in bytes.
const MAX_BODY_BYTES: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct StandardWebhooks {
    key: hmac::Key,
    tolerance: Duration,
}

impl PluginKind for StandardWebhooks {
    const NAME: &'static str = "standard-webhooks";
    const HAS_CREDENTIALS: bool = true;
    const JUDGES_CONSUMERS: bool = false;
    const PRIORITY: i32 = 760;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const ASSERTS: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER;
    type Config = Config;
    type Plugin = Self;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let secret = match config.secret_v1.strip_prefix(BASE64_SECRET) {
            Some(encoded) => BASE64.decode(encoded).map_err(|_| {
                let remedy = "copy the secret of the sender, or remove whsec_ if it is not in base64";
                vec![Diagnostic::in_config("secret_v1", "is not base64 after whsec_", remedy)]
            })?,
            None => config.secret_v1.into_bytes(),
        };
        if secret.is_empty() {
            let remedy = "set it to the secret of the sender";
            return Err(vec![Diagnostic::in_config("secret_v1", "is empty, so anyone could sign", remedy)]);
        }
        let tolerance = Duration::from_secs(config.tolerance_second.into());
        Ok(StandardWebhooks { key: hmac::Key::new(hmac::HMAC_SHA256, &secret), tolerance })
    }
}

impl Plugin for StandardWebhooks {
    /// With the signature, a webhook can be sent again within the tolerance.
    fn credential_locations(&self) -> Option<CredentialLocations> {
        Some(CredentialLocations { headers: vec![SIGNATURE], ..CredentialLocations::default() })
    }

    fn may_wait(&self) -> bool {
        false
    }

    fn declare_assertions(&self, assertions: &mut Assertions) {
        declare_identity(assertions);
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY_BYTES)
    }

    /// Without these headers, the request is rejected whatever its body is.
    fn buffers_body(&self, head: &request::Parts) -> bool {
        [ID, TIMESTAMP, SIGNATURE].iter().all(|name| only_value(&head.headers, name).is_some())
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        match self.verify(cx) {
            Ok(()) => AccessOutcome::Continue,
            Err(rejection) => AccessOutcome::Reply(rejection.reply()),
        }
    }
}

/// Why a request is rejected.
enum WebhookRejection {
    /// A header is missing, or there are several of the same name.
    NoSignature,
    WrongTimestamp,
    NoBody,
    WrongSignature,
}

impl WebhookRejection {
    /// The client gets the same response for all, as in Kong; the reasons are for logs and metrics.
    fn reply(self) -> Box<Reply> {
        let (status, message) = (StatusCode::BAD_REQUEST, "Bad request");
        match self {
            WebhookRejection::NoSignature => Reply::negotiated(status, message, "no_signature"),
            WebhookRejection::WrongTimestamp => Reply::negotiated(status, message, "wrong_timestamp"),
            WebhookRejection::NoBody => Reply::negotiated(status, message, "no_body"),
            WebhookRejection::WrongSignature => Reply::negotiated(status, message, "wrong_signature"),
        }
    }
}

impl StandardWebhooks {
    fn verify(&self, cx: &RequestCx<'_>) -> Result<(), WebhookRejection> {
        let value = |name| only_value(&cx.head.headers, name).ok_or(WebhookRejection::NoSignature);
        let (id, timestamp, signatures) = (value(&ID)?, value(&TIMESTAMP)?, value(&SIGNATURE)?);
        if !self.is_current(timestamp, cx.now) {
            return Err(WebhookRejection::WrongTimestamp);
        }
        // As the client sent it, whatever plugins that run earlier have changed.
        let body = cx.body.filter(|body| !body.is_empty()).ok_or(WebhookRejection::NoBody)?;
        let mut context = hmac::Context::with_key(&self.key);
        [id, b".", timestamp, b".", body].into_iter().for_each(|part| context.update(part));
        let expected = context.sign();
        let mut signatures = signatures.split(|byte| *byte == b' ').filter_map(|entry| entry.strip_prefix(b"v1,"));
        let is_right = |signature: &[u8]| {
            BASE64.decode(signature).is_ok_and(|found| verify_slices_are_equal(expected.as_ref(), &found).is_ok())
        };
        if signatures.any(is_right) { Ok(()) } else { Err(WebhookRejection::WrongSignature) }
    }

    /// Whether these seconds since 1970 are within the tolerance. A timestamp in the future would be valid for longer.
    fn is_current(&self, timestamp: &[u8], now: SystemTime) -> bool {
        let is_number = timestamp.iter().all(u8::is_ascii_digit);
        let seconds = std::str::from_utf8(timestamp).ok().filter(|_| is_number).and_then(|text| text.parse().ok());
        let time = seconds.and_then(|seconds| SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)));
        time.is_some_and(|time| now.duration_since(time).unwrap_or_else(|later| later.duration()) <= self.tolerance)
    }
}

/// The value of a header that a request has once.
fn only_value<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Option<&'h [u8]> {
    let mut values = headers.get_all(name).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    Some(value.as_bytes()).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::STANDARD;
    use bytes::Bytes;
    use http::Request;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::plugin_api::RegisteredKind;
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<StandardWebhooks> = RegisteredKind::NEW;
    /// [`testing::noon`](crate::plugin_chain::testing::noon).
    const NOON: u64 = 1_767_355_200;

    fn sign(secret: &[u8], text: &str) -> String {
        STANDARD.encode(hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), text.as_bytes()))
    }

    fn webhook(headers: &[(&'static str, &str)], body: &'static str) -> TestRequest {
        let request = TestRequest::new(Request::post("/").body(Bytes::from_static(body.as_bytes())).unwrap());
        headers.iter().fold(request, |request, (name, value)| request.header(name, value))
    }

    async fn status(config: &Value, request: TestRequest) -> Option<u16> {
        let outcome = request.run(&chain(&[(&KIND, config.clone())])).await;
        let status = outcome.reply_status().map(|status| status.as_u16());
        assert_eq!(outcome.message(), status.map(|_| "Bad request"));
        status
    }

    // docs/kong-compatibility.md, 4.33
    #[tokio::test]
    async fn webhooks_are_accepted_with_one_right_signature() {
        let right = format!("v1,{}", sign(b"secret", &format!("msg_1.{NOON}.body")));
        let unpadded = right.trim_end_matches('=').to_owned();
        let other = format!("v1,{}", sign(b"other", &format!("msg_1.{NOON}.body")));
        let cases = [
            (right.clone(), None),
            (unpadded, None),
            (format!("{other} {right}"), None),
            (format!("v1a,abc {right} v2,abc"), None),
            (other, Some(400)),
            (right.replacen("v1,", "v2,", 1), Some(400)),
            (right.replacen("v1,", "", 1), Some(400)),
            ("v1,".to_owned(), Some(400)),
            (" ".to_owned(), Some(400)),
        ];
        let timestamp = NOON.to_string();
        for (signature, expected) in cases {
            let headers =
                [("webhook-id", "msg_1"), ("webhook-timestamp", &*timestamp), ("webhook-signature", &*signature)];
            let found = status(&json!({"secret_v1": "secret"}), webhook(&headers, "body")).await;
            assert_eq!(found, expected, "{signature}");
        }
    }

    // The example in the specification of Standard Webhooks, section on signatures.
    #[tokio::test]
    async fn the_example_of_the_specification_is_accepted() {
        let config =
            json!({"secret_v1": "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "tolerance_second": 4_000_000_000_u32});
        let headers = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
        ];
        assert_eq!(status(&config, webhook(&headers, r#"{"test": 2432232314}"#)).await, None);
        assert_eq!(status(&config, webhook(&headers, r#"{"test": 2432232315}"#)).await, Some(400));
    }

    // docs/kong-compatibility.md, 4.33
    #[tokio::test]
    async fn timestamps_are_within_the_tolerance() {
        let cases = [
            (NOON.to_string(), None),
            ((NOON - 300).to_string(), None),
            ((NOON - 301).to_string(), Some(400)),
            ((NOON + 300).to_string(), None),
            ((NOON + 301).to_string(), Some(400)),
            (format!("+{NOON}"), Some(400)),
            (format!("{NOON}.5"), Some(400)),
            ("noon".to_owned(), Some(400)),
            ("99999999999999999999999".to_owned(), Some(400)),
            (u64::MAX.to_string(), Some(400)),
        ];
        for (timestamp, expected) in cases {
            let signature = format!("v1,{}", sign(b"secret", &format!("m.{timestamp}.body")));
            let headers = [("webhook-id", "m"), ("webhook-timestamp", &*timestamp), ("webhook-signature", &*signature)];
            let found = status(&json!({"secret_v1": "secret"}), webhook(&headers, "body")).await;
            assert_eq!(found, expected, "{timestamp}");
        }
    }

    // docs/kong-compatibility.md, 4.33
    #[tokio::test]
    async fn headers_and_body_are_required_once() {
        let (timestamp, config) = (NOON.to_string(), json!({"secret_v1": "secret"}));
        let signature = |body: &str| format!("v1,{}", sign(b"secret", &format!("m.{NOON}.{body}")));
        let (right, of_nothing) = (signature("body"), signature(""));
        let headers = [("webhook-id", "m"), ("webhook-timestamp", &*timestamp), ("webhook-signature", &*right)];
        assert_eq!(status(&config, webhook(&headers, "body")).await, None);
        for index in 0..3 {
            let without: Vec<_> = headers.iter().copied().filter(|header| *header != headers[index]).collect();
            assert_eq!(status(&config, webhook(&without, "body")).await, Some(400), "without {}", headers[index].0);
            let repeated: Vec<_> = headers.into_iter().chain([headers[index]]).collect();
            assert_eq!(status(&config, webhook(&repeated, "body")).await, Some(400), "two of {}", headers[index].0);
        }
        let empty = [headers[0], headers[1], ("webhook-signature", &*of_nothing)];
        assert_eq!(status(&config, webhook(&empty, "")).await, Some(400), "no body");
        let plugin = build(&KIND, &config).unwrap();
        let buffers = |headers: &[_]| plugin.buffers_body(&webhook(headers, "").request.into_parts().0);
        assert_eq!((buffers(&headers), buffers(&headers[1..])), (true, false));
    }

    // docs/kong-compatibility.md, 4.33
    #[test]
    fn invalid_configurations_are_rejected() {
        let cases = [
            (json!({}), "config"),
            (json!({"secret_v1": ""}), "config.secret_v1"),
            (json!({"secret_v1": "whsec_"}), "config.secret_v1"),
            (json!({"secret_v1": "whsec_%%"}), "config.secret_v1"),
            (json!({"secret_v1": "a", "tolerance_second": -1}), "config.tolerance_second"),
        ];
        for (config, field) in cases {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
        }
    }

    proptest! {
        #[test]
        fn headers_never_cause_a_panic(value in "[ -~]{0,40}", timestamp in "[0-9]{0,30}") {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            let headers = [("webhook-id", &*value), ("webhook-timestamp", &timestamp), ("webhook-signature", &value)];
            let found = runtime.block_on(status(&json!({"secret_v1": "secret"}), webhook(&headers, "body")));
            prop_assert_eq!(found, Some(400));
        }
    }
}
