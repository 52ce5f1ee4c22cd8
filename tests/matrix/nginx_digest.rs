//! HTTP Digest authentication of Ingresses of the dialect nginx: with both forms of the Secret, with lists of
//! addresses, and without a Secret that can be used.

use portico::api::ingress_nginx::PREFIX;
use portico::md5::md5_digits;

use super::nginx_guards::{CLASS, echo, get, ingress, rule, start};
use crate::harness::client::ClientResponse;
use crate::harness::eventually;
use crate::harness::site::Site;

fn digits(text: &str) -> String {
    String::from_utf8(md5_digits(&[text.as_bytes()]).into()).unwrap()
}

fn secret(name: &str, key: &str, value: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{namespace: default, name: {name}}}\n\
         stringData: {{{key}: \"{value}\"}}\n---\n"
    )
}

/// The nonce of a challenge.
fn nonce(refused: &ClientResponse) -> &str {
    let challenge = refused.field("www-authenticate").unwrap();
    let start = "Digest realm=\"Shop\", qop=\"auth\", algorithm=MD5, nonce=\"";
    challenge.strip_prefix(start).unwrap().split('"').next().unwrap()
}

/// The login of a user for the path `/x`.
fn login(user: &str, hash: &str, nonce: &str) -> String {
    let response = digits(&format!("{hash}:{nonce}:00000001:c:auth:{}", digits("GET:/x")));
    format!(
        "authorization: Digest username=\"{user}\", realm=\"Shop\", nonce=\"{nonce}\", uri=\"/x\", qop=auth, \
         nc=00000001, cnonce=\"c\", response=\"{response}\"\r\n"
    )
}

#[test]
fn digests_admit_the_users_of_the_secret() {
    let site = Site::new();
    let prefix = PREFIX;
    let hash = digits("anna:Shop:secret");
    let annotations = |secret: &str, more: &str| {
        format!("{prefix}auth-type: digest, {prefix}auth-realm: Shop, {prefix}auth-secret: {secret}{more}")
    };
    let map = format!(", {prefix}auth-secret-type: auth-map");
    let denied = format!(", {prefix}allowlist-source-range: 192.0.2.1/32");
    let any = format!("{denied}, {prefix}satisfy: any");
    let mut objects = CLASS.to_owned()
        + &echo("default")
        + &secret("file", "auth", &format!("anna:Shop:{hash}"))
        + &secret("map", "anna", &format!("Shop:{hash}"))
        + &secret("other-realm", "auth", &format!("anna:Other:{hash}"));
    for (name, annotations) in [
        ("file", annotations("file", "")),
        ("map", annotations("map", &map)),
        ("realm", annotations("other-realm", "")),
        ("missing", annotations("late", "")),
        ("all", annotations("file", &denied)),
        ("any", annotations("file", &any)),
    ] {
        objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    let first = |host: &str| get(&address, host, "/x", "");
    for (host, expected) in [("file.example", 200), ("map.example", 200), ("any.example", 200), ("realm.example", 401)]
    {
        let refused = first(host);
        assert_eq!(refused.status, 401, "{host}");
        let response = get(&address, host, "/x", &login("anna", &hash, nonce(&refused)));
        assert_eq!(response.status, expected, "{host}: {}", response.body);
        if expected == 200 {
            assert_eq!(response.json()["headers"].get("authorization"), None, "{host}");
        }
        for (user, hash) in [("anna", &*digits("anna:Shop:wrong")), ("ben", &hash)] {
            assert_eq!(get(&address, host, "/x", &login(user, hash, nonce(&refused))).status, 401, "{host} {user}");
        }
    }
    // A nonce of this host, and one that Portico has not issued.
    let nonce_of_file = first("file.example");
    let forged = get(&address, "file.example", "/x", &login("anna", &hash, &"0".repeat(40)));
    assert_eq!(forged.status, 401);
    assert!(forged.field("www-authenticate").unwrap().ends_with(", stale=true"), "{}", forged.head);
    let other_path = get(&address, "file.example", "/y", &login("anna", &hash, nonce(&nonce_of_file)));
    assert_eq!(other_path.status, 401);
    assert_eq!(first("all.example").status, 403);
    assert_eq!(first("missing.example").status, 503);
    site.save("manifests/late.yaml", &secret("late", "auth", &format!("anna:Shop:{hash}")));
    eventually("the Secret", || (first("missing.example").status == 401).then_some(()));
    program.stop().expect_success();
}
