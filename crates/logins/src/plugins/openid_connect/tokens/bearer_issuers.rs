//! Further issuers whose signed access tokens are accepted. The claim `iss` selects the issuer, and the token is
//! verified with the keys of that issuer and no others, so no issuer can sign tokens of another one.

use std::collections::HashSet;
use std::sync::Arc;

use super::super::config::BearerIssuer;
use super::super::provider::{Provider, WELL_KNOWN, check_url};
use super::signed_token::{TokenError, VerifiedToken, parse_signed, verify_by_keys};
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::token::jwk::PublishedKey;
use crate::plugin_api::token::{KeySet, KeySetSubscription, TokenOrigin, UnverifiedToken};

/// The validated issuers, in the order of the configuration.
pub(in crate::plugins::openid_connect) struct BearerIssuers(Box<[TrustedIssuer]>);

pub(super) struct TrustedIssuer {
    name: Box<str>,
    audiences: Box<[Box<str>]>,
    keys: IssuerKeys,
}

enum IssuerKeys {
    Configured {
        keys: Arc<KeySet>,
        _subscription: KeySetSubscription,
    },
    /// In the document of the issuer.
    Discovered(Arc<Provider>),
}

impl BearerIssuers {
    /// Validates the issuers and starts the fetches of their keys. `own`: the issuers whose tokens are accepted anyway.
    pub(in crate::plugins::openid_connect) fn open(
        issuers: &[BearerIssuer],
        own: &[&str],
        cx: &BuildCx<'_>,
    ) -> Result<BearerIssuers, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        if issuers.len() > MAX_ISSUERS {
            let message = format!("has {} entries, of which {MAX_ISSUERS} are allowed", issuers.len());
            let remedy = "accept fewer issuers, or divide the routes between several plugins";
            invalid.push(Diagnostic::in_config("bearer_issuers", message, remedy));
            return Err(invalid);
        }
        let without_slash = |name: &str| name.trim_end_matches('/').to_owned();
        let own: HashSet<String> = own.iter().map(|name| without_slash(name)).collect();
        let mut names = HashSet::new();
        for (index, issuer) in issuers.iter().enumerate() {
            let path = format!("bearer_issuers[{index}]");
            issuer.check(&path, cx, &mut invalid);
            let mut reject = |message: &str, remedy: &str| {
                invalid.push(Diagnostic::in_config(format!("{path}.issuer"), message, remedy));
            };
            if own.contains(&without_slash(&issuer.issuer)) {
                reject(
                    "is that of `issuer` or `issuers_allowed`, whose tokens are accepted anyway",
                    "remove the entry",
                );
            } else if !names.insert(&*issuer.issuer) {
                reject("is listed twice", "list the audiences of both entries in one");
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let opened =
            issuers.iter().enumerate().map(|(index, issuer)| issuer.open(&format!("bearer_issuers[{index}]"), cx));
        Ok(BearerIssuers(opened.collect()))
    }

    /// The issuer that a token names, with its index. The token is not verified.
    pub(super) fn find(&self, text: &str) -> Option<(usize, &TrustedIssuer)> {
        if self.0.is_empty() {
            return None;
        }
        let token = UnverifiedToken::parse(text.as_bytes()).ok()?;
        let name = token.string_claim("iss")?;
        self.0.iter().enumerate().find(|(_, issuer)| *issuer.name == *name)
    }

    /// Whether the issuer with this index still publishes the key.
    pub(super) fn publishes(&self, index: usize, key: &Arc<PublishedKey>) -> bool {
        self.0.get(index).and_then(TrustedIssuer::keys).is_some_and(|keys| keys.publishes(key))
    }
}

impl BearerIssuer {
    fn check(&self, path: &str, cx: &BuildCx<'_>, invalid: &mut Vec<Diagnostic>) {
        let mut reject = |field: &str, message: &str, remedy: &str| {
            invalid.push(Diagnostic::in_config(format!("{path}.{field}"), message, remedy));
        };
        if self.issuer.is_empty() {
            reject("issuer", "is empty", "set it to the value of `iss` in the tokens");
        } else if self.issuer.ends_with(WELL_KNOWN) {
            reject("issuer", "is the URL of a document", "set it to the value of `iss` in the tokens");
        }
        if self.audiences.iter().all(String::is_empty) {
            let message = "is empty, so tokens that were issued for other applications would be accepted";
            reject("audiences", message, "list the audiences of this application");
        } else if self.audiences.iter().any(String::is_empty) {
            reject("audiences", "has an empty entry", "remove it");
        }
        match &self.jwks_uri {
            Some(uri) => invalid.extend(check_url(&format!("{path}.jwks_uri"), uri, cx)),
            None if self.issuer.is_empty() => {}
            None => invalid.extend(check_url(&format!("{path}.issuer"), &self.issuer, cx)),
        }
    }

    fn open(&self, path: &str, cx: &BuildCx<'_>) -> TrustedIssuer {
        let keys = match &self.jwks_uri {
            Some(uri) => {
                let keys = KeySet::open(uri, cx);
                let subscription = keys.subscribe(cx.object, &format!("{path}.jwks_uri"), cx.services);
                IssuerKeys::Configured { keys, _subscription: subscription }
            }
            None => IssuerKeys::Discovered(Provider::open_issuer(&self.issuer, format!("{path}.issuer"), cx)),
        };
        TrustedIssuer {
            name: self.issuer.as_str().into(),
            audiences: self.audiences.iter().map(|audience| audience.as_str().into()).collect(),
            keys,
        }
    }
}

impl TrustedIssuer {
    /// Verifies a token without waiting. `None` if the keys must be fetched first.
    pub(super) fn verify_locally(
        &self,
        text: &str,
        leeway: u32,
        now: u64,
    ) -> Option<Result<VerifiedToken, TokenError>> {
        let keys = self.keys()?;
        match self.verify_with(&keys, text, leeway, now) {
            Err(TokenError::UnknownKey | TokenError::NoKeys) if keys.can_refresh(TokenOrigin::Client) => None,
            verified => Some(verified),
        }
    }

    /// Verifies a token. Waits for the first fetch of the keys, and fetches them again if the key is not known.
    pub(super) async fn verify(&self, text: &str, leeway: u32, now: u64) -> Result<VerifiedToken, TokenError> {
        let keys = match &self.keys {
            IssuerKeys::Configured { keys, .. } => Arc::clone(keys),
            IssuerKeys::Discovered(provider) => {
                let metadata = provider.metadata().await.ok_or(TokenError::NoKeys)?;
                Arc::clone(&metadata.keys)
            }
        };
        match self.verify_with(&keys, text, leeway, now) {
            Err(TokenError::UnknownKey | TokenError::NoKeys) if keys.can_refresh(TokenOrigin::Client) => {
                keys.refresh(TokenOrigin::Client).await;
                self.verify_with(&keys, text, leeway, now)
            }
            verified => verified,
        }
    }

    fn verify_with(&self, keys: &KeySet, text: &str, leeway: u32, now: u64) -> Result<VerifiedToken, TokenError> {
        let token = parse_signed(text)?;
        if token.string_claim("iss") != Some(&self.name) {
            return Err(TokenError::invalid("`iss` of the token is another issuer"));
        }
        if !token.is_for_one_of(&self.audiences) {
            return Err(TokenError::invalid("`aud` of the token is none of the audiences for its issuer"));
        }
        verify_by_keys(token, keys, leeway, now)
    }

    /// The keys, if it is known where they are.
    fn keys(&self) -> Option<Arc<KeySet>> {
        match &self.keys {
            IssuerKeys::Configured { keys, .. } => Some(Arc::clone(keys)),
            IssuerKeys::Discovered(provider) => provider.current().as_ref().map(|metadata| Arc::clone(&metadata.keys)),
        }
    }
}

/// Each issuer has fetches of its own.
const MAX_ISSUERS: usize = 16;

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;
    use crate::plugin_api::scripted_server::{ScriptedServer, response};
    use crate::plugin_api::{BuildNotes, PluginState};

    /// The fields in reports about keys that cannot be fetched.
    async fn reported_fields(issuer: serde_json::Value) -> Vec<String> {
        let server = ScriptedServer::new(|request| match request.target.path() {
            "/.well-known/openid-configuration" => {
                let document = json!({"issuer": "https://a.example", "jwks_uri": "https://a.example/keys"});
                Ok(response(200, "", &document.to_string()))
            }
            _ => Err("refused".to_owned()),
        });
        let (services, state, notes) = (server.services(), PluginState::default(), BuildNotes::default());
        let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "", notes: &notes };
        let issuers: [BearerIssuer; 1] = [serde_json::from_value(issuer).unwrap()];
        let _issuers = BearerIssuers::open(&issuers, &[], &cx).unwrap_or_else(|invalid| panic!("{invalid:?}"));
        tokio::time::sleep(Duration::from_millis(500)).await; // Time is paused: it ends when every fetch has failed.
        let reports = server.reports.lock();
        reports.iter().flatten().map(|diagnostic| diagnostic.field.clone()).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn keys_that_cannot_be_fetched_are_reported_at_their_field() {
        let issuer = json!({"issuer": "https://a.example", "audiences": ["shop"]});
        assert_eq!(reported_fields(issuer.clone()).await, ["config.bearer_issuers[0].issuer"]);
        let mut issuer = issuer;
        issuer["jwks_uri"] = json!("https://a.example/own-keys");
        assert_eq!(reported_fields(issuer).await, ["config.bearer_issuers[0].jwks_uri"]);
    }
}
