//! Groups of consumers, of strangers, and of those for whom another plugin vouches.

use serde_json::{Value, json};

use super::*;
use crate::plugin::chain::{Base, Builder, Instance, Place, Protocols};
use crate::plugin::consumers::Id;
use crate::plugin::testing::{Visit, build, consumer, instance, names};
use crate::plugin::{AnyKind, Chain, Consumer, Entry};

const KIND: Entry<Acl> = Entry::NEW;

/// Stands for an authentication plugin.
struct Says(Identity);

impl Plugin for Says {
    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> Outcome<'a> {
        *cx.identity = self.0.clone();
        Outcome::Next
    }
}

fn identity(consumer: Option<Arc<Consumer>>, with_credential: bool, groups: &[&str]) -> Identity {
    let groups = groups.iter().copied().map(Arc::from).collect();
    Identity { consumer, credential: with_credential.then(|| Id::of("credential")), groups }
}

fn chain(identity: Identity, config: &Value) -> Arc<Chain> {
    let mut builder = Builder::default();
    let plugin = build(&KIND, config).unwrap();
    builder.add("acl", KIND.priority(), Place::Base(Base::Route), instance(&KIND, plugin));
    let says = Instance {
        plugin: Arc::new(Says(identity)),
        phases: Phases::ACCESS,
        protocols: Protocols::ALL,
        scope: "".into(),
        object: "".into(),
        configuration: 0,
    };
    builder.add("says", 1000, Place::Base(Base::Route), says);
    builder.build(names()).unwrap()
}

/// Status, `X-Consumer-Groups` and `X-Authenticated-Groups`.
type Then = (u16, Option<&'static str>, Option<&'static str>);

const UNAUTHORIZED: Then = (401, None, None);
const FORBIDDEN: Then = (403, None, None);

// kong-compat §4.1
#[tokio::test]
async fn groups_decide() {
    let anna = || Some(consumer("anna", &["b", "a"]));
    let lone = || Some(consumer("lone", &[]));
    let allow = |groups: &[&str]| json!({"allow": groups});
    let deny = |groups: &[&str]| json!({"deny": groups});
    let always = json!({"allow": ["a"], "always_use_authenticated_groups": true});
    let cases: [(&str, Identity, Value, Then); 19] = [
        ("member", identity(anna(), true, &[]), allow(&["x", "a"]), (200, Some("b, a"), None)),
        ("no member", identity(anna(), true, &[]), allow(&["x"]), FORBIDDEN),
        ("another case", identity(anna(), true, &[]), allow(&["A"]), FORBIDDEN),
        ("denied member", identity(anna(), true, &[]), deny(&["x", "a"]), FORBIDDEN),
        ("not denied", identity(anna(), true, &[]), deny(&["x"]), (200, Some("b, a"), None)),
        ("no groups, allow", identity(lone(), true, &[]), allow(&["a"]), FORBIDDEN),
        ("no groups, deny", identity(lone(), true, &[]), deny(&["a"]), (200, None, None)),
        ("anonymous, no groups, allow", identity(lone(), false, &[]), allow(&["a"]), UNAUTHORIZED),
        ("anonymous, no groups, deny", identity(lone(), false, &[]), deny(&["a"]), (200, None, None)),
        ("anonymous member", identity(anna(), false, &[]), allow(&["a"]), (200, Some("b, a"), None)),
        ("anonymous, wrong group", identity(anna(), false, &[]), allow(&["x"]), FORBIDDEN),
        ("nobody", identity(None, false, &[]), deny(&["a"]), UNAUTHORIZED),
        ("credential, nobody", identity(None, true, &[]), deny(&["a"]), FORBIDDEN),
        ("vouched for", identity(None, true, &["c", "a"]), allow(&["a"]), (200, None, Some("c, a"))),
        ("vouched for, wrong group", identity(None, true, &["c"]), allow(&["a"]), FORBIDDEN),
        ("anonymous, vouched for", identity(lone(), false, &["a"]), allow(&["a"]), (200, None, Some("a"))),
        ("consumer's count first", identity(lone(), true, &["a"]), allow(&["a"]), FORBIDDEN),
        ("unless told otherwise", identity(lone(), true, &["a"]), always.clone(), (200, None, Some("a"))),
        ("and there are any", identity(anna(), true, &[]), always, (200, Some("b, a"), None)),
    ];
    for (name, identity, mut config, then) in cases {
        for hides in [false, true] {
            config["hide_groups_header"] = hides.into();
            let visit = Visit::get("/").header("x-consumer-groups", "admin").header("x-authenticated-groups", "admin");
            let visit = visit.header("x_consumer_groups", "admin").header("x_consumer_color", "red");
            let outcome = visit.run(&chain(identity.clone(), &config)).await;
            assert_eq!((outcome.sent("x_consumer_groups"), outcome.sent("x_consumer_color")), (None, Some("red")));
            let headers = |name| outcome.sent(name).filter(|_| outcome.reply.is_none());
            let found =
                (outcome.answer.status.as_u16(), headers("x-consumer-groups"), headers("x-authenticated-groups"));
            let expected = if hides { (then.0, None, None) } else { then };
            assert_eq!(found, expected, "{name}, hidden: {hides}");
            let message = match then.0 {
                401 => Some("Unauthorized"),
                403 => Some("You cannot consume this service"),
                _ => None,
            };
            assert_eq!(outcome.message(), message, "{name}");
        }
    }
}

// kong-compat §4.1
#[test]
fn exactly_one_list_is_taken() {
    let cases = [
        (json!({}), "config"),
        (json!({"allow": null, "deny": null}), "config"),
        (json!({"allow": ["a"], "deny": ["b"]}), "config"),
        (json!({"allow": []}), "config.allow"),
        (json!({"deny": []}), "config.deny"),
        (json!({"deny": "a"}), "config.deny"),
        (json!({"whitelist": ["a"]}), "config.whitelist"),
    ];
    for (config, field) in cases {
        let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} is taken"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{config}");
    }
}
