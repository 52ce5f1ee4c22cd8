//! Fields that an entity may leave out, because it does not need them or another entity has them.

use serde_json::json;

use super::{annotations, objects, rejections, with};

#[test]
fn public_clients_have_no_secret() {
    let consumer = |client_type: &str| {
        with(json!({"consumers": [{"username": "bob", "oauth2_credentials": [
            {"name": "app", "client_id": "app", "client_type": client_type,
                "redirect_uris": ["https://app.example/callback"]}]}]}))
    };
    let (objects, notes) = objects(consumer("public"));
    assert_eq!(notes, Vec::<String>::new());
    let data = &objects["Secret/bob-oauth2"]["stringData"];
    assert_eq!((&data["client_id"], data.get("client_secret")), (&json!("app"), None));
    let rejections = rejections(consumer("confidential"));
    let field = "consumers[0].oauth2_credentials[0].client_secret";
    assert!(rejections[0].starts_with(field), "{rejections:?}");
}

#[test]
fn services_present_the_certificate_of_their_upstream() {
    let (objects, notes) = objects(with(json!({
        "certificates": [{"id": "c1", "cert": "CERT", "key": "KEY"}, {"id": "c2", "cert": "CERT", "key": "KEY"}],
        "upstreams": [{"name": "web.up", "client_certificate": {"id": "c1"}, "use_srv_name": false,
            "targets": [{"target": "192.0.2.1:443"}]}],
        "services": [
            {"name": "without", "protocol": "https", "host": "web.up", "port": 443},
            {"name": "own", "protocol": "https", "host": "web.up", "port": 443, "client_certificate": {"id": "c2"}},
            {"name": "plain", "host": "web.up"},
            {"name": "elsewhere", "url": "https://other.example"},
        ],
    })));
    assert_eq!(notes, Vec::<String>::new());
    for (service, expected) in
        [("without", Some("client-cert=c1")), ("own", Some("client-cert=c2")), ("plain", None), ("elsewhere", None)]
    {
        let annotations = annotations(&objects[&format!("Service/{service}")]);
        let found = annotations.iter().map(String::as_str).find(|entry| entry.starts_with("client-cert="));
        assert_eq!(found, expected, "{service}");
    }
    let unknown = with(json!({"upstreams": [{"name": "web.up", "client_certificate": {"id": "c3"}}]}));
    let rejections = rejections(unknown);
    assert!(rejections[0].starts_with("upstreams[0].client_certificate"), "{rejections:?}");
}
