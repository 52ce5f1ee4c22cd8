//! Tests of messages, responses and errors.

use http::Response;
use serde_json::{Value, json};

use super::*;
use crate::plugin_api::{RegisteredKind, ReplyBody};
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain};

const KIND: RegisteredKind<Soap> = RegisteredKind::NEW;

async fn run(config: &Value, request: TestRequest) -> TestOutcome {
    request.run(&chain(&[(&KIND, config.clone())])).await
}

/// The body that the endpoint gets; `None` if the request is rejected.
async fn sent(config: &Value, request: TestRequest) -> Option<String> {
    let outcome = run(config, request).await;
    if let Some(status) = outcome.reply_status() {
        assert_eq!(status, StatusCode::BAD_REQUEST);
        return None;
    }
    let body = outcome.state.body_changes.replacement.clone().unwrap_or_default();
    Some(String::from_utf8(body.to_vec()).unwrap())
}

fn post(body: &str) -> TestRequest {
    TestRequest::post("/price?currency=a%26b", "application/json", body.to_owned())
}

const START: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>";
const ENVELOPE: &str = "<soap:Envelope xmlns:soap=\"http://schemas.xmlsoap.org/soap/envelope/\">";

#[tokio::test]
async fn json_becomes_a_message() {
    let config = json!({"operation": "GetPrice", "namespace": "urn:shop", "action": "urn:shop#GetPrice"});
    let message = sent(&config, post(r#"{"item": ["<apple>", "pear"], "n": 1}"#)).await.unwrap();
    let content = "<GetPrice xmlns=\"urn:shop\"><item>&lt;apple&gt;</item><item>pear</item><n>1</n></GetPrice>";
    assert_eq!(message, format!("{START}{ENVELOPE}<soap:Body>{content}</soap:Body></soap:Envelope>"));
    let request = TestRequest::get("/").header("accept-encoding", "gzip").header("soapaction", "\"forged\"");
    let outcome = run(&config, request).await;
    assert_eq!(outcome.request.method, Method::POST);
    for (name, value) in [
        ("content-type", Some("text/xml; charset=utf-8")),
        ("soapaction", Some("\"urn:shop#GetPrice\"")),
        ("accept", Some("text/xml")),
        ("accept-encoding", None),
    ] {
        assert_eq!(outcome.upstream_header(name), value, "{name}");
    }
    let config = json!({"operation": "GetPrice", "version": "1.2", "action": "urn:a"});
    let outcome = run(&config, post("{}")).await;
    let content_type = "application/soap+xml; charset=utf-8; action=\"urn:a\"";
    assert_eq!(outcome.upstream_header("content-type"), Some(content_type));
    assert_eq!(outcome.upstream_header("soapaction"), None);
    for invalid in ["[1]", "{", r#"{"a b": 1}"#, r#"{"a": "\u0000"}"#] {
        assert_eq!(sent(&config, post(invalid)).await, None, "{invalid}");
    }
}

#[tokio::test]
async fn templates_have_escaped_values() {
    let config = json!({
        "template": "<Get c=\"$(query_params.currency)\" id=\"$(uri_captures.id)\">{{/item}}<L>{{/list}}</L></Get>",
        "header_template": "<Key>$(headers.x_key)</Key>",
    });
    let request = |body: &str| {
        let mut request = post(body).header("x-key", "</Key><Admin/>");
        request.uri_captures.0 = vec![("id", "\"7\"".to_owned())];
        request
    };
    let message = sent(&config, request(r#"{"item": "a<b", "list": {"i": [1, 2]}}"#)).await.unwrap();
    let header = "<soap:Header><Key>&lt;/Key&gt;&lt;Admin/&gt;</Key></soap:Header>";
    let body = "<Get c=\"a&amp;b\" id=\"&quot;7&quot;\">a&lt;b<L><i>1</i><i>2</i></L></Get>";
    assert_eq!(message, format!("{START}{ENVELOPE}{header}<soap:Body>{body}</soap:Body></soap:Envelope>"));
    assert_eq!(sent(&config, request("{}")).await, None, "a member is missing");
    assert_eq!(sent(&config, post(r#"{"item": 1, "list": 2}"#)).await, None, "a header is missing");
    let plain = json!({"mode": "json-to-xml", "operation": "order"});
    assert_eq!(sent(&plain, post(r#"{"a": 1}"#)).await.unwrap(), format!("{START}<order><a>1</a></order>"));
}

/// What the client gets if the endpoint responds with this body: status, type and body.
async fn received(config: &Value, status: u16, content_type: &str, body: &str) -> (u16, String, String) {
    let mut request = post("{}");
    request.upstream_response =
        Response::builder().status(status).header("content-type", content_type).header("x-a", "1").body(()).unwrap();
    let mut outcome = run(config, request).await;
    let unchanged = outcome.filter_body(body.to_owned());
    let Some(reply) = &outcome.reply else {
        return (status, content_type.to_owned(), String::from_utf8(unchanged.to_vec()).unwrap());
    };
    let content_type = reply.headers.get("content-type").map(|value| value.to_str().unwrap()).unwrap_or_default();
    let body = match &reply.body {
        ReplyBody::Raw(body) => {
            assert_eq!(reply.headers["x-a"], "1", "other fields stay");
            String::from_utf8(body.to_vec()).unwrap()
        }
        _ => reply.reason.to_owned(),
    };
    (reply.status.as_u16(), content_type.to_owned(), body)
}

#[tokio::test]
async fn messages_become_json() {
    let config = json!({"operation": "GetPrice", "lists": ["price"]});
    let envelope = |body: &str| format!("<s:Envelope xmlns:s='u'><s:Body>{body}</s:Body></s:Envelope>");
    let json_type = "application/json; charset=utf-8".to_owned();
    for (body, expected) in [
        ("<r:PriceResponse xmlns:r='v'><r:price>1.90</r:price></r:PriceResponse>", r#"{"price":["1.90"]}"#),
        ("<a>1</a>", r#""1""#),
        ("", "null"),
    ] {
        let response = received(&config, 200, "text/xml", &envelope(body)).await;
        assert_eq!(response, (200, json_type.clone(), expected.to_owned()), "{body}");
    }
    let html = received(&config, 200, "text/html", "<p>").await;
    assert_eq!(html, (200, "text/html".to_owned(), "<p>".to_owned()), "other types are not converted");
    for invalid in [
        "no xml".to_owned(),
        "<a/>".to_owned(),
        format!("<!DOCTYPE a SYSTEM 'file:///etc/passwd'>{}", envelope("")),
        envelope("&xxe;"),
        envelope(&format!("{}{}", "<a>".repeat(60), "</a>".repeat(60))),
    ] {
        let (status, _, reason) = received(&config, 200, "text/xml", &invalid).await;
        assert_eq!((status, &*reason), (502, "invalid_soap_response"), "{invalid}");
    }
    let plain = json!({"mode": "json-to-xml", "operation": "order", "keep_namespaces": true});
    let (_, _, body) = received(&plain, 200, "application/xml", "<o:order xmlns:o='u'><o:id>1</o:id></o:order>").await;
    assert_eq!(body, r#"{"o:order":{"@xmlns:o":"u","o:id":"1"}}"#);
}

#[tokio::test]
async fn faults_become_problems() {
    let envelope = |fault: &str| format!("<s:Envelope xmlns:s='u'><s:Body>{fault}</s:Body></s:Envelope>");
    let v1_1 = |code: &str| {
        let detail = "<detail><reason>none left</reason></detail>";
        envelope(&format!("<s:Fault><faultcode>{code}</faultcode><faultstring>No</faultstring>{detail}</s:Fault>"))
    };
    let v1_2 =
        "<s:Fault><s:Code><s:Value>s:Sender</s:Value></s:Code><s:Reason><s:Text>No</s:Text></s:Reason></s:Fault>";
    let config = json!({"operation": "a", "fault_statuses": {"Busy": 503}});
    for (body, status, code) in [
        (v1_1("s:Client"), 400, "Client"),
        (v1_1("s:Client.Authentication"), 400, "Client.Authentication"),
        (v1_1("s:Server"), 502, "Server"),
        (v1_1("Busy"), 503, "Busy"),
        (envelope(v1_2), 400, "Sender"),
        (envelope("<s:Fault/>"), 502, ""),
    ] {
        let (received_status, content_type, body) = received(&config, 500, "text/xml", &body).await;
        assert_eq!((received_status, &*content_type), (status, "application/problem+json"), "{code}");
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((&problem["code"], &problem["status"]), (&json!(code), &json!(status)));
        if problem.get("fault").is_some() {
            assert_eq!((&problem["detail"], &problem["fault"]), (&json!("No"), &json!({"reason": "none left"})));
        }
    }
}

#[tokio::test]
async fn clients_may_use_xml() {
    let config = json!({"mode": "xml-to-json", "operation": "orders", "lists": ["item"]});
    let request = |body: &str| TestRequest::post("/", "application/xml", body.to_owned());
    let json = sent(&config, request("<o:order xmlns:o='u'><item>1</item></o:order>")).await;
    assert_eq!(json.as_deref(), Some(r#"{"order":{"item":["1"]}}"#));
    assert_eq!(sent(&config, request("<!DOCTYPE a><a/>")).await, None);
    assert_eq!(sent(&config, request("{}")).await, None);
    let outcome = run(&config, TestRequest::get("/")).await;
    assert_eq!((outcome.reply_status(), outcome.request.method), (None, Method::GET));
    for (body, expected) in [
        (r#"{"order": {"id": 7}}"#, "<order><id>7</id></order>"),
        (r#"[{"id": 7}, 8]"#, "<orders><item><id>7</id></item><item>8</item></orders>"),
        (r#"{"a": 1, "b": null}"#, "<orders><a>1</a><b></b></orders>"),
    ] {
        let mut upstream = request("<a/>");
        upstream.upstream_response = Response::builder().header("content-type", "application/json").body(()).unwrap();
        let mut outcome = run(&config, upstream).await;
        outcome.filter_body(body);
        assert_eq!(outcome.message(), Some(&*format!("{START}{expected}")));
    }
}

#[test]
fn invalid_configurations_name_the_field() {
    for (config, field) in [
        (json!({"operation": "a", "template": "<b/>"}), "config.template"),
        (json!({"template": "<b>{{a}}</b>"}), "config.template"),
        (json!({"template": "<b>{{/a</b>"}), "config.template"),
        (json!({"template": "<b>$(x)</b>"}), "config.template"),
        (json!({"template": "<b/>", "namespace": "u"}), "config.namespace"),
        (json!({"operation": "a", "header_template": "<b>"}), "config.header_template"),
        (json!({"operation": "a", "action": "a\"b"}), "config.action"),
        (json!({"operation": "a", "version": "1.3"}), "config.version"),
        (json!({"operation": "a", "max_depth": 101}), "config.max_depth"),
        (json!({"operation": "a", "max_body_size": 0}), "config.max_body_size"),
        (json!({"mode": "xml-to-json", "action": "a"}), "config.action"),
        (json!({"mode": "json-to-xml", "operation": "a", "action": "a"}), "config.action"),
        (json!({"mode": "json-to-xml", "operation": "a", "header_template": "<a/>"}), "config.header_template"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}
