//! Log plugins with a real syslog server: what it understands of messages by TCP and UDP, also of those with hostile
//! values.

use std::fs;
use std::net::UdpSocket;
use std::process::Command;

use serde_json::{Value, json};

use crate::harness::client::Connection;
use crate::harness::eventually;
use crate::harness::objects::save_good_objects;
use crate::harness::ports::free_port;
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

/// Writes what it has parsed of each message as a line with a JSON object.
const RSYSLOG: &str = r#"
global(workDirectory="@folder@" maxMessageSize="64k")
module(load="imtcp")
module(load="imudp")
input(type="imtcp" address="@address@" port="@syslog@")
input(type="imudp" address="@address@" port="@syslog@")
template(name="parsed" type="list" option.jsonf="on") {
  property(outname="facility" name="syslogfacility-text" format="jsonf")
  property(outname="severity" name="syslogseverity-text" format="jsonf")
  property(outname="version" name="protocol-version" format="jsonf")
  property(outname="program" name="app-name" format="jsonf")
  property(outname="data" name="structured-data" format="jsonf")
  property(outname="input" name="inputname" format="jsonf")
  property(outname="message" name="msg" format="jsonf")
}
action(type="omfile" file="@folder@/received.json" template="parsed")
"#;

/// Of plugins, and of the routes with them.
const NAMES: [&str; 3] = ["by-tcp", "by-udp", "loggly"];

const PLUGINS: &str = "---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: by-tcp}
plugin: syslog
config: {host: @address@, port: PORT, protocol: tcp, facility: local3, client_errors_severity: warning}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: by-udp}
plugin: syslog
config: {host: @address@, port: PORT, protocol: udp, facility: daemon, client_errors_severity: err}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: loggly}
plugin: loggly
config: {host: @address@, port: PORT, key: a-token, tags: [shop, edge.1]}
";

const ROUTE: &str = "---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: NAME, annotations: {konghq.com/plugins: NAME}}
spec:
  parentRefs: [{name: good}]
  rules:
    - matches: [{path: {value: /NAME}}]
      backendRefs: [{name: echo, port: 80}]
";

fn start_rsyslog(site: &Site, port: u16) -> Program {
    let folder = site.path(".").canonicalize().unwrap();
    let config = RSYSLOG.replace("@folder@", folder.to_str().unwrap()).replace("@syslog@", &port.to_string());
    site.save("rsyslog.conf", &config);
    let mut rsyslog = Command::new("/usr/sbin/rsyslogd");
    rsyslog.arg("-n").arg("-f").arg(site.path("rsyslog.conf")).arg("-i").arg(site.path("rsyslog.pid"));
    let program = Program::start(rsyslog);
    eventually("rsyslog listens", || std::net::TcpStream::connect((site.address(), port)).ok());
    program
}

#[test]
fn rsyslog_understands_messages_with_hostile_values() {
    let site = Site::new();
    let port = free_port(site.address());
    let _rsyslog = start_rsyslog(&site, port);
    save_good_objects(&site);
    let routes: String = NAMES.iter().map(|name| ROUTE.replace("NAME", name)).collect();
    site.save("manifests/logged.yaml", &format!("{}{routes}", PLUGINS.replace("PORT", &port.to_string())));
    let portico = run(&site, &[]);
    portico.wait_started();
    // Quotes, brackets and backslashes end structured data, line feeds end messages, and not all bytes are text.
    let fields = b"user-agent: a\"]b\\\x80\xFF <13>1 - - forged - - [x@1 y=\"z\"]\r\n";
    let query = "a=%0a%3C13%3E1%20forged&b=%22%5D";
    let mut connection = Connection::open(&site.address_of("port")).unwrap();
    for name in NAMES {
        let line = format!("GET /{name}?{query} HTTP/1.1\r\nhost: a.example\r\n");
        let request = [line.as_bytes(), fields, b"\r\n"].concat();
        assert_eq!(connection.send(&request).unwrap().status, 200);
    }
    let messages = || -> Vec<Value> {
        let text = fs::read_to_string(site.path("received.json")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    };
    eventually("three messages", || (messages().len() >= 3).then_some(()));
    // Plugins send what they still have before the program ends. What a value forged would arrive before this mark.
    portico.stop().expect_success();
    UdpSocket::bind((site.address(), 0)).unwrap().send_to(b"<13>1 - - mark - - -", (site.address(), port)).unwrap();
    let is_mark = |message: &Value| message["program"] == "mark";
    let mut received = eventually("the mark", || Some(messages()).filter(|messages| messages.iter().any(is_mark)));
    received.retain(|message| !is_mark(message));
    assert_eq!(received.len(), 3, "nothing is forged: {received:#?}");
    let with = |name: &str, value: &str| received.iter().find(|message| message[name] == value).unwrap();
    for (name, message, input, data) in [
        ("by-tcp", with("facility", "local3"), "imtcp", "-"),
        ("by-udp", with("facility", "daemon"), "imudp", "-"),
        ("loggly", with("facility", "user"), "imudp", "[a-token@41058 tag=\"shop\" tag=\"edge.1\"]"),
    ] {
        let parsed = json!({
            "severity": message["severity"], "version": message["version"], "program": message["program"],
            "input": message["input"], "data": message["data"],
        });
        let expected = json!({"severity": "info", "version": "1", "program": "kong", "input": input, "data": data});
        assert_eq!(parsed, expected);
        let object: Value = serde_json::from_str(message["message"].as_str().unwrap().trim_start()).unwrap();
        let target = format!("/{name}?{query}");
        assert_eq!((&object["request"]["uri"], &object["response"]["status"]), (&json!(target), &json!(200)));
        let agent = object["request"]["headers"]["user-agent"].as_str().unwrap();
        assert!(agent.starts_with("a\"]b\\") && agent.ends_with("[x@1 y=\"z\"]"), "{agent}");
    }
}
