//! Tests of the configuration and of the header fields that endpoints and clients get.

use serde_json::json;

use super::Zipkin;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<Zipkin> = RegisteredKind::NEW;

#[test]
fn invalid_fields_are_reported() {
    let cases = [
        (json!({"http_endpoint": "zipkin"}), "config.http_endpoint", "must start with http:// or https://"),
        (json!({"sample_ratio": 2}), "config.sample_ratio", "out of range"),
        (json!({"traceid_byte_count": 12}), "config.traceid_byte_count", "not a valid length"),
        (json!({"tags_header": "a b"}), "config.tags_header", "not a valid header name"),
        (json!({"static_tags": [{"name": "http.method", "value": "a"}]}), "config.static_tags[0].name", "is reserved"),
        (json!({"static_tags": [{"name": "", "value": "a"}]}), "config.static_tags[0].name", "is empty"),
        (
            json!({"static_tags": [{"name": "a", "value": "b"}, {"name": "a", "value": "c"}]}),
            "config.static_tags[1].name",
            "another tag has the name",
        ),
        (json!({"local_service_name": ""}), "config.local_service_name", "is empty"),
        (json!({"static_tags": [{"name": "a"}]}), "config.static_tags[0].value", "missing"),
        (json!({"read_timeout": 0}), "config.read_timeout", "must not be 0"),
        (json!({"http_span_name": "path"}), "config.http_span_name", "is not one of the allowed values"),
        (json!({"queue": {"max_entries": 0}}), "config.queue.max_entries", "out of range"),
    ];
    for (config, field, message) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is accepted"));
        let [diagnostic] = &invalid[..] else { panic!("{config}: {invalid:?}") };
        let is_expected = field.starts_with(diagnostic.field.as_str()) && diagnostic.message.contains(message);
        assert!(is_expected && !diagnostic.remedy.is_empty(), "{config}: {diagnostic:?}");
    }
}

#[tokio::test]
async fn new_traces_have_the_configured_length() {
    for (bytes, digits) in [(8, 16), (16, 32)] {
        let config = json!({"traceid_byte_count": bytes, "http_response_header_for_traceid": "x-trace"});
        let outcome = TestRequest::get("/a").run(&chain(&[(&KIND, config)])).await;
        assert_eq!(outcome.upstream_header("x-b3-traceid").unwrap().len(), digits);
        assert_eq!(outcome.response_header("x-trace"), outcome.upstream_header("x-b3-traceid"));
        assert_eq!(outcome.upstream_header("x-b3-sampled"), Some("0"), "the default rate is small");
    }
}

// docs/kong-compatibility.md, 4.37
#[tokio::test]
async fn decisions_of_clients_pass_to_endpoints() {
    let chain = chain(&[(&KIND, json!({"sample_ratio": 0}))]);
    for (sampled, expected) in [("1", "1"), ("0", "0")] {
        let request = TestRequest::get("/a")
            .header("x-b3-traceid", "64fe8b2a57d3eff7")
            .header("x-b3-spanid", "e457b5a2e4d86bd1")
            .header("x-b3-sampled", sampled);
        let outcome = request.run(&chain).await;
        assert_eq!(outcome.upstream_header("x-b3-traceid"), Some("64fe8b2a57d3eff7"));
        assert_ne!(outcome.upstream_header("x-b3-spanid"), Some("e457b5a2e4d86bd1"));
        assert_ne!(outcome.upstream_header("x-b3-parentspanid"), Some("e457b5a2e4d86bd1"), "the request has its own");
        assert_eq!(outcome.upstream_header("x-b3-sampled"), Some(expected));
    }
}
