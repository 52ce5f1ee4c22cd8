//! What a plugin of a route asserts toward endpoints never comes from the client: for every plugin of the registry that
//! asserts something, alone and with each other one, wherever they are attached, whatever credentials a request has.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use portico::plugin_api::consumers::plugins::{ConsumerPlugin, PluginSubject};
use portico::plugin_api::instance::{ExecutionPlace, PluginInstance};
use portico::plugin_api::{
    AnyPluginKind, Assertions, ChangedFields, ConsumerDirectory, HiddenCookies, PluginServices, PluginState,
};
use portico::plugin_chain::Chain;
use portico::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder, OverlayScope};
use portico::plugin_chain::testing::{TestOutcome, TestRequest, build, build_with, chain_with, instance, names};
use portico::plugins::REGISTRY;
use serde_json::{Value, json};

use crate::combinations::identity_plugins::{BODY, Login, Servers, consumers, row};
use crate::plugins::contract::minimal_config;

/// In the values of all fields and cookies that a client must not send.
const FORGED: &str = "forged";

/// A plugin that asserts something.
struct Asserting {
    kind: &'static dyn AnyPluginKind,
    instance: PluginInstance,
    login: Option<Login>,
}

impl Asserting {
    fn all(services: &Arc<dyn PluginServices>) -> Vec<Asserting> {
        let asserting = REGISTRY.iter().filter(|kind| kind.asserts());
        let state = PluginState::default();
        let build = |kind: &'static dyn AnyPluginKind| {
            let row = row(kind);
            let plugin = build_with(kind, &row.config, &state, services);
            let plugin = plugin.unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
            Asserting { kind, instance: instance(kind, plugin), login: row.login }
        };
        asserting.map(build).collect()
    }

    fn assertions(&self) -> &Assertions {
        self.instance.assertions.as_deref().unwrap_or_else(|| panic!("{} asserts something", self.kind.name()))
    }

    fn add_to(&self, builder: &mut ChainBuilder, point: AttachmentPoint) {
        builder.add(self.kind.name(), self.kind.priority(), point, self.instance.clone());
    }
}

/// A name in different spellings, with the one that is asserted.
fn spellings(name: &HeaderName) -> BTreeSet<String> {
    let name = name.as_str();
    [name.to_owned(), name.replace('-', "_"), name.replacen('-', "_", 1), name.replace('_', "-")].into()
}

/// A request with these credentials in which everything is forged that these plugins assert, but not the credentials.
fn forged_request(method: &Method, plugins: &[&Asserting], logins: &[&Login]) -> TestRequest {
    let mut request = TestRequest::get("/").header("x-other", "of-client").header("cookie", "kept=1");
    request.request.method_mut().clone_from(method);
    *request.request.body_mut() = Bytes::from_static(BODY.as_bytes());
    let headers = request.request.headers_mut();
    for (name, value) in logins.iter().copied().flatten() {
        headers.insert(*name, HeaderValue::from_str(value).unwrap());
    }
    for assertions in plugins.iter().map(|plugin| plugin.assertions()) {
        for name in assertions.fields.names().iter().flat_map(spellings) {
            if !logins.iter().copied().flatten().any(|(of_login, _)| *of_login == name) {
                headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::from_static(FORGED));
            }
        }
        for cookies in &assertions.hidden_cookies {
            let name = match cookies {
                HiddenCookies::Named(name) => name.to_string(),
                HiddenCookies::WithPrefix(prefix) => format!("{prefix}0123456789"),
            };
            headers.append("cookie", HeaderValue::try_from(format!("{name}={FORGED}")).unwrap());
        }
    }
    request
}

/// Whether the request arrives. Panics if it has anything forged then.
fn arrives(outcome: &TestOutcome, description: &str) -> bool {
    if outcome.reply.is_some() {
        return false;
    }
    for (name, value) in &outcome.request.headers {
        let value = String::from_utf8_lossy(value.as_bytes());
        assert!(!value.contains(FORGED), "{description}: the endpoint gets {name}: {value}");
    }
    let other = ["x-other", "cookie"].map(|name| outcome.upstream_header(name));
    assert_eq!(other, [Some("of-client"), Some("kept=1")], "{description}: all other fields stay");
    true
}

/// The credentials of requests: none, those of each plugin, and those of all.
fn logins_of<'p>(plugins: &[&'p Asserting]) -> Vec<Vec<&'p Login>> {
    let logins: Vec<_> = plugins.iter().filter_map(|plugin| plugin.login.as_ref()).collect();
    let mut all = vec![Vec::new(), logins.clone()];
    all.extend(logins.into_iter().map(|login| vec![login]));
    all
}

/// Sends all requests to a chain. Returns how many arrive.
async fn send_all(
    chain: &Chain,
    plugins: &[&Asserting],
    (servers, consumers): (&Servers, &ConsumerDirectory),
    name: &str,
) -> usize {
    let mut arrived = 0;
    for (method, logins, name_clients) in [Method::GET, Method::HEAD, Method::OPTIONS]
        .iter()
        .flat_map(|method| logins_of(plugins).into_iter().map(move |logins| (method, logins)))
        .flat_map(|(method, logins)| [true, false].map(|name_clients| (method, logins.clone(), name_clients)))
    {
        servers.name_clients.store(name_clients, Ordering::Relaxed);
        for may_buffer in [true, false] {
            // Without a body that may be buffered, as in an upgrade.
            let request = TestRequest { may_buffer, ..forged_request(method, plugins, &logins) };
            let outcome = request.with_consumers(consumers).run(chain).await;
            let of = logins.iter().copied().flatten().map(|(name, _)| *name).collect::<Vec<_>>();
            arrived += usize::from(arrives(&outcome, &format!("{name}, {method} with {of:?}, {name_clients}")));
        }
    }
    arrived
}

#[tokio::test(start_paused = true)]
async fn no_forged_field_arrives_on_a_route_with_a_plugin_that_asserts_it() {
    let servers = Arc::new(Servers::default());
    let services: Arc<dyn PluginServices> = Arc::clone(&servers) as _;
    let (plugins, consumers) = (Asserting::all(&services), consumers());
    let mut arrived: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, first) in plugins.iter().enumerate() {
        let chains = [vec![first]].into_iter().chain(plugins[index + 1..].iter().map(|second| vec![first, second]));
        for chained in chains {
            let mut builder = ChainBuilder::default();
            for plugin in &chained {
                plugin.add_to(&mut builder, AttachmentPoint::Base(BaseScope::Route));
            }
            let name = chained.iter().map(|plugin| plugin.kind.name()).collect::<Vec<_>>().join(" and ");
            let count = send_all(&builder.build(names()).unwrap(), &chained, (&servers, &consumers), &name).await;
            for plugin in chained {
                *arrived.entry(plugin.kind.name()).or_default() += count;
            }
        }
    }
    let never: Vec<_> = arrived.iter().filter(|(_, count)| **count == 0).collect();
    assert!(never.is_empty(), "no request arrives, so the row of the plugin is wrong: {never:?}");
}

/// A plugin of a consumer or a group on a route asserts for other clients, too: the endpoint is the same. One that only
/// the consumer has asserts for that consumer.
#[tokio::test(start_paused = true)]
async fn no_forged_field_arrives_where_a_plugin_of_a_consumer_asserts_it() {
    let servers = Arc::new(Servers::default());
    let services: Arc<dyn PluginServices> = Arc::clone(&servers) as _;
    let (plugins, of_all) = (Asserting::all(&services), consumers());
    let authenticator = plugins.iter().find(|plugin| plugin.kind.name() == "key-auth").unwrap();
    let mut attachable = 0;
    for plugin in plugins.iter().filter(|plugin| plugin.kind.scopes().consumer) {
        attachable += 1;
        let (name, chained) = (plugin.kind.name(), [authenticator, plugin]);
        let mut overlay = ChainBuilder::default();
        authenticator.add_to(&mut overlay, AttachmentPoint::Base(BaseScope::Route));
        plugin.add_to(&mut overlay, AttachmentPoint::Consumer("id-anna".into(), OverlayScope::Route));
        let count = send_all(&overlay.build(names()).unwrap(), &chained, (&servers, &of_all), name).await;
        assert!(count > 0, "no request arrives with {name}");
        let mut base = ChainBuilder::default();
        authenticator.add_to(&mut base, AttachmentPoint::Base(BaseScope::Route));
        let place = ExecutionPlace { kind: name, priority: plugin.kind.priority() };
        let of_anna = Arc::new(ConsumerPlugin { place, instance: plugin.instance.clone() });
        let mut consumers = of_all.clone();
        consumers.set_plugins(&PluginSubject::Consumer("id-anna".into()), [of_anna].into_iter().collect());
        let login = authenticator.login.as_ref().unwrap();
        let request = forged_request(&Method::GET, &chained, &[login]).with_consumers(&consumers);
        let outcome = request.run(&base.build(names()).unwrap()).await;
        assert!(arrives(&outcome, name), "no request of anna arrives with {name}");
    }
    assert!(attachable > 0, "some plugins that assert can be attached to consumers");
}

/// A plugin without assertions must not change what others assert: its chain would not remove that of clients.
#[test]
fn plugins_that_assert_nothing_change_no_identity_header() {
    for kind in REGISTRY.iter().filter(|kind| !kind.asserts()) {
        let plugin =
            build(kind, &minimal_config(kind)).unwrap_or_else(|invalid| panic!("{}: {invalid:?}", kind.name()));
        let mut fields = ChangedFields::default();
        plugin.declare_fields(&mut fields);
        for name in ["x-consumer-id", "x-consumer-username", "x-credential-identifier", "x-consumer-groups"] {
            assert!(!fields.request.contains(&HeaderName::from_static(name)), "{} changes {name}", kind.name());
        }
    }
}

async fn send(plugins: &[(&str, Value)], request: TestRequest) -> TestOutcome {
    let services: Arc<dyn PluginServices> = Arc::new(Servers::default());
    let plugins: Vec<(&dyn AnyPluginKind, Value)> = plugins
        .iter()
        .map(|(name, config)| {
            let kind = REGISTRY.find(name).unwrap();
            let mut row = row(kind).config;
            row.as_object_mut().unwrap().extend(config.as_object().unwrap().clone());
            (kind, row)
        })
        .collect();
    let chain = chain_with(&plugins, &PluginState::default(), &services);
    request.with_consumers(&consumers()).run(&chain).await
}

/// What the endpoint of openid-connect believes, forged in all spellings.
fn forged_claims() -> TestRequest {
    TestRequest::get("/")
        .header("x-user-email", "admin@example.com")
        .header("x_user_email", "admin@example.com")
        .header("x-id-token", "a.b.c")
        .header("x-introspection", "e30=")
        .header("authorization", "Bearer a.b.c")
        .header("cookie", "session=sealed; kept=1")
}

fn claims_at_endpoint(outcome: &TestOutcome) -> Vec<&str> {
    assert_eq!(outcome.message(), None);
    let claims = ["x-user-email", "x_user_email", "x-id-token", "x-introspection", "authorization"];
    claims.into_iter().filter(|name| outcome.upstream_header(name).is_some()).collect()
}

#[tokio::test]
async fn clients_that_another_plugin_has_authenticated_cannot_forge_headers_of_openid_connect() {
    let outcome =
        send(&[("key-auth", json!({})), ("openid-connect", json!({}))], forged_claims().header("apikey", "key")).await;
    assert_eq!(claims_at_endpoint(&outcome), [""; 0]);
    assert_eq!(outcome.upstream_identity().0, Some("anna"));
    assert_eq!(outcome.upstream_header("cookie"), Some("kept=1"), "the endpoint could repeat the session");
}

#[tokio::test]
async fn preflight_requests_cannot_forge_headers_of_openid_connect() {
    let mut request = forged_claims();
    *request.request.method_mut() = Method::OPTIONS;
    let outcome = send(&[("openid-connect", json!({}))], request).await;
    assert_eq!(claims_at_endpoint(&outcome), [""; 0]);
    assert_eq!(outcome.upstream_header("cookie"), Some("kept=1"));
}

/// A later plugin could pass it on in a field with another name, or count by it.
#[tokio::test]
async fn plugins_after_all_credentials_see_nothing_that_clients_have_forged() {
    let services: Arc<dyn PluginServices> = Arc::new(Servers::default());
    let [login, copying] = ["openid-connect", "request-transformer"].map(|name| REGISTRY.find(name).unwrap());
    let copy = json!({"add": {"headers": ["x-copied:$(headers.authorization or 'nothing')"]}});
    let plugins: [(&dyn AnyPluginKind, Value); 2] = [(login, row(login).config), (copying, copy)];
    let chain = chain_with(&plugins, &PluginState::default(), &services);
    let mut request = forged_claims();
    *request.request.method_mut() = Method::OPTIONS;
    let outcome = request.with_consumers(&consumers()).run(&chain).await;
    assert_eq!((outcome.message(), outcome.upstream_header("x-copied")), (None, Some("nothing")));
}

#[tokio::test]
async fn clients_without_a_token_or_a_consumer_cannot_forge_one() {
    let forged = || {
        TestRequest::get("/")
            .header("x-consumer-username", "admin")
            .header("x-consumer-id", "1")
            .header("x_consumer_username", "admin")
            .header("x-credential-identifier", "admin")
            .header("x-authenticated-groups", "admin")
    };
    let webhook = |request: TestRequest| {
        let fields = row(REGISTRY.find("standard-webhooks").unwrap()).login.unwrap();
        let mut request = fields.iter().fold(request, |request, (name, value)| request.header(name, value));
        *request.request.body_mut() = Bytes::from_static(BODY.as_bytes());
        request
    };
    for (plugin, config, request) in [
        ("jwt-signer", json!({}), forged()),
        ("jwt-signer", json!({"access_token_consumer_claim": []}), forged().header("x-token", "opaque")),
        ("forward-auth", json!({"user_header": null, "groups_header": null}), forged()),
        ("opa", json!({}), forged()),
        ("standard-webhooks", json!({}), webhook(forged())),
    ] {
        let outcome = send(&[(plugin, config)], request).await;
        assert_eq!(outcome.message(), None, "{plugin}");
        let forged = outcome.request.headers.values().filter(|value| [&b"admin"[..], b"1"].contains(&value.as_bytes()));
        assert_eq!(forged.count(), 0, "{plugin}: {:?}", outcome.request.headers);
    }
}
