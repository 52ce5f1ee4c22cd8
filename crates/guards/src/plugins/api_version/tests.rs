//! Tests of versions, their dates, and configurations that are refused.

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain, chain_with};
use crate::plugin_kit::counting::UsageReports;

const KIND: RegisteredKind<ApiVersion> = RegisteredKind::NEW;

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(&KIND, config.clone())])).await
}

/// All places, and two versions without an end.
fn everywhere() -> Value {
    json!({
        "path": true, "path_prefix": "/api", "header": "x-version", "query": "version",
        "media_type_parameter": "version", "upstream_header": "x-version",
        "versions": [{"name": "1"}, {"name": "2"}],
    })
}

#[tokio::test]
async fn requests_name_versions_in_each_place() {
    let get = TestRequest::get;
    for (name, request, expected) in [
        ("path", get("/api/1/a"), Ok("1")),
        ("end of the path", get("/api/2"), Ok("2")),
        ("unknown in the path", get("/api/3/a"), Err(404)),
        ("another path", get("/other/1"), Err(400)),
        ("header", get("/").header("x-version", "2"), Ok("2")),
        ("unknown header", get("/").header("x-version", "02"), Err(400)),
        ("two headers", get("/").header("x-version", "1").header("x-version", "2"), Err(400)),
        ("list in a header", get("/").header("x-version", "1, 2"), Err(400)),
        ("query", get("/?a=1&version=2"), Ok("2")),
        ("encoded query", get("/?%76ersion=%32"), Ok("2")),
        ("two in the query", get("/?version=1&version=2"), Err(400)),
        ("same twice", get("/?version=2&version=2"), Ok("2")),
        ("no value", get("/?version"), Err(400)),
        ("media type", get("/").header("accept", "application/json;version=1, */*;q=0.1"), Ok("1")),
        ("unknown media type", get("/").header("accept", "application/json;version=7"), Err(406)),
        ("two media types", get("/").header("accept", "a/b;version=1, a/c;version=2"), Err(400)),
        ("path and header", get("/api/1/a").header("x-version", "2"), Err(400)),
        ("same in path and query", get("/api/1/a?version=1"), Ok("1")),
        ("nothing", get("/"), Err(400)),
    ] {
        let outcome = run(&everywhere(), request).await;
        let status = outcome.reply_status().map(|status| status.as_u16());
        let actual = status.map_or_else(|| Ok(outcome.upstream_header("x-version").unwrap_or("-")), Err);
        assert_eq!(actual, expected, "{name}");
    }
}

#[tokio::test]
async fn default_version_is_that_of_requests_that_name_none() {
    let mut config = everywhere();
    config["default_version"] = json!("2");
    assert_eq!(run(&config, TestRequest::get("/")).await.upstream_header("x-version"), Some("2"));
    let unknown = run(&config, TestRequest::get("/?version=3")).await;
    assert_eq!(unknown.reply_status(), Some(StatusCode::BAD_REQUEST));
    let only_path = json!({"path": true, "versions": [{"name": "v1"}]});
    assert_eq!(run(&only_path, TestRequest::get("/")).await.reply_status(), Some(StatusCode::NOT_FOUND));
}

/// A client cannot select what the backend reads by a header that the plugin does not read.
#[tokio::test]
async fn header_for_the_backend_replaces_that_of_the_client() {
    let config = json!({"path": true, "upstream_header": "x-version", "versions": [{"name": "v1"}]});
    let outcome = run(&config, TestRequest::get("/v1/a").header("x-version", "v2").header("x-version", "v3")).await;
    let values: Vec<_> = outcome.request.headers.get_all("x-version").iter().collect();
    assert_eq!(values, ["v1"]);
}

/// Tests run at noon of 2026-01-02.
#[tokio::test]
async fn versions_end_at_their_date() {
    for (sunset, after_sunset, expected) in [
        ("2026-01-03", "gone", None),
        ("2026-01-02T12:00:01Z", "gone", None),
        ("2026-01-02T12:00:00Z", "gone", Some(410)),
        ("2026-01-02T13:00:00+02:00", "not_found", Some(404)),
        ("2026-01-02", "not_acceptable", Some(406)),
        ("2026-01-02", "serve", None),
    ] {
        let versions = json!([{"name": "v1", "sunset": sunset, "after_sunset": after_sunset}]);
        let outcome = run(&json!({"path": true, "versions": versions}), TestRequest::get("/v1")).await;
        let status = outcome.reply_status().map(|status| status.as_u16());
        assert_eq!(status, expected, "{sunset} {after_sunset}");
        assert!(outcome.response_header("sunset").is_some(), "{sunset}: refusals say it, too");
    }
}

#[tokio::test]
async fn responses_of_deprecated_versions_say_so() {
    let config = json!({"header": "x-version", "versions": [
        {
            "name": "1", "deprecated": "2026-01-01", "sunset": "2026-12-31T23:59:59Z",
            "deprecation_link": "https://api.example/old", "sunset_link": "/end", "successor_link": "/v2",
        },
        {"name": "2"},
    ]});
    let request = || {
        let mut request = TestRequest::get("/");
        for (name, value) in [("link", "</style.css>; rel=preload"), ("sunset", "never")] {
            request.upstream_response.headers_mut().insert(name, HeaderValue::from_static(value));
        }
        request
    };
    let old = run(&config, request().header("x-version", "1")).await;
    assert_eq!(old.response_header("deprecation"), Some("@1767225600"));
    assert_eq!(old.response_header("sunset"), Some("Thu, 31 Dec 2026 23:59:59 GMT"));
    let links: Vec<_> = old.response.headers.get_all("link").iter().collect();
    assert_eq!(
        links,
        [
            "</style.css>; rel=preload",
            "<https://api.example/old>; rel=\"deprecation\"",
            "</end>; rel=\"sunset\"",
            "</v2>; rel=\"successor-version\"",
        ]
    );
    let new = run(&config, request().header("x-version", "2")).await;
    assert_eq!((new.response_header("deprecation"), new.response_header("sunset")), (None, Some("never")));
    assert_eq!(new.response.headers.get_all("link").iter().count(), 1);
}

#[test]
fn invalid_configurations_are_rejected() {
    let with = |field: &str, value: Value| {
        let mut config = json!({"path": true, "versions": [{"name": "v1"}]});
        config[field] = value;
        config
    };
    let version = |version: Value| with("versions", json!([version]));
    for (config, field) in [
        (json!({}), "config"),
        (json!({"versions": [{"name": "v1"}]}), "config"),
        (json!({"path": true}), "config.versions"),
        (with("versions", json!(vec![json!({"name": "v1"}); 65])), "config.versions"),
        (with("versions", json!([{"name": "v1"}, {"name": "v1"}])), "config.versions[1].name"),
        (with("path_prefix", json!("api")), "config.path_prefix"),
        (json!({"header": "a", "path_prefix": "/api", "versions": [{"name": "v1"}]}), "config.path_prefix"),
        (with("header", json!("a b")), "config.header"),
        (with("upstream_header", json!("Host")), "config.upstream_header"),
        (with("query", json!("")), "config.query"),
        (with("media_type_parameter", json!("Q")), "config.media_type_parameter"),
        (with("default_version", json!("v2")), "config.default_version"),
        (version(json!({"name": "a/b"})), "config.versions[0].name"),
        (version(json!({"name": ".."})), "config.versions[0].name"),
        (version(json!({"name": ""})), "config.versions[0].name"),
        (version(json!({"name": "v1", "deprecated": "yesterday"})), "config.versions[0].deprecated"),
        (version(json!({"name": "v1", "sunset": "2026-02-30"})), "config.versions[0].sunset"),
        (version(json!({"name": "v1", "sunset": "1969-12-31"})), "config.versions[0].sunset"),
        (
            version(json!({"name": "v1", "deprecated": "2026-02-02", "sunset": "2026-02-01"})),
            "config.versions[0].sunset",
        ),
        (version(json!({"name": "v1", "after_sunset": "gone"})), "config.versions[0].after_sunset"),
        (version(json!({"name": "v1", "sunset_link": "javascript:a"})), "config.versions[0].sunset_link"),
        (version(json!({"name": "v1", "successor_link": "/a>;b"})), "config.versions[0].successor_link"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}

/// Counts stay when the object changes without another list of versions.
#[tokio::test]
async fn requests_are_counted_by_version() {
    let (state, services): (_, Arc<dyn PluginServices>) = (PluginState::default(), Arc::new(OfflineServices));
    let mut config = json!({
        "header": "x-version", "default_version": "2",
        "versions": [{"name": "1", "sunset": "2020-01-01", "after_sunset": "gone"}, {"name": "2"}],
    });
    let plan = json!({"plans": [{"name": "free", "quotas": {"day": 10}}]});
    let usage_plan = crate::plugins::REGISTRY.find("usage-plan").unwrap();
    let chain = |config: &Value| chain_with(&[(&KIND, config.clone()), (usage_plan, plan.clone())], &state, &services);
    let before = chain(&config);
    for version in ["1", "2", "2", "3"] {
        TestRequest::get("/").header("x-version", version).run(&before).await;
    }
    config["upstream_header"] = json!("x-to-backend");
    let after = chain(&config);
    TestRequest::get("/").run(&after).await;
    let reports = UsageReports::of(&state);
    let totals: Vec<_> = reports
        .version_totals()
        .into_iter()
        .map(|total| (total.version.to_string(), total.is_refused, total.requests))
        .collect();
    let expected = [("1", false, 0), ("1", true, 1), ("2", false, 3), ("2", true, 0)];
    assert_eq!(totals, expected.map(|(version, is_refused, requests)| (version.to_owned(), is_refused, requests)));
    let report = reports.to_json();
    let versions = json!([{"version": "1", "served": 0, "refused": 1}, {"version": "2", "served": 3, "refused": 0}]);
    assert_eq!(report["versions"], json!([{"object": "KongPlugin/default/test", "versions": versions}]));
    // While requests still use the former list of versions, each version is reported once.
    config["versions"] = json!([{"name": "2"}, {"name": "4"}]);
    let next = chain(&config);
    TestRequest::get("/").run(&next).await;
    let served = |version: &str| {
        let totals = UsageReports::of(&state).version_totals();
        let of_version = totals.into_iter().filter(|total| *total.version == *version && !total.is_refused);
        of_version.map(|total| total.requests).collect::<Vec<_>>()
    };
    assert_eq!(["1", "2", "4"].map(served), [vec![0], vec![4], vec![0]]);
    drop((before, after));
    assert_eq!(["1", "2", "4"].map(served), [vec![], vec![4], vec![0]]);
    let row = &report["objects"][0]["use"][0];
    assert_eq!((&row["version"], &row["admitted"], &row["plan"]), (&json!("2"), &json!(3), &json!("free")));
}
