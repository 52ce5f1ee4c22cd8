//! ServiceAccount tokens that are bound to their Pod and renewed before they expire.

use std::collections::BTreeMap;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{Pod, ServiceAccount};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::PostParams;
use kube::{Api, Client};

/// The tokens of one Pod, by audience and lifetime.
#[derive(Default)]
pub(crate) struct Tokens {
    cached: BTreeMap<(Option<String>, i64), Token>,
}

struct Token {
    text: String,
    /// When four fifths of the lifetime have passed.
    renew_at: Timestamp,
}

impl Tokens {
    /// The cached token if it is still valid for a while, or a new one.
    pub(crate) async fn current(
        &mut self,
        client: &Client,
        pod: &Pod,
        audience: Option<&str>,
        seconds: i64,
    ) -> Result<String, String> {
        let key = (audience.map(str::to_owned), seconds);
        let now = Timestamp::now();
        if let Some(token) = self.cached.get(&key)
            && now < token.renew_at
        {
            return Ok(token.text.clone());
        }
        let (namespace, account) = account_of(pod);
        let message = |error: &dyn std::fmt::Display| format!("token of ServiceAccount {namespace}/{account}: {error}");
        let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
        let request = request(pod, audience, seconds);
        let response = api.create_token_request(account, &PostParams::default(), &request).await;
        let status =
            response.map_err(|error| message(&error))?.status.ok_or_else(|| message(&"the response has no status"))?;
        let (Some(text), Some(expires)) = (status.token, status.expiration_timestamp) else {
            return Err(message(&"the response has no token"));
        };
        let lifetime = expires.0.duration_since(now);
        let renew_at = now.checked_add(lifetime / 5 * 4).unwrap_or(now + SignedDuration::from_secs(60));
        self.cached.insert(key, Token { text: text.clone(), renew_at });
        Ok(text)
    }
}

fn account_of(pod: &Pod) -> (&str, &str) {
    let account = pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref());
    (pod.metadata.namespace.as_deref().unwrap_or_default(), account.unwrap_or("default"))
}

fn request(pod: &Pod, audience: Option<&str>, seconds: i64) -> TokenRequest {
    let bound_object = BoundObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: pod.metadata.name.clone(),
        uid: pod.metadata.uid.clone(),
    };
    let spec = TokenRequestSpec {
        audiences: audience.map(|audience| vec![audience.to_owned()]),
        bound_object_ref: Some(bound_object),
        expiration_seconds: Some(seconds),
        ..TokenRequestSpec::default()
    };
    TokenRequest { spec: Some(spec), ..TokenRequest::default() }
}
