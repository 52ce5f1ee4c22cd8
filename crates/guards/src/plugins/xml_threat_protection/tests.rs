//! Tests of the limits, of the syntax, and of what happens to bodies of other types.

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::RegisteredKind;
use crate::plugin_chain::testing::{TestRequest, build, chain};

const KIND: RegisteredKind<XmlThreatProtection> = RegisteredKind::NEW;

async fn status(config: &Value, request: TestRequest) -> Option<u16> {
    request.run(&chain(&[(&KIND, config.clone())])).await.reply_status().map(|status| status.as_u16())
}

fn post(body: impl Into<bytes::Bytes>) -> TestRequest {
    TestRequest::post("/", "application/xml; charset=utf-8", body)
}

const SOAP: &str = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<s:Envelope \
                    xmlns:s=\"http://schemas.xmlsoap.org/soap/envelope/\"><!-- a --><s:Body><add \
                    xmlns='urn:shop' xml:lang='en'>1 &lt; 2 <![CDATA[<&]]></add><?go on?></s:Body></s:Envelope>\n";

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn limits_are_checked() {
    let ten = "a".repeat(10);
    for (config, body, is_allowed) in [
        (json!({}), SOAP.to_owned(), true),
        (json!({"max_depth": 2}), "<a><b/></a>".to_owned(), true),
        (json!({"max_depth": 2}), "<a><b><c/></b></a>".to_owned(), false),
        (json!({"max_children": 3}), "<a>x<![CDATA[y]]>z<b/><!--c--></a>".to_owned(), true),
        (json!({"max_children": 2}), "<a>x<![CDATA[y]]>z<b/><!--c--></a>".to_owned(), false),
        (json!({"max_attributes": 2}), "<a xmlns='u' b='1' c='2'/>".to_owned(), true),
        (json!({"max_attributes": 1}), "<a xmlns='u' b='1' c='2'/>".to_owned(), false),
        (json!({"max_attributes": 2, "namespace_aware": false}), "<a xmlns='u' b='1' c='2'/>".to_owned(), false),
        (json!({"max_namespaces": 1}), "<a xmlns='u' xmlns:b='v'/>".to_owned(), false),
        (json!({"text": 10}), format!("<a>{ten}</a>"), true),
        (json!({"text": 10}), format!("<a>{ten}<![CDATA[b]]></a>"), false),
        (json!({"attribute": 9}), format!("<a b='{ten}'/>"), false),
        (json!({"comment": 9}), format!("<!--{ten}--><a/>"), false),
        (json!({"localname": 9}), format!("<{ten}/>"), false),
        (json!({"localname": 10, "prefix": 1}), format!("<p:{ten} xmlns:p='u'/>"), true),
        (json!({"prefix": 9}), format!("<{ten}:a xmlns:{ten}='u'/>"), false),
        (json!({"namespaceuri": 9}), format!("<a xmlns='{ten}'/>"), false),
        (json!({"pitarget": 9}), format!("<a><?{ten}?></a>"), false),
        (json!({"pidata": 9}), format!("<a><?b {ten}?></a>"), false),
        (json!({"buffer": 20}), format!("<a b='{ten}' c='{ten}'/>"), false),
    ] {
        let expected = (!is_allowed).then_some(400);
        assert_eq!(status(&config, post(body.clone())).await, expected, "{config} {body}");
    }
    assert_eq!(status(&json!({"document": 5}), post("<aaa/>")).await, Some(413));
}

// docs/kong-compatibility.md, 5.19
#[tokio::test]
async fn entities_and_malformed_documents_are_rejected() {
    let bomb = "<!DOCTYPE a [<!ENTITY b \"bb\"><!ENTITY c \"&b;&b;\">]><a>&c;</a>";
    let external = "<!DOCTYPE a SYSTEM \"file:///etc/passwd\"><a/>";
    let declared = "<!DOCTYPE a [<!ENTITY b SYSTEM \"http://169.254.169.254/\">]><a>&b;</a>";
    for body in [
        bomb,
        external,
        declared,
        "<a>&b;</a>",
        "<a b='&c;'/>",
        "<a>&#0;</a>",
        " ",
        "text",
        "<a>",
        "<a></b>",
        "</a>",
        "<?>",
        "<a></>",
        "<a/><b/>",
        "<a/>text",
        "<a b/>",
        "<a b=c/>",
        "<a b='<'/>",
        "<a b='1' b='2'/>",
        "<a b='1'c='2'/>",
        "< a/>",
        "<1/>",
        "<a><!--b--c--></a>",
        "<a><!--b</a>",
        "<a><![CDATA[b</a>",
        "<a>]]></a>",
        "<a><?xml b?></a>",
        "<a:b/>",
        "<a:b:c xmlns:a='u'/>",
        "<a xmlns:b=''/>",
        "<a xmlns:xmlns='u'/>",
        "<a>\u{1}</a>",
        "<?xml version='1.0' encoding='utf-16'?><a/>",
        "<a",
    ] {
        assert_eq!(status(&json!({}), post(body)).await, Some(400), "{body}");
    }
    let utf16: Vec<u8> = "<a/>".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for body in [utf16, b"<a>\xff</a>".to_vec()] {
        assert_eq!(status(&json!({}), post(body.clone())).await, Some(400), "{body:?}");
    }
    let latin = b"<?xml version='1.0' encoding='ISO-8859-1'?><a>\xe9</a>".to_vec();
    assert_eq!(status(&json!({}), post(latin)).await, None);
    // A prefix ends with the element that declares it.
    assert_eq!(status(&json!({}), post("<a><b xmlns:c='u'><c:d/></b><c:e/></a>")).await, Some(400));
}

#[tokio::test]
async fn other_types_are_rejected_unless_they_are_allowed() {
    let typed = |content_type: &str| TestRequest::post("/", content_type, "{}").header("content-length", "2");
    let config = json!({"allowed_content_types": ["application/json", "text/*"]});
    assert_eq!(status(&config, typed("application/json")).await, None);
    assert_eq!(status(&config, typed("text/plain")).await, None);
    assert_eq!(status(&config, typed("application/soap+xml")).await, Some(400));
    assert_eq!(status(&json!({}), TestRequest::get("/")).await, None);
    assert_eq!(status(&json!({}), post("")).await, None);
    assert_eq!(status(&json!({}), post("<a/>").header("content-encoding", "gzip")).await, Some(400));
    let twice = post("<a/>").header("content-type", "application/json").header("content-length", "4");
    assert_eq!(status(&config, twice).await, Some(400));
}

#[test]
fn invalid_configurations_are_rejected() {
    for (config, field) in [
        (json!({"allow_dtd": true}), "config.allow_dtd"),
        (json!({"max_depth": 10_001}), "config.max_depth"),
        (json!({"document": 100_000_000}), "config.document"),
        (json!({"checked_content_types": []}), "config.checked_content_types"),
        (json!({"checked_content_types": ["xml"]}), "config.checked_content_types[0]"),
        (json!({"checked_content_types": ["*/xml"]}), "config.checked_content_types[0]"),
        (json!({"allowed_content_types": ["a/b", "c/d; e=f"]}), "config.allowed_content_types[1]"),
        (json!({"max_children": -1}), "config.max_children"),
    ] {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
    }
}

#[test]
fn documents_keep_their_properties() {
    for input in [SOAP, "<a>b<c d='e'/></a>", "<a", "<a:b xmlns:a='u'/>", "<!-- a --><b/>"] {
        fuzzing::xml_threats(input.as_bytes());
    }
}
