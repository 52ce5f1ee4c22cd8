//! The rate at which Ingresses of the dialect nginx send responses: with the length of the body known and not, and with
//! the rate of the annotation and that of the ConfigMap.

use std::time::Duration;

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, get, ingress, rule, start};
use super::nginx_retries::{backend, service};
use crate::harness::site::Site;

const KILOBYTES: usize = 12;

#[test]
fn responses_are_sent_at_their_rate() {
    let body = "x".repeat(KILOBYTES * 1024);
    let length = body.len();
    let fixed = format!("HTTP/1.1 200 OK\r\ncontent-length: {length}\r\n\r\n{body}");
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{length:x}\r\n{body}\r\n0\r\n\r\n");
    for response in [fixed, chunked] {
        let site = Site::new();
        let prefix = PREFIX;
        let mut objects = CLASS.to_owned() + &config_map(", limit-rate: \"4\"") + &service(&[backend(response.leak())]);
        for (name, annotations) in [
            ("default", String::new()),
            ("after", format!("{prefix}limit-rate-after: \"4\"")),
            ("off", format!("{prefix}limit-rate: \"0\"")),
        ] {
            objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
        }
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start(&site, &WITH_CONFIG_MAP);
        // The bytes of the first second are sent at once.
        for (host, milliseconds) in [("default.example", 2000), ("after.example", 1000), ("off.example", 0)] {
            let began = tokio::time::Instant::now();
            let response = get(&address, host, "/", "");
            let elapsed = began.elapsed();
            assert_eq!((response.status, response.body.len()), (200, length), "{host}");
            assert!(elapsed >= Duration::from_millis(milliseconds).mul_f64(0.95), "{host}: {elapsed:?}");
        }
        program.stop().expect_success();
    }
}
