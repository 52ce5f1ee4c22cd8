//! The load balancing that Ingresses of the dialect nginx set, for two that use the same Service: each has its own.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, get, ingress, rule, start};
use crate::harness::site::Site;

/// Starts a backend whose responses have its port as body, until the test ends.
fn backend() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for mut socket in listener.incoming().flatten() {
            thread::spawn(move || {
                let mut lines = BufReader::new(socket.try_clone().unwrap()).lines();
                while let Some(Ok(line)) = lines.next() {
                    let text = port.to_string();
                    let response = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{text}", text.len());
                    if line.is_empty() && socket.write_all(response.as_bytes()).is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

/// The Service `echo` with these backends.
fn service(ports: &[u16]) -> String {
    let slices = ports.iter().map(|port| {
        format!(
            "apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{namespace: default, name: echo-{port}, labels: {{kubernetes.io/service-name: echo}}}}
addressType: IPv4
ports: [{{port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
---
"
        )
    });
    let service =
        "apiVersion: v1\nkind: Service\nmetadata: {namespace: default, name: echo}\nspec: {ports: [{port: 80}]}\n---\n";
    slices.fold(service.to_owned(), |objects, slice| objects + &slice)
}

#[test]
fn ingresses_of_one_service_have_their_own_load_balancing() {
    let ports: Vec<u16> = (0..6).map(|_| backend()).collect();
    let site = Site::new();
    let mut objects = CLASS.to_owned() + &service(&ports);
    let prefix = PREFIX;
    let subset = format!(
        "{prefix}upstream-hash-by: \"$host\", {prefix}upstream-hash-by-subset: \"true\", \
         {prefix}upstream-hash-by-subset-size: \"2\""
    );
    for (name, annotations) in [
        ("plain", String::new()),
        ("uri", format!("{prefix}upstream-hash-by: \"$request_uri\"")),
        ("field", format!("{prefix}upstream-hash-by: \"${{http_x_user}}\"")),
        ("subset", subset),
        ("unknown", format!("{prefix}upstream-hash-by: \"$geoip2_asn\"")),
    ] {
        objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
    }
    site.save("manifests/all.yaml", &objects);
    let (program, address) = start(&site, &[]);
    let backends = |host: &str, path: &str, fields: &str| -> BTreeSet<String> {
        (0..24).map(|_| get(&address, host, path, fields).body).collect()
    };
    assert!(backends("plain.example", "/", "").len() > 1);
    assert!(backends("unknown.example", "/", "").len() > 1);
    let by_path = (0..12).map(|number| backends("uri.example", &format!("/?page={number}"), ""));
    let by_path: Vec<_> = by_path.collect();
    assert!(by_path.iter().all(|chosen| chosen.len() == 1), "{by_path:?}");
    assert!(by_path.iter().flatten().collect::<BTreeSet<_>>().len() > 1, "{by_path:?}");
    for user in ["x-user: anna\r\n", "x-user: ben\r\n", ""] {
        let chosen = [backends("field.example", "/a", user), backends("field.example", "/b", user)];
        assert!(chosen[0].len() == 1 && chosen[0] == chosen[1], "{user}: {chosen:?}");
    }
    assert_eq!(backends("subset.example", "/", "").len(), 2);
    let messages = program.stop().expect_success().messages().to_owned();
    let expected = "reads `$geoip2_asn`, which is not a variable that is supported";
    assert!(messages.contains(expected), "{messages}");
}
