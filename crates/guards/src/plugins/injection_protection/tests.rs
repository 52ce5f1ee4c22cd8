//! Attacks that each kind recognizes, valid texts that it does not, and the locations that are searched.

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<InjectionProtection> = RegisteredKind::NEW;

async fn status(config: &Value, request: TestRequest) -> Option<u16> {
    request.run(&chain(&[(&KIND, config.clone())])).await.reply_status().map(|status| status.as_u16())
}

const SQL_ATTACKS: &[&str] = &[
    "1' OR '1'='1",
    "1' or 1=1 --",
    "admin'--",
    "admin' #",
    "x') or ('1'='1",
    "1 UNION SELECT name, password FROM users",
    "1/**/union/**/all/**/select 1",
    "1'; DROP TABLE users",
    "1 or 1=1",
    "drop table users",
    "insert into users values (1)",
    "delete from users where 1=1",
    "update users set admin=1",
    "1; exec xp_cmdshell('dir')",
    "1' and sleep(5)",
    "1 waitfor delay '0:0:5'",
    "pg_sleep(10)",
    "select table_name from information_schema.tables",
    "1 into outfile '/tmp/a'",
];

const PROSE: &[&str] = &[
    "O'Reilly",
    "rock'n'roll and jazz",
    "Tom & Jerry",
    "select",
    "orders",
    "update my profile",
    "it's",
    "android",
    "a union of states",
    "50% off",
    "or",
    "insert coin",
    "Dürüm & Döner",
    "2026-01-02T03:04:05+01:00",
    "a@b.example",
];

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn attacks_are_recognized_and_prose_is_not() {
    let low = json!({"injection_types": ["sql_low_sensitivity"]});
    for attack in SQL_ATTACKS {
        let uri = format!("/search?q={}", utf8_percent_encode(attack, NON_ALPHANUMERIC));
        assert_eq!(status(&json!({}), TestRequest::get(&uri)).await, Some(400), "{attack}");
        assert_eq!(status(&low, TestRequest::get(&uri)).await, Some(400), "{attack}");
    }
    let all = json!({"injection_types": [
        "sql", "sql_low_sensitivity", "js", "ssi", "xpath_abbreviated", "xpath_extended", "java_exception",
    ]});
    for text in PROSE {
        let uri = format!("/search?q={}&page=2", utf8_percent_encode(text, NON_ALPHANUMERIC));
        assert_eq!(status(&all, TestRequest::get(&uri)).await, None, "{text}");
    }
    let sentence = "please%20select%20a%20color%20from%20the%20list";
    assert_eq!(status(&low, TestRequest::get(&format!("/?q={sentence}"))).await, None);
    assert_eq!(status(&json!({}), TestRequest::get(&format!("/?q={sentence}"))).await, Some(400));
}

#[tokio::test]
async fn each_kind_has_its_attacks() {
    for (kind, attacks) in [
        (
            "js",
            &[
                "<script>alert(1)</script>",
                "< SCRIPT src=a>",
                "javascript:alert(1)",
                "<img src=a onerror=b>",
                "<svg/onload=alert(1)>",
                "<iframe src=a>",
                "data:text/html,a",
            ][..],
        ),
        ("ssi", &["<!--#exec cmd=\"ls\"-->", "<!-- #include virtual=\"/a\" -->"]),
        ("xpath_abbreviated", &["' or //user[name='a']", "//*", "/users/@id", "a[position()=1]", "x']|//b"]),
        ("xpath_extended", &["/ancestor::node()", "preceding-sibling::*", "descendant-or-self:: a"]),
        (
            "java_exception",
            &[
                "java.lang.NullPointerException",
                "Exception in thread \"main\"",
                "at com.a.B.c(B.java:12)",
                "Caused by: a.b.CException",
            ],
        ),
    ] {
        let config = json!({"injection_types": [kind]});
        for attack in attacks {
            let encoded = utf8_percent_encode(attack, NON_ALPHANUMERIC);
            assert_eq!(
                status(&config, TestRequest::get(&format!("/?q={encoded}"))).await,
                Some(400),
                "{kind} {attack}"
            );
        }
        assert_eq!(status(&config, TestRequest::get("/a/b?c=https://d.example/e&f[]=1")).await, None, "{kind}");
    }
}

#[tokio::test]
async fn only_the_configured_locations_are_searched() {
    let attack = "%3Cscript%3E";
    let twice = "%253Cscript%253E";
    let in_path = || TestRequest::get(&format!("/a/{attack}"));
    let in_query = || TestRequest::get(&format!("/?a={twice}"));
    let in_header = || TestRequest::get("/").header("referer", "<script>");
    let in_json = || TestRequest::post("/", "application/json", r#"{"a": "\u003cscript>"}"#);
    let in_form = || TestRequest::post("/", "application/x-www-form-urlencoded", format!("a=1&b={attack}"));
    for (location, expected) in [
        ("path", [true, false, false, false, false]),
        ("query", [false, true, false, false, false]),
        ("path_and_query", [true, true, false, false, false]),
        ("headers", [false, false, true, false, false]),
        ("body", [false, false, false, true, true]),
    ] {
        let config = json!({"injection_types": ["js"], "locations": [location]});
        for (index, request) in [in_path(), in_query(), in_header(), in_json(), in_form()].into_iter().enumerate() {
            assert_eq!(status(&config, request).await.is_some(), expected[index], "{location} {index}");
        }
    }
}

#[tokio::test]
async fn bodies_that_cannot_be_searched_are_rejected() {
    let config = json!({"locations": ["body"]});
    let log_only = json!({"locations": ["body"], "enforcement_mode": "log_only"});
    let compressed = || TestRequest::post("/", "text/plain", "a").header("content-encoding", "gzip");
    let large = || {
        let request = TestRequest::post("/", "text/plain", "a".repeat(MAX_BODY + 1));
        request.header("content-length", &(MAX_BODY + 1).to_string())
    };
    assert_eq!(status(&config, compressed()).await, Some(400));
    assert_eq!(status(&config, large()).await, Some(400));
    assert_eq!(status(&log_only, compressed()).await, None);
    assert_eq!(status(&log_only, large()).await, None);
}

/// As the page of the plugin says: clients choose the type.
#[tokio::test]
async fn bodies_of_grpc_are_not_searched() {
    let config = json!({"locations": ["body"]});
    for (content_type, expected) in [
        ("application/grpc", None),
        ("Application/gRPC+proto", None),
        ("application/grpc-web-text", None),
        ("application/x-grpc", Some(400)),
        ("text/plain", Some(400)),
    ] {
        let request = TestRequest::post("/", content_type, "' or 1=1");
        assert_eq!(status(&config, request).await, expected, "{content_type}");
    }
}

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn custom_expressions_and_replies() {
    let config = json!({
        "injection_types": [], "custom_injections": [{"name": "templates", "regex": "\\$\\{[^}]*\\}"}],
        "error_status_code": 403, "error_message": "No",
    });
    let outcome = TestRequest::get("/?a=$%7Bb%7D").run(&chain(&[(&KIND, config.clone())])).await;
    assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::FORBIDDEN), Some("No")));
    assert_eq!(status(&config, TestRequest::get("/?a=b")).await, None);
}

#[test]
fn invalid_configurations_are_rejected() {
    for (config, field) in [
        (json!({"injection_types": []}), "config.injection_types"),
        (json!({"locations": []}), "config.locations"),
        (json!({"injection_types": ["xss"]}), "config.injection_types[0]"),
        (json!({"error_status_code": 399}), "config.error_status_code"),
        (json!({"custom_injections": [{"name": "a", "regex": "("}]}), "config.custom_injections[0].regex"),
        (json!({"custom_injections": [{"name": "a", "regex": "b*"}]}), "config.custom_injections[0].regex"),
        (json!({"custom_injections": [{"name": "a", "regex": "a[^b]{500}c"}]}), "config.custom_injections[0].regex"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
