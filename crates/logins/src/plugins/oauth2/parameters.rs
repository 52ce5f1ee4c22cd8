//! The parameters of requests for codes and tokens, from the query and from the body.

use std::borrow::Cow;

use http::HeaderMap;
use serde::Deserialize;

use crate::plugin_api::fields::{BodyFields, UrlEncodedForm};

/// Parameters that the endpoints know. Others are ignored (RFC 6749, section 3.1).
#[derive(Debug, Default, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub(super) struct Parameters {
    pub(super) response_type: Option<String>,
    pub(super) grant_type: Option<String>,
    pub(super) client_id: Option<String>,
    pub(super) client_secret: Option<String>,
    pub(super) redirect_uri: Option<String>,
    pub(super) scope: Option<String>,
    pub(super) state: Option<String>,
    pub(super) code: Option<String>,
    pub(super) code_challenge: Option<String>,
    pub(super) code_challenge_method: Option<String>,
    pub(super) code_verifier: Option<String>,
    pub(super) refresh_token: Option<String>,
    pub(super) provision_key: Option<String>,
    pub(super) authenticated_userid: Option<String>,
}

/// The names of parameters with secrets.
pub(super) const SECRETS: [&str; 5] = ["client_secret", "code", "code_verifier", "refresh_token", "provision_key"];

const NAMES: [&str; 14] = [
    "response_type",
    "grant_type",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "code",
    "code_challenge",
    "code_challenge_method",
    "code_verifier",
    "refresh_token",
    "provision_key",
    "authenticated_userid",
];

/// Why parameters are not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum InvalidParameters {
    BodyTooLarge,
    /// The body is not what its media type says.
    MalformedBody,
    /// A parameter occurs twice, possibly in query and body (RFC 6749, section 3.1).
    Repeated(&'static str),
    NotText(&'static str),
    TooLong(&'static str),
}

impl Parameters {
    pub(super) fn read(query: Option<&str>, headers: &HeaderMap, body: &[u8]) -> Result<Self, InvalidParameters> {
        if body.len() > MAX_BODY {
            return Err(InvalidParameters::BodyTooLarge);
        }
        let mut parameters = Parameters::default();
        parameters.add_form(UrlEncodedForm(query.unwrap_or_default().as_bytes()))?;
        match BodyFields::parse(headers, body) {
            _ if body.is_empty() => {}
            Some(BodyFields::Form(form)) => parameters.add_form(form)?,
            Some(BodyFields::Multipart(multipart)) => {
                for part in multipart.parts() {
                    parameters.add(&part.name, Some(Cow::Borrowed(part.value)))?;
                }
            }
            // Read again, because the fields have lost members that occur twice.
            Some(BodyFields::Json(_)) => {
                let members: Parameters = serde_json::from_slice(body).map_err(|_| InvalidParameters::MalformedBody)?;
                parameters.add_json(members)?;
            }
            None => return Err(InvalidParameters::MalformedBody),
        }
        Ok(parameters)
    }

    fn add_form(&mut self, form: UrlEncodedForm<'_>) -> Result<(), InvalidParameters> {
        form.pairs().try_for_each(|field| self.add(&field.name(), field.value()))
    }

    fn add_json(&mut self, mut members: Parameters) -> Result<(), InvalidParameters> {
        for name in NAMES {
            if let Some(value) = members.slot(name).and_then(Option::take) {
                self.add(name.as_bytes(), Some(value.into_bytes().into()))?;
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &[u8], value: Option<Cow<'_, [u8]>>) -> Result<(), InvalidParameters> {
        let Some(name) = NAMES.iter().copied().find(|known| known.as_bytes() == name) else { return Ok(()) };
        // One without a value counts as missing.
        let Some(value) = value.filter(|value| !value.is_empty()) else { return Ok(()) };
        if value.len() > MAX_VALUE {
            return Err(InvalidParameters::TooLong(name));
        }
        let text = String::from_utf8(value.into_owned()).map_err(|_| InvalidParameters::NotText(name))?;
        match self.slot(name) {
            Some(slot @ None) => {
                *slot = Some(text);
                Ok(())
            }
            _ => Err(InvalidParameters::Repeated(name)),
        }
    }

    fn slot(&mut self, name: &str) -> Option<&mut Option<String>> {
        Some(match name {
            "response_type" => &mut self.response_type,
            "grant_type" => &mut self.grant_type,
            "client_id" => &mut self.client_id,
            "client_secret" => &mut self.client_secret,
            "redirect_uri" => &mut self.redirect_uri,
            "scope" => &mut self.scope,
            "state" => &mut self.state,
            "code" => &mut self.code,
            "code_challenge" => &mut self.code_challenge,
            "code_challenge_method" => &mut self.code_challenge_method,
            "code_verifier" => &mut self.code_verifier,
            "refresh_token" => &mut self.refresh_token,
            "provision_key" => &mut self.provision_key,
            "authenticated_userid" => &mut self.authenticated_userid,
            _ => return None,
        })
    }
}

/// Requests for codes and tokens have a few hundred bytes.
const MAX_BODY: usize = 16 << 10;
const MAX_VALUE: usize = 4096;

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use http::header::CONTENT_TYPE;

    use super::*;

    #[test]
    fn parameters_come_from_query_and_body_and_occur_once() {
        const FORM: &str = "application/x-www-form-urlencoded";
        const JSON: &str = "application/json";
        let long = format!("state={}", "a".repeat(MAX_VALUE + 1));
        let large = "a".repeat(MAX_BODY + 1);
        let two = |scope: &str, state: &str| Parameters {
            scope: Some(scope.to_owned()),
            state: Some(state.to_owned()),
            ..Parameters::default()
        };
        let cases = [
            (Some("scope=a+b"), FORM, "state=%0d%0a&other=1", Ok(two("a b", "\r\n"))),
            (Some("scope=a&other=1&other=2"), JSON, r#"{"state": "b", "other": [1]}"#, Ok(two("a", "b"))),
            (Some("scope=a&scope=a"), FORM, "", Err(InvalidParameters::Repeated("scope"))),
            (Some("scope=a"), FORM, "scope=a", Err(InvalidParameters::Repeated("scope"))),
            (None, FORM, "scope=a&s%63ope=b", Err(InvalidParameters::Repeated("scope"))),
            (None, JSON, r#"{"scope": "a", "scope": "b"}"#, Err(InvalidParameters::MalformedBody)),
            (None, JSON, r#"{"scope": ["a"]}"#, Err(InvalidParameters::MalformedBody)),
            (Some("scope=&scope&state=a"), FORM, "scope=b", Ok(two("b", "a"))),
            (None, JSON, "{", Err(InvalidParameters::MalformedBody)),
            (None, "text/plain", "scope=a", Err(InvalidParameters::MalformedBody)),
            (None, FORM, "scope=%ff", Err(InvalidParameters::NotText("scope"))),
            (None, FORM, &*long, Err(InvalidParameters::TooLong("state"))),
            (None, FORM, &*large, Err(InvalidParameters::BodyTooLarge)),
        ];
        for (query, media_type, body, expected) in cases {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(media_type).unwrap())]);
            assert_eq!(Parameters::read(query, &headers, body.as_bytes()), expected, "{query:?} {media_type} {body}");
        }
        let mut all = Parameters::default();
        assert!(NAMES.iter().all(|name| all.slot(name).is_some()) && SECRETS.iter().all(|name| NAMES.contains(name)));
    }
}
