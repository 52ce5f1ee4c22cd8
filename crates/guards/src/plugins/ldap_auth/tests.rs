//! Tests of logins with a scripted directory: its requests, what its responses mean, and directories that misbehave.

pub(in crate::plugins) mod scripted;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use self::scripted::{DirectoryMessage, ScriptedDirectory, entry, result, user};
use super::*;
use crate::plugin_api::{ConsumerDirectory, PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::Chain;
use crate::plugin_chain::testing::{TestOutcome, TestRequest, build, chain_with, consumer, noon, notes};

const KIND: RegisteredKind<LdapAuth> = RegisteredKind::NEW;
const WRONG: Option<u16> = Some(401);

fn config(fields: Value) -> Value {
    let mut config = json!({"ldap_host": "ldap.example", "base_dn": "ou=users,dc=x", "attribute": "uid"});
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

/// Users are searched for.
fn searching(fields: Value) -> Value {
    let mut config = config(json!({"bind_dn": "cn=portico,dc=x", "ldap_password": "pw"}));
    config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    config
}

fn chain_of(config: &Value, directory: &Arc<ScriptedDirectory>) -> Arc<Chain> {
    let services: Arc<dyn PluginServices> = Arc::clone(directory) as _;
    chain_with(&[(&KIND, config.clone())], &PluginState::default(), &services)
}

fn consumers() -> ConsumerDirectory {
    let mut directory = ConsumerDirectory::default();
    directory.add(&consumer("anna", &[]));
    directory.add(&consumer("guest", &[]));
    directory
}

fn login(text: &str) -> TestRequest {
    TestRequest::get("/").header("authorization", &format!("LDAP {}", STANDARD.encode(text)))
}

async fn run(chain: &Chain, request: TestRequest) -> TestOutcome {
    request.with_consumers(&consumers()).run(chain).await
}

async fn status(chain: &Chain, request: TestRequest) -> Option<u16> {
    run(chain, request).await.reply_status().map(|status| status.as_u16())
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn users_log_in_with_the_name_of_their_entry() {
    let directory = ScriptedDirectory::responding(|_, request| match request {
        "bind uid=anna,ou=users,dc=x secret" => vec![result(0)],
        _ => vec![result(49)],
    });
    let chain = chain_of(&config(json!({"cache_ttl": 0})), &directory);
    let outcome = run(&chain, login("anna:secret")).await;
    assert_eq!(outcome.reply_status(), None);
    assert_eq!(outcome.upstream_identity(), (None, Some("anna"), false));
    let credential = outcome.state.identity.credential().map(|id| &**id);
    assert_eq!(credential, Some("ldap://ldap.example:389#uid=anna,ou=users,dc=x"));
    assert!(outcome.upstream_header("authorization").is_some());
    let outcome = run(&chain, login("anna:wrong")).await;
    assert_eq!((outcome.message(), outcome.reply_status()), (Some("Unauthorized"), Some(StatusCode::UNAUTHORIZED)));
    assert_eq!(outcome.response_header("www-authenticate"), Some("LDAP"));
    assert_eq!(status(&chain, login("anna,ou=admins:secret")).await, WRONG);
    assert_eq!(
        directory.requests(),
        [
            "bind uid=anna,ou=users,dc=x secret",
            "search uid=anna,ou=users,dc=x base uid",
            "bind uid=anna,ou=users,dc=x wrong",
            "bind uid=anna\\,ou\\=admins,ou=users,dc=x secret",
        ]
    );
    assert_eq!(directory.connections(), 1, "the connection is kept");
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn requests_without_a_usable_login_do_not_reach_the_directory() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"hide_credentials": true, "anonymous": "guest"})), &directory);
    let basic = TestRequest::get("/").header("authorization", &format!("Basic {}", STANDARD.encode("a:b")));
    let cases = [
        ("no header", TestRequest::get("/"), false),
        ("another scheme", basic, true),
        ("not base64", TestRequest::get("/").header("authorization", "ldap %"), false),
        ("no colon", login("anna"), false),
        ("no username", login(":secret"), false),
        ("no password", login("anna:"), false),
        ("a long password", login(&format!("anna:{}", "a".repeat(1025))), false),
        ("a long username", login(&format!("{}:secret", "a".repeat(257))), false),
        ("two headers", login("anna:secret").header("authorization", "LDAP YTpi"), false),
        ("two headers with different schemes", login("anna:secret").header("authorization", "x y"), false),
    ];
    for (name, request, is_forwarded) in cases {
        let outcome = run(&chain, request).await;
        assert_eq!(outcome.upstream_identity(), (Some("guest"), None, true), "{name}");
        assert_eq!(outcome.upstream_header("authorization").is_some(), is_forwarded, "{name}");
    }
    assert!(directory.requests().is_empty(), "{:?}", directory.requests());
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn logins_are_read_from_both_headers() {
    let directory = ScriptedDirectory::responding(|_, request| {
        vec![result(if request == "bind uid=anna,ou=users,dc=x secret" { 0 } else { 49 })]
    });
    let chain = chain_of(&config(json!({"header_type": "basic", "realm": "shop", "cache_ttl": 0})), &directory);
    let basic = |text: &str| format!("Basic {}", STANDARD.encode(text));
    let with = |proxy: &str, own: &str| {
        TestRequest::get("/").header("proxy-authorization", &basic(proxy)).header("authorization", &basic(own))
    };
    for (proxy, own, expected) in
        [("anna:secret", "bert:x", None), ("bert:x", "anna:secret", None), ("bert:x", "anna:wrong", WRONG)]
    {
        assert_eq!(status(&chain, with(proxy, own)).await, expected, "{proxy} {own}");
    }
    let before = directory.requests().len();
    for (name, request) in [
        ("Proxy-Authorization", with("anna:secret", "bert:x").header("proxy-authorization", "a b")),
        ("Authorization", with("anna:secret", "bert:x").header("authorization", "Bearer x")),
    ] {
        let reply = run(&chain, request).await.reply;
        assert_eq!(reply.map(|reply| reply.reason), Some("wrong_credentials"), "two fields {name}");
    }
    assert_eq!(directory.requests().len(), before, "the directory is not asked");
    let outcome = run(&chain, TestRequest::get("/")).await;
    assert_eq!(outcome.response_header("www-authenticate"), Some("basic realm=\"shop\""));
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn results_are_wrong_logins_or_failures() {
    for (code, expected) in [(49, 401), (32, 401), (53, 401), (19, 401), (51, 500), (8, 500), (10, 500), (1, 500)] {
        let directory = ScriptedDirectory::responding(move |_, _| vec![result(code)]);
        let chain = chain_of(&config(json!({})), &directory);
        assert_eq!(status(&chain, login("anna:secret")).await, Some(expected), "{code}");
        assert_eq!(directory.diagnostic().is_some(), expected == 500, "{code}");
    }
}

#[tokio::test]
async fn entries_are_searched_for() {
    let directory = ScriptedDirectory::responding(|_, request| match request {
        "bind cn=portico,dc=x pw" | "bind cn=Anna A,ou=b,dc=x secret" => vec![result(0)],
        "search ou=users,dc=x below uid=anna uid" => vec![entry("cn=Anna A,ou=b,dc=x", &[]), result(0)],
        "search ou=users,dc=x below uid=twin uid" => vec![entry("cn=1,dc=x", &[]), entry("cn=2,dc=x", &[]), result(4)],
        "search ou=users,dc=x below uid=* uid" => vec![DirectoryMessage::Reference, result(0)],
        _ => vec![result(49)],
    });
    let chain = chain_of(&searching(json!({"cache_ttl": 0})), &directory);
    let outcome = run(&chain, login("anna:secret")).await;
    assert_eq!(outcome.upstream_identity(), (None, Some("anna"), false));
    let credential = outcome.state.identity.credential().map(|id| &**id);
    assert_eq!(credential, Some("ldap://ldap.example:389#cn=anna a,ou=b,dc=x"));
    for wrong in ["anna:wrong", "twin:secret", "*:secret"] {
        assert_eq!(status(&chain, login(wrong)).await, WRONG, "{wrong}");
    }
    assert!(directory.diagnostic().is_none());
    let rejecting = ScriptedDirectory::responding(|_, _| vec![result(49)]);
    let chain = chain_of(&searching(json!({})), &rejecting);
    assert_eq!(status(&chain, login("anna:secret")).await, Some(500));
    let message = rejecting.diagnostic().unwrap();
    assert_eq!(message, "ldap.example:389: it rejects config.bind_dn: invalidCredentials (49): no");
}

/// One user has one counter, one session and one name, whatever a directory takes for the username.
#[tokio::test]
async fn spaces_and_capitals_of_a_username_make_no_other_user_of_it() {
    const READABLE: &str = "uid=Anna,ou=users,dc=x";
    let spellings = ["anna", "ANNA", " anna", "anna  ", "\u{a0}Anna", "an\u{ad}na"];
    for (config, is_readable, expected) in [
        (config(json!({"cache_ttl": 0})), true, "Anna"),
        (config(json!({"cache_ttl": 0})), false, "anna"),
        (searching(json!({"cache_ttl": 0})), true, "Anna"),
    ] {
        let directory = ScriptedDirectory::responding(move |_, request| match request.starts_with("search") {
            true if is_readable => vec![user(READABLE, &["a.a", "Anna"]), result(0)],
            true => vec![result(50)],
            false => vec![result(0)],
        });
        let chain = chain_of(&config, &directory);
        for spelling in spellings {
            let outcome = run(&chain, login(&format!("{spelling}:secret"))).await;
            assert_eq!(outcome.upstream_identity(), (None, Some(expected), false), "{config} {spelling:?}");
            let credential = outcome.state.identity.credential().map(|id| &**id);
            let expected = "ldap://ldap.example:389#uid=anna,ou=users,dc=x";
            assert_eq!(credential, Some(expected), "{config} {spelling:?}");
        }
    }
    // Directories also equate letters of other forms, which only they know all of.
    let unreadable = ScriptedDirectory::responding(|_, request| match request.starts_with("search") {
        true => vec![result(50)],
        false => vec![result(0)],
    });
    let chain = chain_of(&config(json!({"cache_ttl": 0})), &unreadable);
    let outcome = run(&chain, login("\u{ff41}nna:secret")).await;
    assert!(outcome.state.identity.is_authenticated());
    assert_eq!(outcome.state.identity.credential(), None, "which entry it is, is not known");
    let directory = ScriptedDirectory::responding(move |_, request| match request.starts_with("search") {
        true => vec![user(READABLE, &["anna"]), result(0)],
        false => vec![result(0)],
    });
    let chain = chain_of(&config(json!({"consumer_by": ["username"]})), &directory);
    let outcome = run(&chain, login(" ANNA:secret")).await;
    assert_eq!(outcome.upstream_identity().0, Some("anna"), "the consumer is that of the entry");
}

/// Two directories may have entries with the same name, which are different users.
#[tokio::test]
async fn users_of_two_directories_are_two_subjects() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let mut subjects = std::collections::BTreeSet::new();
    let servers = [("ldap.example", 389), ("ldap.example", 1389), ("other.example", 389), ("ldap", 389)];
    for (host, port) in servers {
        let chain = chain_of(&config(json!({"ldap_host": host, "ldap_port": port})), &directory);
        let outcome = run(&chain, login("anna:secret")).await;
        subjects.insert(outcome.state.identity.credential().unwrap().to_string());
    }
    assert_eq!(subjects.len(), servers.len(), "{subjects:?}");
    assert!(subjects.contains("ldap://ldap.default:389#uid=anna,ou=users,dc=x"), "{subjects:?}");
}

/// Whatever a username contains, the attribute is compared with all of it.
#[tokio::test]
async fn usernames_do_not_change_the_filter() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&searching(json!({"cache_ttl": 0})), &directory);
    for username in ["anna)(uid=*", "*)(objectClass=*", "anna\\2a", "an\0na", "(&)", "an*", " anna"] {
        let before = directory.requests().len();
        assert_eq!(status(&chain, login(&format!("{username}:secret"))).await, WRONG, "{username}");
        let sent = directory.requests().split_off(before);
        let search = format!("search ou=users,dc=x below uid={username} uid");
        assert!(sent.contains(&search), "{username}: {sent:?}");
        assert!(!sent.iter().any(|request| request.ends_with("secret")), "no entry, no password: {sent:?}");
    }
}

/// A directory in which the user has these values of `memberOf`.
fn with_groups(values: &'static [&'static str]) -> Arc<ScriptedDirectory> {
    ScriptedDirectory::responding(move |_, request| match request.split(' ').next() {
        Some("search") => vec![entry("uid=anna,ou=users,dc=x", values), result(0)],
        _ => vec![result(0)],
    })
}

#[tokio::test]
async fn groups_can_be_required() {
    const VALUES: &[&str] = &["cn=staff,ou=groups,dc=x", "cn=night,ou=groups,dc=x", "cn=other,dc=x", "text"];
    let cases = [
        (json!({"groups_required": ["staff"]}), None),
        (json!({"groups_required": ["admins", "staff night"]}), None),
        (json!({"groups_required": ["admins", "staff admins"]}), Some(403)),
        (json!({"groups_required": ["other"]}), None),
        (json!({"groups_required": ["other"], "group_base_dn": "ou=groups,dc=x"}), Some(403)),
        (json!({"groups_required": ["staff"], "group_name_attribute": "ou"}), Some(403)),
    ];
    for (fields, expected) in cases {
        for config in [config(fields.clone()), searching(fields.clone())] {
            let chain = chain_of(&config, &with_groups(VALUES));
            // The second request finds the login in the cache.
            for _ in 0..2 {
                assert_eq!(status(&chain, login("anna:secret")).await, expected, "{config}");
            }
        }
    }
    let directory = with_groups(VALUES);
    let outcome =
        run(&chain_of(&config(json!({"group_base_dn": "ou=groups,dc=x"})), &directory), login("anna:s")).await;
    assert_eq!(outcome.state.identity.groups.iter().map(|group| &**group).collect::<Vec<_>>(), ["night", "staff"]);
    assert_eq!(directory.requests()[1], "search uid=anna,ou=users,dc=x base uid,memberOf");
    let directory = with_groups(VALUES);
    let outcome = run(&chain_of(&config(json!({})), &directory), login("anna:secret")).await;
    assert!(outcome.state.identity.groups.is_empty());
    assert_eq!(directory.requests()[1], "search uid=anna,ou=users,dc=x base uid", "groups are read only if needed");
}

#[tokio::test]
async fn consumers_are_found_by_the_username() {
    let cases = [
        (json!(["username"]), false, "anna", Some((Some("anna"), Some("anna")))),
        (json!(["custom_id"]), false, "custom-anna", Some((Some("anna"), Some("custom-anna")))),
        (json!(["custom_id", "username"]), false, "anna", Some((Some("anna"), Some("anna")))),
        (json!(["custom_id"]), false, "anna", None),
        (json!(["username"]), true, "bert", Some((None, Some("bert")))),
        (json!([]), false, "anna", Some((None, Some("anna")))),
    ];
    for (lookup, is_optional, username, expected) in cases {
        let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
        let fields = match is_optional {
            true => json!({"consumer_by": lookup, "consumer_optional": true}),
            false => json!({"consumer_by": lookup}),
        };
        let outcome = run(&chain_of(&config(fields), &directory), login(&format!("{username}:secret"))).await;
        assert_eq!(outcome.reply_status().is_none(), expected.is_some(), "{lookup} {username}");
        let (consumer, identifier, _) = outcome.upstream_identity();
        assert_eq!(expected.unwrap_or_default(), (consumer, identifier), "{lookup} {username}");
    }
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn accepted_logins_are_cached() {
    let directory =
        ScriptedDirectory::responding(|_, request| vec![result(if request.ends_with("secret") { 0 } else { 49 })]);
    let chain = chain_of(&config(json!({"cache_ttl": 10})), &directory);
    let logins = || directory.requests().iter().filter(|request| request.starts_with("bind")).count();
    let at = |text: &str, second| {
        let mut request = login(text);
        request.now = noon() + Duration::from_secs(second);
        request
    };
    for (text, second, expected, asked) in [
        ("anna:secret", 0, None, 1),
        ("anna:secret", 9, None, 1),
        ("anna:wrong", 9, WRONG, 2),
        ("anna:wrong", 9, WRONG, 3),
        ("anna:secret", 10, None, 4),
        ("bert:secret", 10, None, 5),
    ] {
        assert_eq!(status(&chain, at(text, second)).await, expected, "{text} {second}");
        assert_eq!(logins(), asked, "{text} {second}");
    }
    // Another configuration has a cache of its own.
    let services: Arc<dyn PluginServices> = Arc::clone(&directory) as _;
    let state = PluginState::default();
    for base in ["ou=a,dc=x", "ou=b,dc=x", "ou=a,dc=x"] {
        let chain = chain_with(&[(&KIND, config(json!({"base_dn": base})))], &state, &services);
        assert_eq!(status(&chain, login("anna:secret")).await, None);
    }
    assert_eq!(logins(), 8, "without a plugin that holds the cache, it is empty");
}

// docs/kong-compatibility.md, 4.18
#[tokio::test]
async fn an_unavailable_directory_is_reported_until_it_is_back() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"anonymous": "guest"})), &directory);
    directory.refuse(true);
    let outcome = run(&chain, login("anna:secret")).await;
    assert_eq!(outcome.message(), Some("An unexpected error occurred"), "not anonymous");
    assert_eq!(outcome.reply_status(), Some(StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(directory.diagnostic().as_deref(), Some("ldap.example:389: refused"));
    directory.refuse(false);
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    assert_eq!(directory.diagnostic(), None);
}

#[tokio::test]
async fn connections_that_were_closed_while_idle_are_replaced() {
    // Each connection has the responses to one login.
    let directory = ScriptedDirectory::responding(|number, _| match number {
        0 => vec![result(0)],
        _ => vec![result(0), DirectoryMessage::Close],
    });
    let chain = chain_of(&config(json!({"cache_ttl": 0})), &directory);
    for expected_connections in 1..4 {
        assert_eq!(status(&chain, login("anna:secret")).await, None);
        assert_eq!(directory.connections(), expected_connections);
    }
    let closing = ScriptedDirectory::responding(|_, _| vec![DirectoryMessage::Close]);
    assert_eq!(status(&chain_of(&config(json!({})), &closing), login("anna:secret")).await, Some(500));
    assert_eq!(closing.connections(), 1, "a new connection that is closed is not replaced");
}

#[tokio::test(start_paused = true)]
async fn idle_connections_are_closed() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"cache_ttl": 0, "keepalive": 1000})), &directory);
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    assert_eq!(directory.open_connections(), 1);
    tokio::time::timeout(Duration::from_secs(2), directory.all_closed()).await.unwrap();
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    assert_eq!(directory.connections(), 2);
    let chain = chain_of(&config(json!({"cache_ttl": 0, "keepalive": 0})), &directory);
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    tokio::time::timeout(Duration::from_secs(2), directory.all_closed()).await.unwrap();
}

#[tokio::test]
async fn connections_of_a_plugin_are_limited() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"cache_ttl": 0})), &directory);
    let requests = (0..40).map(|number| {
        let chain = Arc::clone(&chain);
        async move { status(&chain, login(&format!("user{number}:secret"))).await }
    });
    let statuses = futures_util::future::join_all(requests).await;
    assert_eq!(statuses, [None; 40]);
    assert!(directory.connections() <= 16, "{}", directory.connections());
}

#[tokio::test(start_paused = true)]
async fn a_silent_directory_times_out() {
    let directory = ScriptedDirectory::responding(|_, _| vec![]);
    let chain = chain_of(&config(json!({"timeout": 500})), &directory);
    assert_eq!(status(&chain, login("anna:secret")).await, Some(500));
    assert_eq!(directory.diagnostic().as_deref(), Some("no response within 500ms"));
}

#[tokio::test]
async fn hostile_directories_cause_no_panic() {
    let nested: Vec<u8> = [0x30, 0x84, 0, 0, 0xff, 0xff].into_iter().chain([0x30, 0x80].repeat(32_768)).collect();
    let cases: [(&str, Vec<u8>); 9] = [
        ("text", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("an empty message", vec![0x30, 0]),
        ("an indefinite length", vec![0x30, 0x80, 0, 0]),
        ("a huge length", vec![0x30, 0x84, 0xff, 0xff, 0xff, 0xff]),
        ("a length of 126 bytes", vec![0x30, 0xfe, 1, 1, 1, 1]),
        ("nested sequences", nested),
        ("another message id", vec![0x30, 12, 2, 1, 99, 0x61, 7, 10, 1, 0, 4, 0, 4, 0]),
        ("an entry for a bind", vec![0x30, 9, 2, 1, 1, 0x64, 4, 4, 0, 0x30, 0]),
        ("a notice of disconnection", vec![0x30, 12, 2, 1, 0, 0x78, 7, 10, 1, 52, 4, 0, 4, 0]),
    ];
    for (name, bytes) in cases {
        let directory = ScriptedDirectory::responding(move |_, _| {
            vec![DirectoryMessage::Bytes(bytes.clone()), DirectoryMessage::Close]
        });
        assert_eq!(status(&chain_of(&config(json!({})), &directory), login("anna:secret")).await, Some(500), "{name}");
    }
    let endless = ScriptedDirectory::responding(|_, request| match request.starts_with("search") {
        true => std::iter::repeat_with(|| DirectoryMessage::Reference).take(100).collect(),
        false => vec![result(0)],
    });
    let chain = chain_of(&searching(json!({})), &endless);
    assert_eq!(status(&chain, login("anna:secret")).await, Some(500));
    let message = endless.diagnostic().unwrap();
    assert_eq!(message, "ldap.example:389: it sent more than 32 messages for a search");
}

#[tokio::test]
async fn tls_starts_before_the_login() {
    let directory = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"start_tls": true, "verify_ldap_host": true})), &directory);
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    let requests = directory.requests();
    assert_eq!(requests[..4], ["connect", "start TLS", "TLS true", "bind uid=anna,ou=users,dc=x secret"]);
    let refusing = ScriptedDirectory::responding(|_, _| vec![result(2)]);
    let chain = chain_of(&config(json!({"start_tls": true})), &refusing);
    assert_eq!(status(&chain, login("anna:secret")).await, Some(500));
    assert_eq!(refusing.requests(), ["connect", "start TLS"], "no password is sent without TLS");
    let ldaps = ScriptedDirectory::responding(|_, _| vec![result(0)]);
    let chain = chain_of(&config(json!({"ldaps": true, "ldap_port": 636})), &ldaps);
    assert_eq!(status(&chain, login("anna:secret")).await, None);
    assert_eq!(ldaps.requests()[..2], ["connect with TLS false", "bind uid=anna,ou=users,dc=x secret"]);
}

// docs/kong-compatibility.md, 4.18
#[test]
fn invalid_configurations_are_rejected() {
    let cases = [
        (json!({"ldap_host": ""}), "config.ldap_host"),
        (json!({"ldap_port": 0}), "config.ldap_port"),
        (json!({"ldaps": true, "start_tls": true}), "config.start_tls"),
        (json!({"timeout": 0}), "config.timeout"),
        (json!({"base_dn": "people"}), "config.base_dn"),
        (json!({"base_dn": ""}), "config.base_dn"),
        (json!({"attribute": "a=b"}), "config.attribute"),
        (json!({"header_type": "a b"}), "config.header_type"),
        (json!({"realm": "\n"}), "config.realm"),
        (json!({"anonymous": ""}), "config.anonymous"),
        (json!({"bind_dn": "cn=a"}), "config.ldap_password"),
        (json!({"bind_dn": "cn=a", "ldap_password": ""}), "config.ldap_password"),
        (json!({"ldap_password": "a"}), "config.ldap_password"),
        (json!({"group_base_dn": "groups"}), "config.group_base_dn"),
        (json!({"group_name_attribute": ""}), "config.group_name_attribute"),
        (json!({"groups_required": ["a", " "]}), "config.groups_required[1]"),
        (json!({"consumer_by": ["id"]}), "config.consumer_by[0]"),
        (json!({"consumer_optional": true}), "config.consumer_optional"),
    ];
    for (fields, field) in cases {
        let invalid = build(&KIND, &config(fields.clone())).err().unwrap_or_else(|| panic!("{fields} was accepted"));
        assert_eq!(invalid.iter().map(|invalid| &*invalid.field).collect::<Vec<_>>(), [field], "{fields}");
        assert!(!invalid[0].message.is_empty() && !invalid[0].remedy.is_empty(), "{invalid:?}");
    }
}

#[test]
fn what_others_could_read_is_noted() {
    let fields =
        |fields| notes(&KIND, &config(fields)).into_iter().map(|note| note.field.to_string()).collect::<Vec<_>>();
    assert_eq!(fields(json!({})), ["config.ldaps"]);
    assert_eq!(fields(json!({"start_tls": true})), ["config.verify_ldap_host"]);
    assert_eq!(fields(json!({"ldaps": true, "verify_ldap_host": true})), ["config.ldap_port"]);
    assert!(fields(json!({"ldaps": true, "verify_ldap_host": true, "ldap_port": 636})).is_empty());
    assert_eq!(fields(json!({"start_tls": true, "verify_ldap_host": true, "timeout": 60_001})), ["config.timeout"]);
}
