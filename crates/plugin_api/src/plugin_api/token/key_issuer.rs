//! The issuer that a published key belongs to, if its key set says so. Microsoft Entra publishes the keys of several
//! issuers in one set, and names in the member `issuer` of each key whose tokens it may sign.
//!
//! ```text
//!   https://login.microsoftonline.com/{tenantid}/v2.0     a key for the tokens of all tenants
//!   https://login.microsoftonline.com/9188040d-…/v2.0     a key for the tokens of this tenant only
//! ```

use serde_json::Value;

use super::unverified_token::UnverifiedToken;

/// The member `issuer` of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct KeyIssuer(Box<str>);

impl KeyIssuer {
    /// Reads the member of a key. `None` if it is no text, so that it is not known for which tokens the key is.
    pub(super) fn parse(member: &Value) -> Option<KeyIssuer> {
        member.as_str().map(|issuer| KeyIssuer(issuer.into()))
    }

    /// Whether a key of this issuer may sign the token. Tokens of version 1.0 of Entra have another issuer than its
    /// keys, so that only their tenants are compared.
    pub(super) fn may_sign(&self, token: &UnverifiedToken<'_>) -> bool {
        let Some(issuer) = token.string_claim("iss") else { return false };
        if *self.0 == *issuer {
            return true;
        }
        // Otherwise, a segment such as `v2.0`, which all issuers have, could be the tenant.
        let Some(tenant) = token.string_claim("tid").filter(|tenant| is_tenant_id(tenant)) else { return false };
        issuer.split('/').any(|segment| segment == tenant)
            && self.0.split('/').any(|segment| segment == tenant || segment == ANY_TENANT)
    }
}

/// Whether a text has the form of a UUID.
fn is_tenant_id(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|byte| byte.is_ascii_hexdigit() || byte == b'-')
}

/// Stands for the tenant in the issuer of keys of all tenants.
const ANY_TENANT: &str = "{tenantid}";

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_sign_only_tokens_of_their_issuer() {
        const A: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        const B: &str = "9188040d-6c67-4c5b-b112-36a304b66dad";
        let v2 = |tenant: &str| format!("https://login.example/{tenant}/v2.0");
        let v1 = |tenant: &str| format!("https://sts.example/{tenant}/");
        for (key, claims, expected) in [
            (v2(ANY_TENANT), json!({"iss": v2(A), "tid": A}), true),
            (v2(ANY_TENANT), json!({"iss": v1(A), "tid": A}), true),
            (v2(A), json!({"iss": v2(A), "tid": A}), true),
            (v2(A), json!({"iss": v1(A), "tid": A}), true),
            (v2(A), json!({"iss": v2(A)}), true),
            (v2(B), json!({"iss": v2(A), "tid": A}), false),
            (v2(B), json!({"iss": v2(A), "tid": B}), false),
            (v2(B), json!({"iss": v1(A), "tid": B}), false),
            (v2(B), json!({"iss": v2(A), "tid": "v2.0"}), false),
            (v2(B), json!({"iss": v2(A), "tid": "https:"}), false),
            (v2(B), json!({"iss": v2(A), "tid": ""}), false),
            (v2(ANY_TENANT), json!({"iss": v2(A), "tid": B}), false),
            (v2(ANY_TENANT), json!({"iss": v2(A)}), false),
            (v2(ANY_TENANT), json!({"iss": [v2(A)], "tid": A}), false),
            (v2(ANY_TENANT), json!({"tid": A}), false),
            ("robots".to_owned(), json!({"iss": "robots"}), true),
            ("robots".to_owned(), json!({"iss": "people"}), false),
        ] {
            let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
            let text = format!("{}.{}.", encode(&json!({"alg": "RS256"})), encode(&claims));
            let token = UnverifiedToken::parse(text.as_bytes()).unwrap();
            let issuer = KeyIssuer::parse(&json!(key)).unwrap();
            assert_eq!(issuer.may_sign(&token), expected, "{key} {claims}");
        }
    }
}
