//! What is hashed of requests.

use std::sync::Arc;

use http::HeaderName;
use http::header::{COOKIE, HeaderValue};
use proptest::prelude::*;

use super::*;
use crate::plugin_api::VerifiedSubject;
use crate::plugin_api::consumers::EntityId;
use crate::upstream::settings::{SameSite, SetCookie};

/// A request, with defaults for what a test does not set.
#[derive(Clone)]
struct TestRequest {
    headers: Vec<(&'static str, String)>,
    client: &'static str,
    host: &'static str,
    path: &'static str,
    query: Option<&'static str>,
    credential: Option<&'static str>,
}

const REQUEST: TestRequest = TestRequest {
    headers: Vec::new(),
    client: "192.0.2.7",
    host: "shop.example",
    path: "/cart/42",
    query: None,
    credential: None,
};

/// The group `id`, as if the path expression of the route were `/cart/(?<id>.*)`.
struct CartCaptures(&'static str);

impl UriCaptures for CartCaptures {
    fn group(&self, _number: usize) -> Option<&str> {
        None
    }

    fn named_group(&self, name: &str) -> Option<&str> {
        self.0.strip_prefix("/cart/").filter(|_| name == "id")
    }

    fn named_groups(&self) -> Vec<(&str, &str)> {
        self.named_group("id").map(|text| ("id", text)).into_iter().collect()
    }
}

impl TestRequest {
    fn with_header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }

    fn hash(&self, settings: &RequestHash, generated: Option<&mut CookieValues>) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for (name, value) in &self.headers {
            headers.append(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let subject = |id| Some(VerifiedSubject::of_credential(&EntityId::from_text(id)));
        let subjects = self.credential.map(subject).into_iter().collect::<Vec<_>>().into();
        let identity = Identity { subjects, ..Identity::default() };
        let inputs = HashInputs {
            headers: &headers,
            client: self.client.parse().unwrap(),
            host: &RequestHost::parse(HeaderValue::from_static(self.host)).unwrap(),
            path: self.path,
            query: self.query,
            target: "/cart/../cart/42?a=1",
            captures: CartCaptures(self.path),
            identity: Some(&identity),
        };
        inputs.hash(settings, generated)
    }
}

fn header(name: &'static str) -> HashSource {
    HashSource::Header(HeaderName::from_static(name))
}

fn cookie() -> HashSource {
    HashSource::Cookie(SetCookie::new("c", "/", None, SameSite::Lax))
}

fn settings(combine: CombineKeys, sources: &[HashSource]) -> RequestHash {
    let keys = sources.iter().map(|source| HashKey { source: source.clone(), regex: None }).collect();
    RequestHash { keys, combine, bounded_load_percent: None, subset_size: None }
}

fn first(sources: &[HashSource]) -> RequestHash {
    settings(CombineKeys::First, sources)
}

fn with_regex(source: HashSource, regex: &str) -> RequestHash {
    let keys = [HashKey { source, regex: Some(Regex::new(regex).unwrap()) }].into();
    RequestHash { keys, combine: CombineKeys::First, bounded_load_percent: None, subset_size: None }
}

/// Other replicas and versions must compute the same hash, which is that of the text.
fn hash_of(text: &[u8]) -> Option<u64> {
    Some(xxh64(text, 0))
}

#[test]
fn hash_is_that_of_the_value() {
    assert_eq!(xxh64(b"abc", 0), 0x44bc_2cf5_ad77_0999, "a value of the reference implementation");
    let request = REQUEST
        .with_header("x-user", "ann")
        .with_header("x-user", "bob")
        .with_header("cookie", "a=1; c=\"two\"; c=three");
    let request = TestRequest { query: Some("a=1&user%31=%20x&user1=y"), credential: Some("key-1"), ..request };
    for (source, expected) in [
        (header("x-user"), &b"ann"[..]),
        (header("host"), b"shop.example"),
        (cookie(), b"two"),
        (HashSource::ClientIp { ipv6_prefix: 64 }, &[192, 0, 2, 7]),
        (HashSource::Query("user1".into()), b"%20x"),
        (HashSource::Path, b"/cart/42"),
        (HashSource::UriCapture("id".into()), b"42"),
        (HashSource::Consumer, b"key-1"),
        (HashSource::Host, b"shop.example"),
    ] {
        assert_eq!(request.hash(&first(std::slice::from_ref(&source)), None), hash_of(expected), "{source:?}");
    }
}

#[test]
fn all_values_of_a_parameter_have_one_hash() {
    for (query, expected) in [
        ("user=a%41", Some("aA")),
        ("user", Some("true")),
        ("user=", None),
        ("other=1", None),
        ("user=b&x=1&user=a&user=c", Some("a,b,c")),
        ("user=s&user&user=1&user=", Some(",1,s,true")),
    ] {
        let request = TestRequest { query: Some(query), ..REQUEST };
        let hash = request.hash(&first(&[HashSource::QueryValues("user".into())]), None);
        assert_eq!(hash, expected.and_then(|text| hash_of(text.as_bytes())), "{query}");
    }
}

#[test]
fn absent_and_empty_values_have_no_hash() {
    let request = REQUEST.with_header("x-user", "").with_header("cookie", "c=; other=1");
    let request = TestRequest { query: Some("user=&user=2"), client: "0.0.0.0", path: "/cart/", ..request };
    for source in [
        header("x-user"),
        header("x-other"),
        cookie(),
        HashSource::ClientIp { ipv6_prefix: 64 },
        HashSource::Query("user".into()),
        HashSource::Query("other".into()),
        HashSource::UriCapture("id".into()),
        HashSource::UriCapture("other".into()),
        HashSource::Consumer,
    ] {
        for combine in [CombineKeys::First, CombineKeys::All] {
            assert_eq!(request.hash(&settings(combine, std::slice::from_ref(&source)), None), None, "{source:?}");
        }
    }
}

#[test]
fn names_of_hosts_are_compared_without_case_and_port() {
    let lower = REQUEST.hash(&first(&[HashSource::Host]), None);
    for host in ["SHOP.example", "shop.example:8080", "Shop.Example.:80"] {
        assert_eq!(TestRequest { host, ..REQUEST }.hash(&first(&[HashSource::Host]), None), lower, "{host}");
    }
}

#[test]
fn clients_of_one_ipv6_prefix_have_one_hash() {
    let hash = |client, ipv6_prefix| {
        TestRequest { client, ..REQUEST }.hash(&first(&[HashSource::ClientIp { ipv6_prefix }]), None)
    };
    assert_eq!(hash("2001:db8::1", 64), hash("2001:db8::ffff:0:0:2", 64));
    assert_ne!(hash("2001:db8::1", 64), hash("2001:db8:0:1::1", 64));
    assert_ne!(hash("2001:db8::1", 128), hash("2001:db8::2", 128));
    assert_eq!(hash("2001:db8::1", 0), hash("fd00::2", 0), "all of them");
    assert_ne!(hash("192.0.2.1", 0), hash("192.0.2.2", 0), "the prefix is that of IPv6");
    assert_eq!(hash("2001:db8::1", 255), hash("2001:db8::1", 128), "a longer prefix is the address");
}

#[test]
fn first_key_that_the_request_has_counts() {
    let keys = first(&[header("x-user"), HashSource::Query("user".into()), HashSource::Path]);
    assert_eq!(REQUEST.hash(&keys, None), hash_of(b"/cart/42"));
    let with_query = TestRequest { query: Some("user=q"), ..REQUEST };
    assert_eq!(with_query.hash(&keys, None), hash_of(b"q"));
    assert_eq!(with_query.with_header("x-user", "h").hash(&keys, None), hash_of(b"h"));
}

#[test]
fn all_keys_together_do_not_collide() {
    let keys = settings(CombineKeys::All, &[header("a"), header("b")]);
    let hash = |a: Option<&str>, b: Option<&str>| {
        let request = a.into_iter().fold(REQUEST, |request, value| request.with_header("a", value));
        b.into_iter().fold(request, |request, value| request.with_header("b", value)).hash(&keys, None)
    };
    let hashes = [
        hash(Some("x"), Some("yz")),
        hash(Some("xy"), Some("z")),
        hash(Some("xyz"), None),
        hash(None, Some("xyz")),
        hash(Some("yz"), Some("x")),
    ];
    for (index, one) in hashes.iter().enumerate() {
        assert!(one.is_some() && !hashes[..index].contains(one), "{hashes:?}");
    }
    assert_eq!(hash(None, None), None);
}

#[test]
fn expressions_select_a_part_of_the_value() {
    let request = REQUEST.with_header("x-user", "tenant=blue; user=ann");
    for (regex, expected) in [
        ("user=([a-z]+)", Some(&b"ann"[..])),
        ("tenant=([a-z]+); user=([a-z]+)", Some(b"blue")),
        ("user=[a-z]+", Some(b"user=ann")),
        ("user=([0-9]+)", None),
        // The group takes no part in the match, or matches nothing.
        ("user|(nothing)", None),
        ("user=([0-9]*)", None),
    ] {
        let expected = expected.and_then(hash_of);
        assert_eq!(request.hash(&with_regex(header("x-user"), regex), None), expected, "{regex}");
    }
    let upper = TestRequest { host: "SHOP.example", ..REQUEST };
    assert_eq!(upper.hash(&with_regex(HashSource::Host, "^[a-z]+"), None), hash_of(b"shop"));
}

#[test]
fn long_values_are_hashed_but_not_matched() {
    let long = "a".repeat(MAX_REGEX_INPUT + 1);
    let request = REQUEST.with_header("x-user", &long);
    assert_eq!(request.hash(&first(&[header("x-user")]), None), hash_of(long.as_bytes()));
    assert_eq!(request.hash(&with_regex(header("x-user"), "a+"), None), None);
    let shorter = REQUEST.with_header("x-user", &long[1..]);
    assert_eq!(shorter.hash(&with_regex(header("x-user"), "a+"), None), hash_of(&long.as_bytes()[1..]));
}

#[test]
fn cookies_are_generated_only_if_their_key_is_reached() {
    fastrand::seed(1);
    let generate = |request: &TestRequest, settings: &RequestHash| {
        let mut generated = CookieValues::new();
        let hash = request.hash(settings, Some(&mut generated));
        (hash, generated)
    };
    let keys = first(&[header("x-user"), cookie(), HashSource::Path]);
    let (hash, generated) = generate(&REQUEST, &keys);
    let [(1, value)] = generated.as_slice() else { panic!("{generated:?}") };
    assert_eq!(hash, hash_of(format!("{value:032x}").as_bytes()));
    let returning = REQUEST.with_header("cookie", &format!("c={value:032x}"));
    assert_eq!(generate(&returning, &keys), (hash, CookieValues::new()), "the client's next request");
    let with_header = REQUEST.with_header("x-user", "ann");
    assert_eq!(generate(&with_header, &keys), (hash_of(b"ann"), CookieValues::new()));
    assert_eq!(REQUEST.hash(&keys, None), hash_of(b"/cart/42"), "a mirror sets no cookie");
    let (_, another) = generate(&REQUEST, &keys);
    assert_ne!(generated, another, "each client has its own");
    let (_, together) = generate(&with_header, &settings(CombineKeys::All, &[header("x-user"), cookie()]));
    assert_eq!(together.len(), 1);
    let (hash, of_application) = generate(&REQUEST, &with_regex(cookie(), "user=(.*)"));
    assert_eq!((hash, of_application.len()), (None, 0), "a cookie of the application is not replaced");
}

#[test]
fn text_is_hashed_with_its_parts_one_after_the_other() {
    let text = |sources: &[HashSource]| settings(CombineKeys::Text, sources);
    let request = REQUEST.with_header("cookie", "a=1; session=abc");
    let literal = |text: &str| HashSource::Literal(text.into());
    for (sources, expected) in [
        (&[HashSource::Target][..], "/cart/../cart/42?a=1"),
        (&[header("x-user"), literal("-"), HashSource::CookieValue("session".into())], "-abc"),
        (&[HashSource::Host, HashSource::Path, HashSource::QueryText], "shop.example/cart/42"),
        (&[header("x-user")], ""),
        (&[cookie()], ""),
    ] {
        let mut generated = CookieValues::new();
        assert_eq!(request.hash(&text(sources), None), hash_of(expected.as_bytes()), "{sources:?}");
        let with_cookies = request.hash(&text(sources), Some(&mut generated));
        assert_eq!(generated.is_empty(), sources != [cookie()], "{sources:?}");
        assert!(with_cookies.is_some());
    }
}

proptest! {
    /// Whatever a client sends.
    #[test]
    fn hostile_requests_are_hashed(
        bytes in proptest::collection::vec(1_u8.., 0..300), query in ".{0,100}", regex in "[a-z(|)*?]{0,12}",
    ) {
        let sources = [
            header("x-user"),
            cookie(),
            HashSource::Query("a".into()),
            HashSource::UriCapture("id".into()),
            HashSource::ClientIp { ipv6_prefix: 64 },
        ];
        let Ok(value) = HeaderValue::from_bytes(&bytes) else { return Ok(()) };
        let headers: HeaderMap =
            [(HeaderName::from_static("x-user"), value.clone()), (COOKIE, value)].into_iter().collect();
        let host = RequestHost::parse(HeaderValue::from_static("a")).unwrap();
        let regex = Regex::new(&regex).ok();
        let keys: Box<[_]> =
            sources.into_iter().map(|source| HashKey { source, regex: regex.clone() }).collect();
        for combine in [CombineKeys::First, CombineKeys::All, CombineKeys::Text] {
            let settings = RequestHash { keys: keys.clone(), combine, bounded_load_percent: None, subset_size: None };
            let settings = Arc::new(settings);
            let inputs = HashInputs {
                headers: &headers,
                client: "2001:db8::1".parse().unwrap(),
                host: &host,
                path: "/cart/é",
                query: Some(&query),
                target: "/cart/é",
                captures: CartCaptures("/cart/é"),
                identity: None,
            };
            let hash = inputs.hash(&settings, None);
            prop_assert_eq!(hash, inputs.hash(&settings, None));
            prop_assert!(hash.is_some() || regex.is_some(), "the client has an address");
        }
    }
}
