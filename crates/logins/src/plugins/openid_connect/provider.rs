//! The provider: its document with endpoints, fetched in the background, and its keys.
//!
//! ```text
//!   start ─▶ fetch the document ─ valid ─▶ ProviderMetadata ─▶ again after an hour
//!                 ▲    └ failed or invalid ─▶ keep the known one ─┐
//!                 └── after 1, 2, 4 … 60 seconds ─────────────────┘
//! ```

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::{ArcSwapOption, Guard};
use http::StatusCode;
use serde_json::Value;
use tokio::sync::{oneshot, watch};
use tokio::time::{sleep, timeout};

use super::config::Config;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::BuildCx;
use crate::plugin_api::token::{KeySet, KeySetSubscription};
use crate::plugin_api::{PluginServices, PluginState, RemoteUrl};
use crate::plugin_kit::server_diagnostics::ServerDiagnostic;

/// The provider of one object. Dropping the last reference ends the fetches.
pub(super) struct Provider {
    shared: Arc<SharedProvider>,
    /// How many fetches have ended.
    progress: watch::Receiver<u64>,
    _stop_on_drop: oneshot::Sender<()>,
}

struct SharedProvider {
    settings: ProviderSettings,
    metadata: ArcSwapOption<ProviderMetadata>,
}

/// What the document of a provider says, with the endpoints that the configuration replaces.
pub(super) struct ProviderMetadata {
    pub(super) issuer: Box<str>,
    pub(super) authorization: Option<Box<str>>,
    pub(super) token: Option<Box<str>>,
    pub(super) introspection: Option<Box<str>>,
    pub(super) userinfo: Option<Box<str>>,
    pub(super) revocation: Option<Box<str>>,
    pub(super) end_session: Option<Box<str>>,
    pub(super) keys: Arc<KeySet>,
    /// Whether responses to logins contain `iss` (RFC 9207).
    pub(super) names_issuer: bool,
    /// Whether clients can send their secret in the body, but not in a header.
    pub(super) needs_secret_in_body: bool,
    _subscription: KeySetSubscription,
}

/// What the fetches depend on.
#[derive(Clone, PartialEq, Eq)]
struct ProviderSettings {
    /// The field with the issuer.
    field: String,
    document: String,
    issuer: String,
    issuers_allowed: Vec<String>,
    /// The endpoints of the configuration, in the order of [`ENDPOINTS`].
    endpoints: [Option<String>; ENDPOINTS.len()],
    namespace: Option<String>,
    object: String,
}

/// The members of the document with endpoints; the fields of the configuration have the same names, except for
/// `jwks_uri`.
const ENDPOINTS: [&str; 7] = [
    "authorization_endpoint",
    "token_endpoint",
    "introspection_endpoint",
    "userinfo_endpoint",
    "revocation_endpoint",
    "end_session_endpoint",
    "jwks_uri",
];

pub(super) const WELL_KNOWN: &str = "/.well-known/openid-configuration";

impl Provider {
    /// Validates issuer and endpoints, and starts the fetches. A rebuilt plugin with the same provider keeps it.
    pub(super) fn open(config: &Config, cx: &BuildCx<'_>) -> Result<Arc<Provider>, Vec<Diagnostic>> {
        let issuer = config.issuer.strip_suffix(WELL_KNOWN).unwrap_or(&config.issuer);
        let endpoints = [
            &config.authorization_endpoint,
            &config.token_endpoint,
            &config.introspection_endpoint,
            &config.userinfo_endpoint,
            &config.revocation_endpoint,
            &config.end_session_endpoint,
            &config.jwks_endpoint,
        ];
        let fields = ENDPOINTS.map(|name| if name == "jwks_uri" { "jwks_endpoint" } else { name });
        let urls = fields.into_iter().zip(endpoints).filter_map(|(field, url)| Some((field, url.as_deref()?)));
        let invalid: Vec<Diagnostic> =
            urls.chain([("issuer", issuer)]).filter_map(|(field, url)| check_url(field, url, cx)).collect();
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(Provider::start(
            "issuer".to_owned(),
            issuer,
            config.issuers_allowed.clone(),
            endpoints.map(Clone::clone),
            cx,
        ))
    }

    /// Another issuer, of which only the keys are used. `field` has its URL, which [`check_url`] has accepted.
    pub(super) fn open_issuer(issuer: &str, field: String, cx: &BuildCx<'_>) -> Arc<Provider> {
        Provider::start(field, issuer, Vec::new(), [const { None }; ENDPOINTS.len()], cx)
    }

    fn start(
        field: String,
        issuer: &str,
        issuers_allowed: Vec<String>,
        endpoints: [Option<String>; ENDPOINTS.len()],
        cx: &BuildCx<'_>,
    ) -> Arc<Provider> {
        let settings = ProviderSettings {
            field,
            document: format!("{}{WELL_KNOWN}", without_document(issuer)),
            issuer: issuer.to_owned(),
            issuers_allowed,
            endpoints,
            namespace: cx.namespace().map(str::to_owned),
            object: cx.object.to_owned(),
        };
        let name = format!(
            "{} OpenID provider {} {} {:?} {:?}",
            cx.object, settings.field, settings.document, settings.issuers_allowed, settings.endpoints
        );
        cx.state.get_or_create(&name, || {
            let shared = Arc::new(SharedProvider { settings, metadata: ArcSwapOption::empty() });
            let (progress_sender, progress) = watch::channel(0);
            let (stop_on_drop, stopped) = oneshot::channel();
            let fetcher = MetadataFetcher {
                shared: Arc::clone(&shared),
                services: Arc::clone(cx.services),
                state: cx.state.clone(),
                diagnostic: ServerDiagnostic::new(cx),
            };
            cx.services.spawn(Box::pin(fetcher.run(progress_sender, stopped)));
            Provider { shared, progress, _stop_on_drop: stop_on_drop }
        })
    }

    /// What is known of the provider now.
    pub(super) fn current(&self) -> Guard<Option<Arc<ProviderMetadata>>> {
        self.shared.metadata.load()
    }

    /// The issuer of tokens that do not name it: that of the document, or else that of the configuration.
    pub(super) fn issuer(&self) -> String {
        let configured = || self.shared.settings.issuer.clone();
        self.current().as_ref().map_or_else(configured, |metadata| metadata.issuer.to_string())
    }

    /// What is known of the provider. Waits for the first fetch.
    pub(super) async fn metadata(&self) -> Option<Arc<ProviderMetadata>> {
        if let Some(metadata) = self.shared.metadata.load_full() {
            return Some(metadata);
        }
        let mut progress = self.progress.clone();
        // After a timeout, the result is that of a failed fetch.
        timeout(FETCH_TIMEOUT, progress.wait_for(|fetches| *fetches > 0)).await.ok();
        self.shared.metadata.load_full()
    }
}

/// The task that fetches the document.
struct MetadataFetcher {
    shared: Arc<SharedProvider>,
    services: Arc<dyn PluginServices>,
    state: PluginState,
    diagnostic: ServerDiagnostic,
}

impl MetadataFetcher {
    async fn run(self, progress: watch::Sender<u64>, mut stopped: oneshot::Receiver<()>) {
        let mut failures: u32 = 0;
        loop {
            let fetched = tokio::select! {
                fetched = self.fetch() => fetched,
                _ = &mut stopped => return,
            };
            match fetched {
                Ok(metadata) => {
                    self.shared.metadata.store(Some(Arc::new(metadata)));
                    self.diagnostic.set(None);
                    failures = 0;
                }
                Err(error) => {
                    let error = &*self.diagnostic.shown(&error);
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        let object = self.diagnostic.object();
                        tracing::warn!(object, error, "Cannot read the document of an OpenID provider");
                    }
                    let message = format!("the document of the provider cannot be used: {error}");
                    let remedy = "make the URL reachable from Portico, or correct it";
                    self.diagnostic.set(Some(Diagnostic::in_config(&self.shared.settings.field, message, remedy)));
                }
            }
            progress.send_modify(|fetches| *fetches += 1);
            let pause = match failures {
                0 => REFRESH_INTERVAL,
                failures => Duration::from_secs(1 << (failures - 1).min(6)).min(MAX_BACKOFF),
            };
            tokio::select! {
                () = sleep(pause) => {}
                _ = &mut stopped => return,
            }
        }
    }

    async fn fetch(&self) -> Result<ProviderMetadata, String> {
        let settings = &self.shared.settings;
        let namespace = settings.namespace.as_deref();
        let response = self.services.fetch(&settings.document, namespace, FETCH_TIMEOUT, MAX_DOCUMENT_BYTES).await?;
        if response.status != StatusCode::OK {
            return Err(format!("{} responded with status {}", settings.document, response.status));
        }
        let document: Value =
            serde_json::from_slice(&response.body).map_err(|_| format!("{} is not JSON", settings.document))?;
        let parsed = ParsedDocument::parse(&document, settings)?;
        let [authorization, token, introspection, userinfo, revocation, end_session, keys] = parsed.endpoints;
        let keys = keys.ok_or("the document has no `jwks_uri`")?;
        let keys = KeySet::open_in(&keys, namespace, &settings.object, &self.state, &self.services);
        Ok(ProviderMetadata {
            issuer: parsed.issuer,
            authorization,
            token,
            introspection,
            userinfo,
            revocation,
            end_session,
            _subscription: keys.subscribe(&settings.object, &settings.field, &self.services),
            keys,
            names_issuer: parsed.names_issuer,
            needs_secret_in_body: parsed.needs_secret_in_body,
        })
    }
}

/// The members of the document that are used.
struct ParsedDocument {
    issuer: Box<str>,
    endpoints: [Option<Box<str>>; ENDPOINTS.len()],
    names_issuer: bool,
    needs_secret_in_body: bool,
}

impl ParsedDocument {
    fn parse(document: &Value, settings: &ProviderSettings) -> Result<Self, String> {
        let issuer = document.get("issuer").and_then(Value::as_str).ok_or("the document has no `issuer`")?;
        // OpenID Connect Discovery, section 4.3: otherwise, another issuer could impersonate this one.
        let is_expected = issuer.trim_end_matches('/') == settings.issuer.trim_end_matches('/');
        let is_allowed = |allowed: &String| allowed == issuer || is_of_tenant(allowed, issuer);
        if !is_expected && !settings.issuers_allowed.iter().any(is_allowed) {
            return Err(match issuer.contains(TENANT) {
                true => "its `issuer` is that of many tenants, and `issuers_allowed` lists none of them".to_owned(),
                false => "its `issuer` is neither the configured one nor in `issuers_allowed`".to_owned(),
            });
        }
        let is_secure = settings.issuer.starts_with("https:");
        let mut endpoints = [const { None }; ENDPOINTS.len()];
        for ((name, configured), endpoint) in ENDPOINTS.into_iter().zip(&settings.endpoints).zip(&mut endpoints) {
            let published = || document.get(name).and_then(Value::as_str);
            let Some(url) = configured.as_deref().or_else(published) else { continue };
            let parsed = RemoteUrl::parse(url).map_err(|error| format!("`{name}`: {error}"))?;
            if configured.is_none() && is_secure && !parsed.is_secure {
                return Err(format!("`{name}` does not begin with https://, unlike the issuer"));
            }
            *endpoint = Some(url.into());
        }
        let list = |name: &str| document.get(name).and_then(Value::as_array);
        let methods = list("token_endpoint_auth_methods_supported");
        let supports = |method: &str| methods.is_none_or(|methods| methods.iter().any(|supported| supported == method));
        Ok(ParsedDocument {
            issuer: issuer.into(),
            endpoints,
            names_issuer: document.get("authorization_response_iss_parameter_supported") == Some(&Value::Bool(true)),
            needs_secret_in_body: !supports("client_secret_basic") && supports("client_secret_post"),
        })
    }
}

/// What is wrong with the URL of a provider or of its keys.
pub(super) fn check_url(field: &str, url: &str, cx: &BuildCx<'_>) -> Option<Diagnostic> {
    if url.is_empty() {
        return Some(Diagnostic::in_config(field, "is missing", "set it to the URL of the OpenID provider"));
    }
    match RemoteUrl::parse(url) {
        Err(message) => Some(Diagnostic::in_config(field, message, "use a URL such as https://login.example")),
        Ok(url) if url.authorization.is_some() => {
            Some(Diagnostic::in_config(field, "contains a username, which is not supported", "remove it"))
        }
        Ok(url) => cx.check_host(field, &url.host),
    }
}

/// Whether an issuer is that of one tenant for this template. Tokens must still name an issuer that is listed.
fn is_of_tenant(issuer: &str, template: &str) -> bool {
    let Some((before, after)) = template.split_once(TENANT) else { return false };
    let tenant = issuer.strip_prefix(before).and_then(|rest| rest.strip_suffix(after));
    tenant.is_some_and(|tenant| !tenant.is_empty() && !tenant.contains(['/', '{']))
}

/// The issuer as each configuration of it begins, whether that names its document or ends with a slash.
pub(super) fn without_document(issuer: &str) -> &str {
    issuer.strip_suffix(WELL_KNOWN).unwrap_or(issuer).trim_end_matches('/')
}

impl fmt::Debug for Provider {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Provider").field(&self.shared.settings.document).finish()
    }
}

/// Stands for the tenant in the issuer of Microsoft Entra's documents `common` and `organizations`.
const TENANT: &str = "{tenantid}";
/// Timeout of a fetch, and limit of the time that a request waits for the first one.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// Interval of fetches; keys have one of their own.
const REFRESH_INTERVAL: Duration = Duration::from_secs(3600);
/// Longest pause after failed fetches.
const MAX_BACKOFF: Duration = Duration::from_secs(60);
/// Size limit of the document.
const MAX_DOCUMENT_BYTES: usize = 256 * 1024;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn settings(issuer: &str) -> ProviderSettings {
        ProviderSettings {
            field: "issuer".to_owned(),
            document: String::new(),
            issuer: issuer.to_owned(),
            issuers_allowed: vec!["https://other.example/{tenant}".to_owned()],
            endpoints: [const { None }; ENDPOINTS.len()],
            namespace: None,
            object: String::new(),
        }
    }

    #[test]
    fn documents_of_other_issuers_are_refused() {
        let issuer = "https://a.example";
        for (document, expected) in [
            (json!({"issuer": "https://a.example"}), ""),
            (json!({"issuer": "https://a.example/"}), ""),
            (json!({"issuer": "https://other.example/{tenant}"}), ""),
            (json!({}), "no `issuer`"),
            (json!({"issuer": "https://evil.example"}), "neither the configured one"),
            (json!({"issuer": "http://a.example"}), "neither the configured one"),
            (json!({"issuer": issuer, "token_endpoint": "http://a.example/t"}), "does not begin with https"),
            (json!({"issuer": issuer, "authorization_endpoint": "javascript:alert(1)"}), "`authorization_endpoint`"),
        ] {
            let error = ParsedDocument::parse(&document, &settings(issuer)).err().unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{document}: {error}");
        }
    }

    /// As Microsoft Entra's document at `https://login.microsoftonline.com/common/v2.0` has it.
    #[test]
    fn document_of_many_tenants_needs_a_list_of_tenants() {
        let document = json!({"issuer": "https://login.example/{tenantid}/v2.0"});
        let tenant = "https://login.example/72f988bf-86f1-41af-91ab-2d7cd011db47/v2.0";
        for (allowed, expected) in [
            (vec![tenant], ""),
            (vec!["https://b.example", tenant], ""),
            (vec![], "lists none of them"),
            (vec!["https://login.example//v2.0"], "lists none of them"),
            (vec!["https://login.example/a/b/v2.0"], "lists none of them"),
            (vec!["https://login.example/a"], "lists none of them"),
            (vec!["https://evil.example/a/v2.0"], "lists none of them"),
        ] {
            let mut settings = settings("https://login.example/common/v2.0");
            settings.issuers_allowed = allowed.iter().map(|&issuer| issuer.to_owned()).collect();
            let error = ParsedDocument::parse(&document, &settings).err().unwrap_or_default();
            assert!(error.contains(expected) && error.is_empty() == expected.is_empty(), "{allowed:?}: {error}");
        }
    }

    #[test]
    fn documents_say_how_clients_authenticate() {
        let methods = |methods: Value| {
            let document = json!({"issuer": "http://a.example", "token_endpoint_auth_methods_supported": methods});
            ParsedDocument::parse(&document, &settings("http://a.example")).unwrap().needs_secret_in_body
        };
        assert!(methods(json!(["client_secret_post"])));
        assert!(!methods(json!(["client_secret_basic", "client_secret_post"])));
        assert!(!methods(Value::Null));
    }
}
