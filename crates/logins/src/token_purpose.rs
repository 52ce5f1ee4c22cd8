//! What a token is for, as far as it says so: an API must not accept one that was issued to the application, or for a
//! refresh.

use serde_json::{Map, Value};

use crate::plugin_api::token::UnverifiedToken;

/// The purpose of a token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TokenPurpose {
    /// Access to an API. Also that of tokens that do not say what they are for.
    Access,
    /// It identifies a user to an application.
    Id,
    /// Another one, such as a logout or a refresh.
    Other,
}

impl TokenPurpose {
    pub(crate) fn of(token: &UnverifiedToken<'_>) -> Self {
        let is_access_token = match token.header("typ") {
            None | Some(Value::Null) => false,
            Some(Value::String(text)) => match media_type(text).as_str() {
                // RFC 9068, section 2.1
                "at+jwt" => true,
                // Okta's, such as `okta-internal-at+jwt`.
                text if text.ends_with("-at+jwt") => true,
                // RFC 8725, section 3.11: a type of its own states another purpose.
                text if text.contains('+') && text.ends_with("jwt") => return TokenPurpose::Other,
                _ => false,
            },
            Some(_) => return TokenPurpose::Other,
        };
        TokenPurpose::by_claims(&token.claims, is_access_token)
    }

    /// That of a token whose claims an introspection has returned.
    pub(crate) fn of_introspected(claims: &Map<String, Value>) -> Self {
        let token_type = claims.get("token_type").and_then(Value::as_str).unwrap_or_default();
        match OTHER_TOKEN_TYPES.iter().any(|other| token_type.eq_ignore_ascii_case(other)) {
            true => TokenPurpose::Other,
            false => TokenPurpose::by_claims(claims, false),
        }
    }

    /// `is_access_token`: the header says so.
    fn by_claims(claims: &Map<String, Value>, is_access_token: bool) -> Self {
        // Logout tokens need not have a type.
        let has = |name: &&str| claims.get(*name).is_some_and(|value| !value.is_null());
        if has(&"events") {
            return TokenPurpose::Other;
        }
        // Amazon Cognito's, and that of introspections of Ory Hydra.
        match claims.get("token_use").and_then(Value::as_str) {
            Some("id") => return TokenPurpose::Id,
            Some("refresh" | "refresh_token") => return TokenPurpose::Other,
            Some("access" | "access_token") => return TokenPurpose::Access,
            _ => {}
        }
        // Keycloak states the purpose in a claim. The access tokens of its former versions have `nonce`, too.
        match claims.get("typ").and_then(Value::as_str) {
            Some("ID") => TokenPurpose::Id,
            Some(typ) if OTHER_TOKENS.contains(&typ) => TokenPurpose::Other,
            Some("Bearer" | "DPoP") => TokenPurpose::Access,
            _ if is_access_token => TokenPurpose::Access,
            _ if ["at_hash", "c_hash"].iter().any(has) => TokenPurpose::Id,
            // Access tokens of some providers repeat the nonce of the login, but ID tokens have no scope.
            _ if has(&"nonce") && !["scope", "scp"].iter().any(has) => TokenPurpose::Id,
            _ => TokenPurpose::Access,
        }
    }
}

/// RFC 7515, section 4.1.9: the prefix may be omitted. Media types have no letter case.
fn media_type(text: &str) -> String {
    let text = text.trim().to_ascii_lowercase();
    text.strip_prefix("application/").map(str::to_owned).unwrap_or(text)
}

/// Types of introspected tokens that are not access tokens. The URIs are those of RFC 8693, section 3.
const OTHER_TOKEN_TYPES: [&str; 4] = [
    "refresh_token",
    "id_token",
    "urn:ietf:params:oauth:token-type:refresh_token",
    "urn:ietf:params:oauth:token-type:id_token",
];
/// Values of Keycloak's claim `typ` of tokens that are neither ID tokens nor access tokens.
const OTHER_TOKENS: [&str; 3] = ["Logout", "Offline", "Refresh"];

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    fn purpose(typ: &Value, claims: &Value) -> TokenPurpose {
        let header = json!({"alg": "ES256", "typ": typ});
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}.", encode(&header), encode(claims));
        TokenPurpose::of(&UnverifiedToken::parse(text.as_bytes()).unwrap())
    }

    #[test]
    fn a_header_without_a_type_is_like_one_with_null() {
        let token = |header: &[u8]| format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode("{}"));
        for header in [&br#"{"alg": "ES256"}"#[..], br#"{"alg": "ES256", "typ": null}"#] {
            let text = token(header);
            let token = UnverifiedToken::parse(text.as_bytes()).unwrap();
            assert_eq!(TokenPurpose::of(&token), TokenPurpose::Access);
        }
    }

    // RFC 8725, section 3.11
    #[test]
    fn the_type_states_the_purpose() {
        use TokenPurpose::{Access, Other};
        for (typ, expected) in [
            (json!(null), Access),
            (json!("JWT"), Access),
            (json!("jwt"), Access),
            (json!("application/jwt"), Access),
            (json!("JOSE"), Access),
            (json!("at+jwt"), Access),
            (json!("application/at+jwt"), Access),
            (json!("Application/AT+JWT"), Access),
            (json!("application/okta-internal-at+jwt"), Access),
            (json!("logout+jwt"), Other),
            (json!("Application/Logout+JWT"), Other),
            (json!("dpop+jwt"), Other),
            (json!("secevent+jwt"), Other),
            (json!("oauth-authz-req+jwt"), Other),
            (json!("token-introspection+jwt"), Other),
            (json!("dc+sd-jwt"), Other),
            (json!("new+jwt"), Other),
            (json!(["at+jwt"]), Other),
        ] {
            assert_eq!(purpose(&typ, &json!({"sub": "anna"})), expected, "{typ}");
        }
    }

    #[test]
    fn introspections_state_the_purpose() {
        use TokenPurpose::{Access, Id, Other};
        for (claims, expected) in [
            (json!({"active": true}), Access),
            (json!({"token_type": "Bearer", "scope": "a"}), Access),
            (json!({"token_type": "Bearer", "token_use": "access_token"}), Access),
            (json!({"token_type": "Bearer", "token_use": "refresh_token"}), Other),
            (json!({"token_type": "refresh_token"}), Other),
            (json!({"token_type": "URN:ietf:params:oauth:token-type:id_token"}), Other),
            (json!({"typ": "Bearer"}), Access),
            (json!({"typ": "Refresh"}), Other),
            (json!({"typ": "ID"}), Id),
        ] {
            assert_eq!(TokenPurpose::of_introspected(claims.as_object().unwrap()), expected, "{claims}");
        }
    }

    /// Claims of public examples of the providers.
    #[test]
    fn claims_tell_id_tokens_from_most_access_tokens() {
        use TokenPurpose::{Access, Id, Other};
        for (name, typ, claims, expected) in [
            ("OpenID Connect Core, section 2", json!(null), json!({"aud": "shop", "nonce": "n", "acr": "a"}), Id),
            ("section 3.2.2.10", json!("JWT"), json!({"aud": "shop", "at_hash": "a"}), Id),
            ("section 3.3.2.11", json!("JWT"), json!({"aud": "shop", "c_hash": "a"}), Id),
            ("a hash and a scope", json!("JWT"), json!({"at_hash": "a", "scope": "openid"}), Id),
            ("null is no value", json!("JWT"), json!({"nonce": null, "at_hash": null}), Access),
            ("Keycloak, ID token", json!("JWT"), json!({"typ": "ID", "azp": "shop"}), Id),
            ("Keycloak, ID token with a scope", json!("JWT"), json!({"typ": "ID", "nonce": "n", "scope": "a"}), Id),
            ("Keycloak", json!("JWT"), json!({"typ": "Bearer", "azp": "shop", "scope": "openid"}), Access),
            ("Keycloak, former versions", json!("JWT"), json!({"typ": "Bearer", "nonce": "n", "sid": "s"}), Access),
            ("Keycloak, refresh token", json!("JWT"), json!({"typ": "Refresh", "scope": "openid"}), Other),
            ("Entra ID 2.0", json!("JWT"), json!({"azp": "a", "scp": "Orders.Read", "uti": "u", "ver": "2.0"}), Access),
            ("Entra ID 1.0", json!("JWT"), json!({"appid": "a", "scp": "Orders.Read", "ver": "1.0"}), Access),
            ("Entra ID, application", json!("JWT"), json!({"appid": "a", "roles": ["Orders.Read"]}), Access),
            ("Azure AD B2C", json!("JWT"), json!({"azp": "a", "scp": "read", "nonce": "n"}), Access),
            ("Auth0", json!("JWT"), json!({"azp": "a", "scope": "openid", "aud": ["api", "user"]}), Access),
            ("RFC 9068, section 2.2", json!("at+jwt"), json!({"client_id": "a", "auth_time": 1, "nonce": "n"}), Access),
            ("Kubernetes", json!(null), json!({"aud": ["shop"], "kubernetes.io": {}}), Access),
            ("Amazon Cognito", json!(null), json!({"token_use": "access", "client_id": "a"}), Access),
            ("Amazon Cognito, a nonce", json!(null), json!({"token_use": "access", "nonce": "n"}), Access),
            ("Amazon Cognito, ID token", json!(null), json!({"token_use": "id", "aud": "a"}), Id),
            ("Dex, whose access tokens are like ID tokens", json!(null), json!({"at_hash": "a", "nonce": "n"}), Id),
            ("authentik, with the nonce of the login", json!("JWT"), json!({"azp": "a", "nonce": "n"}), Id),
            ("events without a value", json!("JWT"), json!({"events": null}), Access),
            ("a logout token", json!("JWT"), json!({"sid": "s", "events": {}}), Other),
            ("a logout token with a type", json!("at+jwt"), json!({"sid": "s", "events": {}}), Other),
        ] {
            assert_eq!(purpose(&typ, &claims), expected, "{name}");
        }
    }
}
