//! Tests of the configuration, and of the machine's own syslog.

use std::os::unix::net::UnixDatagram;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::Syslog;
use super::local_socket::LocalSocket;
use crate::log_delivery::DeliveryReports;
use crate::plugin_api::batch_queue::BatchSender;
use crate::plugin_api::kind::BuildNotes;
use crate::plugin_api::services::OfflineServices;
use crate::plugin_api::{BuildCx, PluginServices, PluginState, RegisteredKind};
use crate::plugin_chain::testing::build;

const KIND: RegisteredKind<Syslog> = RegisteredKind::NEW;

#[test]
fn fields_without_effect_are_rejected() {
    for (config, expected) in [
        (json!({}), None),
        (json!({"host": "logs.example"}), None),
        (json!({"host": "logs.example", "protocol": "tls", "port": 6514}), None),
        (json!({"port": 514}), Some("config.port")),
        (json!({"protocol": "tcp"}), Some("config.protocol")),
        (json!({"host": ""}), Some("config.host")),
        (json!({"host": "logs.example", "port": 0}), Some("config.port")),
        (json!({"facility": "local8"}), Some("config.facility")),
        (json!({"log_level": "fatal"}), Some("config.log_level")),
    ] {
        let field = build(&KIND, &config).err().map(|invalid| invalid[0].field.clone());
        assert_eq!(field.as_deref(), expected, "{config}");
    }
}

#[tokio::test]
async fn messages_to_the_own_machine_are_datagrams() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("log");
    let services: Arc<dyn PluginServices> = Arc::new(OfflineServices);
    let (state, notes) = (PluginState::default(), BuildNotes::default());
    let cx = BuildCx { object: "KongPlugin/a/b", state: &state, services: &services, node: "test", notes: &notes };
    let sender = LocalSocket::new(&path, DeliveryReports::new("host", &cx));
    let body = sender.encode(&[Bytes::from_static(b"<14>1 one"), Bytes::from_static(b"<14>1 two")]);
    assert!(!sender.send(body.clone()).await, "there is no socket");
    let receiver = UnixDatagram::bind(&path).unwrap();
    receiver.set_nonblocking(true).unwrap();
    assert!(sender.send(body).await);
    for expected in ["<14>1 one", "<14>1 two"] {
        let mut buffer = [0; 64];
        let length = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], expected.as_bytes());
    }
}
