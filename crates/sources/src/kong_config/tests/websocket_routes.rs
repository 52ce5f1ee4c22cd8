//! Routes of `ws` and `wss`, which Kong serves with a license.

use serde_json::json;

use super::{annotations, objects, rejections, with};

#[test]
fn routes_of_websockets_need_the_upgrade() {
    for (protocols, expected) in [
        (json!(["ws"]), &["protocols=http", "headers.Upgrade=websocket"][..]),
        (json!(["wss"]), &["protocols=https", "headers.Upgrade=websocket"]),
        (json!(["wss", "ws"]), &["headers.Upgrade=websocket"]),
        (json!(["http", "ws"]), &["protocols=http"]),
        (json!(["http", "https"]), &[]),
    ] {
        let route = json!({"name": "r", "paths": ["/chat"], "protocols": protocols});
        let service = json!({"name": "s", "url": "ws://s.example", "routes": [route]});
        let (objects, notes) = objects(with(json!({"services": [service]})));
        assert_eq!(notes, Vec::<String>::new(), "{protocols}");
        let mut annotations = annotations(&objects["Ingress/r"]);
        annotations.retain(|entry| entry.starts_with("protocols=") || entry.starts_with("headers."));
        assert_eq!(annotations, expected, "{protocols}");
    }
    let without_conditions = json!({"services": [{"name": "s", "url": "ws://s.example",
        "routes": [{"name": "r", "protocols": ["ws"]}]}]});
    let rejections = rejections(with(without_conditions));
    assert!(rejections[0].starts_with("services[0].routes[0]: the route has no condition"), "{rejections:?}");
}
