//! Tests with the groups of a consumer, of the anonymous consumer, and those that an authentication plugin sets.

use serde_json::{Value, json};

use super::*;
use crate::plugin_api::consumers::EntityId;
use crate::plugin_api::instance::PluginInstance;
use crate::plugin_api::{AnyPluginKind, Consumer, RegisteredKind, VerifiedSubject};
use crate::plugin_chain::Chain;
use crate::plugin_chain::chain::{AttachmentPoint, BaseScope, ChainBuilder};
use crate::plugin_chain::testing::{TestRequest, build, consumer, instance, names};

const KIND: RegisteredKind<Acl> = RegisteredKind::NEW;

/// Sets an identity in place of an authentication plugin.
struct SetIdentity(Identity);

impl Plugin for SetIdentity {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        *cx.identity = self.0.clone();
        AccessOutcome::Continue
    }
}

fn identity(consumer: Option<Arc<Consumer>>, is_authenticated: bool, groups: &[&str]) -> Identity {
    let groups = groups.iter().copied().map(Arc::from).collect();
    let subject = || Some(VerifiedSubject::of_credential(&EntityId::from_text("credential")));
    let subjects = is_authenticated.then(subject).into_iter().collect::<Vec<_>>().into();
    Identity { consumer, subjects, groups, ..Identity::default() }
}

/// The identity of a client whose credential has no subject.
fn without_subject(groups: &[&str]) -> Identity {
    Identity { subjects: vec![None].into(), ..identity(None, false, groups) }
}

fn chain(identity: Identity, config: &Value) -> Arc<Chain> {
    let mut builder = ChainBuilder::default();
    let plugin = build(&KIND, config).unwrap();
    builder.add("acl", KIND.priority(), AttachmentPoint::Base(BaseScope::Route), instance(&KIND, plugin));
    let set_identity = PluginInstance {
        plugin: Arc::new(SetIdentity(identity)),
        phases: Phases::ACCESS,
        scope: "".into(),
        object: "".into(),
        configuration_hash: 0,
        first_backend: 0,
        assertions: None,
    };
    builder.add("set-identity", 1000, AttachmentPoint::Base(BaseScope::Route), set_identity);
    builder.build(names()).unwrap()
}

/// The status of the response, and the headers `X-Consumer-Groups` and `X-Authenticated-Groups` that the endpoint gets.
type ExpectedOutcome = (u16, Option<&'static str>, Option<&'static str>);

const UNAUTHORIZED: ExpectedOutcome = (401, None, None);
const FORBIDDEN: ExpectedOutcome = (403, None, None);

// docs/kong-compatibility.md, 4.1
#[tokio::test]
async fn requests_are_allowed_or_denied_by_group() {
    let anna = || Some(consumer("anna", &["b", "a"]));
    let half_known = || anna().map(|anna| Arc::new(Consumer::clone(&anna).with_unknown_acls()));
    let groupless = || Some(consumer("bob", &[]));
    let allow = |groups: &[&str]| json!({"allow": groups});
    let deny = |groups: &[&str]| json!({"deny": groups});
    let always = json!({"allow": ["a"], "always_use_authenticated_groups": true});
    let cases: [(&str, Identity, Value, ExpectedOutcome); 24] = [
        ("member", identity(anna(), true, &[]), allow(&["x", "a"]), (200, Some("b, a"), None)),
        ("not a member", identity(anna(), true, &[]), allow(&["x"]), FORBIDDEN),
        ("another letter case", identity(anna(), true, &[]), allow(&["A"]), FORBIDDEN),
        ("denied member", identity(anna(), true, &[]), deny(&["x", "a"]), FORBIDDEN),
        ("not denied", identity(anna(), true, &[]), deny(&["x"]), (200, Some("b, a"), None)),
        ("may be denied", identity(half_known(), true, &[]), deny(&["x"]), FORBIDDEN),
        ("member, and may be of others", identity(half_known(), true, &[]), allow(&["a"]), (200, Some("b, a"), None)),
        ("no groups, allow", identity(groupless(), true, &[]), allow(&["a"]), FORBIDDEN),
        ("no groups, deny", identity(groupless(), true, &[]), deny(&["a"]), (200, Some(""), None)),
        ("anonymous, no groups, allow", identity(groupless(), false, &[]), allow(&["a"]), UNAUTHORIZED),
        ("anonymous, no groups, deny", identity(groupless(), false, &[]), deny(&["a"]), (200, Some(""), None)),
        ("empty deny", identity(anna(), true, &[]), json!({"allow": ["a"], "deny": []}), (200, Some("b, a"), None)),
        ("anonymous member", identity(anna(), false, &[]), allow(&["a"]), (200, Some("b, a"), None)),
        ("anonymous, wrong group", identity(anna(), false, &[]), allow(&["x"]), FORBIDDEN),
        ("no consumer", identity(None, false, &[]), deny(&["a"]), UNAUTHORIZED),
        ("credential without consumer", identity(None, true, &[]), deny(&["a"]), FORBIDDEN),
        ("credential without a subject", without_subject(&[]), deny(&["a"]), FORBIDDEN),
        ("group of a credential without a subject", without_subject(&["a"]), allow(&["a"]), (200, None, Some("a"))),
        ("authenticated group", identity(None, true, &["c", "a"]), allow(&["a"]), (200, None, Some("c, a"))),
        ("wrong authenticated group", identity(None, true, &["c"]), allow(&["a"]), FORBIDDEN),
        ("anonymous, authenticated group", identity(groupless(), false, &["a"]), allow(&["a"]), (200, None, Some("a"))),
        ("ignored authenticated group", identity(groupless(), true, &["a"]), allow(&["a"]), FORBIDDEN),
        ("always authenticated groups", identity(groupless(), true, &["a"]), always.clone(), (200, None, Some("a"))),
        ("no authenticated groups", identity(anna(), true, &[]), always, (200, Some("b, a"), None)),
    ];
    for (name, identity, mut config, expected) in cases {
        for is_hidden in [false, true] {
            config["hide_groups_header"] = is_hidden.into();
            let request =
                TestRequest::get("/").header("x-consumer-groups", "admin").header("x-authenticated-groups", "admin");
            // Spellings of identity headers with underscores are removed; `x_consumer_color` is not such a spelling.
            let request = request.header("x_consumer_groups", "admin").header("x_consumer_color", "red");
            let outcome = request.run(&chain(identity.clone(), &config)).await;
            assert_eq!(
                (outcome.upstream_header("x_consumer_groups"), outcome.upstream_header("x_consumer_color")),
                (None, Some("red"))
            );
            let forwarded = |name| outcome.upstream_header(name).filter(|_| outcome.reply.is_none());
            let found =
                (outcome.response.status.as_u16(), forwarded("x-consumer-groups"), forwarded("x-authenticated-groups"));
            let expected = if is_hidden { (expected.0, None, None) } else { expected };
            assert_eq!(found, expected, "{name}, hidden: {is_hidden}");
            let message = match expected.0 {
                401 => Some("Unauthorized"),
                403 => Some("You cannot consume this service"),
                _ => None,
            };
            assert_eq!(outcome.message(), message, "{name}");
        }
    }
}

// docs/kong-compatibility.md, 4.1
#[test]
fn exactly_one_of_allow_and_deny_is_required() {
    let cases = [
        (json!({}), "config"),
        (json!({"allow": null, "deny": null}), "config"),
        (json!({"allow": ["a"], "deny": ["b"]}), "config"),
        (json!({"allow": []}), "config"),
        (json!({"allow": [], "deny": []}), "config"),
        (json!({"deny": "a"}), "config.deny"),
        (json!({"whitelist": ["a"]}), "config.whitelist"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
    }
}

/// Dumps of Kong have all fields, with the defaults of those that were not set.
#[test]
fn fields_that_only_kong_has_are_accepted_with_its_default() {
    for value in [json!(false), json!(null)] {
        build(&KIND, &json!({"allow": ["a"], "include_consumer_groups": value})).unwrap();
    }
    let invalid = build(&KIND, &json!({"allow": ["a"], "include_consumer_groups": true})).err().unwrap();
    let expected = "config.include_consumer_groups: is not supported, except with Kong's default, false";
    assert_eq!(invalid.len(), 1);
    assert!(invalid[0].to_string().starts_with(expected), "{invalid:?}");
}
