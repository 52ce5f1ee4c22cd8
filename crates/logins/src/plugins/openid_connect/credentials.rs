//! The credentials in a request: access tokens, and names with passwords.

use std::borrow::Cow;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, request};

use super::config::TokenLocation;
use crate::plugin_api::fields::{FieldValue, UrlEncodedForm, remove_from_query};
use crate::sealed_cookie::{cookies, remove_cookies};

/// The credential of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum ClientCredential<'c> {
    None,
    Token(Cow<'c, str>),
    /// From `Authorization: Basic`.
    Password(String, String),
    /// Several credentials, or one that is not text.
    Invalid,
}

/// The name of the query parameter with a token (RFC 6750, section 2.3).
pub(super) const TOKEN_PARAMETER: &str = "access_token";

/// Some clients omit the padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Finds the credential of a request. RFC 6750, section 2: a client must not use several methods.
pub(super) fn find<'c>(
    head: &'c request::Parts,
    query: Option<&'c str>,
    locations: &[TokenLocation],
    cookie: Option<&str>,
) -> ClientCredential<'c> {
    // The endpoint might read another one, also if the schemes differ.
    if head.headers.get_all(AUTHORIZATION).iter().nth(1).is_some() {
        return ClientCredential::Invalid;
    }
    let mut found = ClientCredential::None;
    let mut add = |token: ClientCredential<'c>| {
        found = match (std::mem::replace(&mut found, ClientCredential::None), token) {
            (ClientCredential::None, token) | (token, ClientCredential::None) => token,
            (first, second) if first == second => first,
            _ => ClientCredential::Invalid,
        };
    };
    for location in locations {
        add(match location {
            TokenLocation::Header => bearer_token(&head.headers),
            TokenLocation::Query => {
                match UrlEncodedForm(query.unwrap_or_default().as_bytes()).find(TOKEN_PARAMETER.as_bytes()) {
                    FieldValue::Absent | FieldValue::NotString => ClientCredential::None,
                    FieldValue::Single(token) => token_of(token),
                    FieldValue::Multiple => ClientCredential::Invalid,
                }
            }
            TokenLocation::Cookie => {
                let mut tokens = cookies(&head.headers).filter(|(name, _)| Some(*name) == cookie.map(str::as_bytes));
                match (tokens.next(), tokens.next()) {
                    (None, _) => ClientCredential::None,
                    (Some((_, token)), None) => token_of(Cow::Borrowed(token)),
                    _ => ClientCredential::Invalid,
                }
            }
        });
    }
    match found {
        ClientCredential::None => password(&head.headers).unwrap_or(ClientCredential::None),
        found => found,
    }
}

/// Removes the credential from a request.
pub(super) fn remove(head: &mut request::Parts, locations: &[TokenLocation], cookie: Option<&str>) {
    head.headers.remove(AUTHORIZATION);
    if locations.contains(&TokenLocation::Query) {
        remove_from_query(head, |name| name == TOKEN_PARAMETER.as_bytes());
    }
    if locations.contains(&TokenLocation::Cookie) && head.headers.contains_key(COOKIE) {
        remove_cookies(&mut head.headers, |name| Some(name) == cookie.map(str::as_bytes));
    }
}

fn token_of(token: Cow<'_, [u8]>) -> ClientCredential<'_> {
    // RFC 6750, section 2.1: the characters of a token.
    let is_token = |token: &[u8]| token.iter().all(u8::is_ascii_graphic);
    match token {
        token if token.is_empty() => ClientCredential::None,
        token if !is_token(&token) => ClientCredential::Invalid,
        Cow::Borrowed(token) => ClientCredential::Token(Cow::Borrowed(std::str::from_utf8(token).unwrap_or_default())),
        Cow::Owned(token) => ClientCredential::Token(Cow::Owned(String::from_utf8(token).unwrap_or_default())),
    }
}

fn bearer_token(headers: &HeaderMap) -> ClientCredential<'_> {
    match authorization(headers) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"bearer") => token_of(Cow::Borrowed(token)),
        _ => ClientCredential::None,
    }
}

fn password(headers: &HeaderMap) -> Option<ClientCredential<'static>> {
    let (_, credentials) = authorization(headers).filter(|(scheme, _)| scheme.eq_ignore_ascii_case(b"basic"))?;
    let decoded = BASE64.decode(credentials).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let login = decoded.as_deref().and_then(|text| text.split_once(':')).filter(|(name, _)| !name.is_empty());
    Some(login.map_or(ClientCredential::Invalid, |(name, password)| {
        ClientCredential::Password(name.to_owned(), password.to_owned())
    }))
}

/// The scheme and the rest of `Authorization`.
fn authorization(headers: &HeaderMap) -> Option<(&[u8], &[u8])> {
    let value = headers.get(AUTHORIZATION)?.as_bytes().trim_ascii();
    let space = memchr::memchr(b' ', value)?;
    Some((&value[..space], value[space..].trim_ascii()))
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn credentials_are_found_in_all_locations() {
        use TokenLocation::{Cookie, Header, Query};
        let token = |text: &'static str| ClientCredential::Token(Cow::Borrowed(text));
        let all = [Header, Query, Cookie];
        let password = || ClientCredential::Password("anna".to_owned(), "a:b".to_owned());
        for (uri, authorization, cookie, locations, expected) in [
            ("/", "", "", &all[..], ClientCredential::None),
            ("/", "Bearer a.b", "", &all, token("a.b")),
            ("/", "bEARER   a.b ", "", &all, token("a.b")),
            ("/", "Bearer a b", "", &all, ClientCredential::Invalid),
            ("/", "Bearera", "", &all, ClientCredential::None),
            ("/?access_token=a", "", "", &all, token("a")),
            ("/?access_token=a", "", "", &[Header], ClientCredential::None),
            ("/?access_token=a&access_token=b", "", "", &all, ClientCredential::Invalid),
            ("/?access_token=a", "Bearer b", "", &all, ClientCredential::Invalid),
            ("/?access_token=a", "Bearer a", "c=d; t=a", &all, token("a")),
            ("/", "", "t=a", &all, token("a")),
            ("/", "", "t=a; t=b", &all, ClientCredential::Invalid),
            ("/", "", "t=", &all, ClientCredential::None),
            ("/", "Basic YW5uYTphOmI=", "", &all, password()),
            ("/", "basic YW5uYTphOmI", "", &all, password()),
            ("/", "Basic !", "", &all, ClientCredential::Invalid),
            ("/", "Basic OmI=", "", &all, ClientCredential::Invalid),
        ] {
            let mut request = Request::get(uri);
            for (name, value) in [(AUTHORIZATION, authorization), (COOKIE, cookie)] {
                if !value.is_empty() {
                    request = request.header(name, value);
                }
            }
            let (mut head, ()) = request.body(()).unwrap().into_parts();
            let query = head.uri.query().map(str::to_owned);
            assert_eq!(find(&head, query.as_deref(), locations, Some("t")), expected, "{uri} {authorization} {cookie}");
            remove(&mut head, &all, Some("t"));
            assert_eq!(find(&head, head.uri.query(), &all, Some("t")), ClientCredential::None, "{uri} {authorization}");
        }
    }

    #[test]
    fn several_fields_are_no_credential() {
        for (first, second) in [
            ("Bearer a", "Bearer b"),
            ("Bearer a", "Bearer a"),
            ("Bearer a", "Basic YW5uYTphOmI="),
            ("Basic YW5uYTphOmI=", "Bearer a"),
            ("Basic YW5uYTphOmI=", "Basic YW5uYTphOmI="),
            ("Negotiate a", "Bearer a"),
        ] {
            for locations in [&[TokenLocation::Header, TokenLocation::Query][..], &[TokenLocation::Query]] {
                let request = Request::get("/?access_token=a").header(AUTHORIZATION, first);
                let (mut head, ()) = request.header(AUTHORIZATION, second).body(()).unwrap().into_parts();
                let found = find(&head, Some("access_token=a"), locations, None);
                assert_eq!(found, ClientCredential::Invalid, "{first}, {second}");
                remove(&mut head, locations, None);
                assert!(!head.headers.contains_key(AUTHORIZATION), "the endpoint gets none of them");
            }
        }
    }
}
