//! Version 4 of AWS signatures: the header `Authorization` of a request to a service of AWS.
//!
//! The AWS documentation "Signature Version 4" describes the steps. All headers that the request has are signed, so
//! nothing on the way can change them.

use std::time::SystemTime;

use aws_lc_rs::hmac::{HMAC_SHA256, Key, Tag, sign as hmac};
use http::HeaderValue;
use http::header::{AUTHORIZATION, HeaderName};
use jiff::Timestamp;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::plugin_api::aws_environment::AwsKeys;
use crate::plugin_api::consumers::{hex, sha256};
use crate::plugin_api::remote_request::RemoteRequest;

/// The service of AWS that a request is for.
#[derive(Clone, Copy, Debug)]
pub struct SigningScope<'s> {
    pub region: &'s str,
    pub service: &'s str,
}

const DATE: HeaderName = HeaderName::from_static("x-amz-date");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
/// What a canonical path encodes, although the path that is sent is encoded already.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~').remove(b'/');

/// Signs a request, which must be complete: nothing of it may change afterwards. `None` if the credentials cannot be
/// sent in a header.
#[must_use]
pub fn sign(request: &mut RemoteRequest, keys: &AwsKeys, scope: SigningScope<'_>, now: SystemTime) -> Option<()> {
    let time = Timestamp::try_from(now).ok()?.strftime("%Y%m%dT%H%M%SZ").to_string();
    let date = &time[..8];
    request.headers.insert(DATE, HeaderValue::try_from(&*time).ok()?);
    if let Some(token) = &keys.session_token {
        let mut token = HeaderValue::try_from(token.as_str()).ok()?;
        token.set_sensitive(true);
        request.headers.insert(SECURITY_TOKEN, token);
    }
    request.headers.remove(AUTHORIZATION);
    let (canonical, signed_headers) = canonical_request(request);
    let scope_text = format!("{date}/{}/{}/aws4_request", scope.region, scope.service);
    let text = format!("AWS4-HMAC-SHA256\n{time}\n{scope_text}\n{}", hex(&sha256(canonical.as_bytes())));
    let first = Key::new(HMAC_SHA256, format!("AWS4{}", keys.secret_key).as_bytes());
    let parts = [date, scope.region, scope.service, "aws4_request"];
    let key = parts.iter().fold(first, |key, part| Key::new(HMAC_SHA256, hmac(&key, part.as_bytes()).as_ref()));
    let signature: Tag = hmac(&key, text.as_bytes());
    let value = format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope_text}, SignedHeaders={signed_headers}, Signature={}",
        keys.access_key,
        hex(signature.as_ref())
    );
    let mut value = HeaderValue::try_from(value).ok()?;
    value.set_sensitive(true);
    request.headers.insert(AUTHORIZATION, value);
    Some(())
}

/// The canonical request, and the names of its headers.
fn canonical_request(request: &RemoteRequest) -> (String, String) {
    let path = utf8_percent_encode(request.target.path(), ENCODED);
    let mut parameters: Vec<_> = request.target.query().unwrap_or_default().split('&').collect();
    parameters.retain(|parameter| !parameter.is_empty());
    // By the encoded name, then by the encoded value. `=` is neither in names nor in values.
    parameters.sort_by_key(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let parameters: Vec<_> = parameters
        .into_iter()
        .map(|parameter| if parameter.contains('=') { parameter.to_owned() } else { format!("{parameter}=") })
        .collect();
    let mut names: Vec<_> = request.headers.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let mut headers = String::new();
    for name in &names {
        let values = request.headers.get_all(*name).iter();
        let values: Vec<_> = values.map(|value| single_spaced(value.as_bytes())).collect();
        headers.push_str(&format!("{name}:{}\n", values.join(",")));
    }
    let signed = names.join(";");
    let body = hex(&sha256(&request.body));
    let canonical = format!("{}\n{path}\n{}\n{headers}\n{signed}\n{body}", request.method, parameters.join("&"));
    (canonical, signed)
}

/// The value without spaces at its ends, and with single ones in it.
fn single_spaced(value: &[u8]) -> String {
    let text = String::from_utf8_lossy(value);
    text.split(' ').filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use http::{HeaderMap, Method};

    use super::*;
    use crate::plugin_api::remote_request::{RemoteUrl, ResponseBodyUse};

    fn request(method: Method, target: &str, headers: &[(&'static str, &str)], body: &str) -> RemoteRequest {
        let url = RemoteUrl::parse(&format!("https://example.amazonaws.com{target}")).unwrap();
        let mut map = HeaderMap::new();
        map.insert("host", url.authority.clone());
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        RemoteRequest {
            remote: url.remote(None, true, Duration::from_secs(1)),
            method,
            target: url.target,
            headers: map,
            body: Bytes::from(body.to_owned()),
            timeout: Duration::from_secs(1),
            keep_alive: None,
            is_repeatable: false,
            response_body: ResponseBodyUse::Discard,
        }
    }

    /// The credentials, time and scope of Amazon's test suite of signatures, with five of its cases.
    #[test]
    fn signatures_are_those_of_the_public_test_suite() {
        let keys = AwsKeys {
            access_key: "AKIDEXAMPLE".to_owned(),
            secret_key: "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY".to_owned(),
            session_token: None,
        };
        let now = SystemTime::from("2015-08-30T12:36:00Z".parse::<Timestamp>().unwrap());
        let form = [("content-type", "application/x-www-form-urlencoded")];
        let spaces = [("my-header1", " value1"), ("my-header2", " \"a   b   c\"")];
        let vanilla = "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31";
        for (mut request, signed, signature) in [
            (request(Method::GET, "/", &[], ""), "host;x-amz-date", vanilla),
            (
                request(Method::GET, "/?Param2=value2&Param1=value1", &[], ""),
                "host;x-amz-date",
                "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500",
            ),
            (
                request(Method::POST, "/", &[], ""),
                "host;x-amz-date",
                "5da7c1a2acd57cee7505fc6676e4e544621c30862966e37dddb68e92efbe5d6b",
            ),
            (
                request(Method::POST, "/", &form, "Param1=value1"),
                "content-type;host;x-amz-date",
                "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a",
            ),
            (
                request(Method::GET, "/", &spaces, ""),
                "host;my-header1;my-header2;x-amz-date",
                "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
            ),
        ] {
            sign(&mut request, &keys, SigningScope { region: "us-east-1", service: "service" }, now).unwrap();
            let expected = format!(
                "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, \
                 SignedHeaders={signed}, Signature={signature}"
            );
            assert_eq!(request.headers["authorization"], expected);
            assert!(request.headers["authorization"].is_sensitive());
            assert_eq!(request.headers["x-amz-date"], "20150830T123600Z");
        }
    }

    #[test]
    fn session_tokens_are_signed() {
        let keys =
            AwsKeys { access_key: "a".to_owned(), secret_key: "b".to_owned(), session_token: Some("c".to_owned()) };
        let mut request = request(Method::GET, "/functions/arn%3Aaws?a", &[], "");
        let scope = SigningScope { region: "r", service: "lambda" };
        sign(&mut request, &keys, scope, SystemTime::UNIX_EPOCH).unwrap();
        let authorization = request.headers["authorization"].to_str().unwrap();
        assert!(authorization.contains("SignedHeaders=host;x-amz-date;x-amz-security-token,"), "{authorization}");
        assert_eq!(request.headers["x-amz-security-token"], "c");
        let canonical = canonical_request(&request).0;
        assert!(canonical.starts_with("GET\n/functions/arn%253Aaws\na=\n"), "{canonical}");
        let keys = AwsKeys { session_token: Some("a\nb".to_owned()), ..keys };
        assert!(sign(&mut request, &keys, scope, SystemTime::UNIX_EPOCH).is_none());
    }
}
