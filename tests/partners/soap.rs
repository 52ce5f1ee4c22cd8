//! The plugin `soap` in front of a SOAP server, `spyne`, and a SOAP client, `zeep`, without the plugin.

use std::net::Ipv4Addr;
use std::process::Command;

use serde_json::{Value, json};

use super::{partner_file, python_packages, send, start_portico};
use crate::harness::ports::free_port;
use crate::harness::program::Program;
use crate::harness::site::Site;

#[test]
fn json_clients_and_soap_clients_call_the_same_server() {
    let packages = python_packages("soap.txt");
    let python = |script: &str, arguments: &[&str]| {
        let mut command = Command::new(packages.join("bin/python"));
        command.arg(partner_file(script)).args(arguments);
        command
    };
    let port = free_port(Ipv4Addr::LOCALHOST).to_string();
    let server = Program::start(python("soap_server.py", &[&port]));
    server.wait_lines(1);
    let site = Site::new();
    let route = |name: &str, config: Option<Value>| {
        let plugins: Vec<Value> = config.into_iter().map(|config| json!({"name": "soap", "config": config})).collect();
        json!({"name": name, "paths": [format!("/{name}")], "plugins": plugins})
    };
    let get_item = |version: &str| json!({"operation": "GetItem", "namespace": "urn:shop", "action": "GetItem", "version": version});
    let list_items = json!({
        "action": "ListItems", "lists": ["Item"],
        "template": "<ListItems xmlns=\"urn:shop\"><names>{{/first}}</names>\
                     <names>$(query_params.second)</names></ListItems>",
    });
    let service = |version: &str, routes: &[Value]| json!({"name": format!("shop{version}"), "url": format!("http://127.0.0.1:{port}/{version}"), "routes": routes});
    let file = json!({
        "_format_version": "3.0",
        "services": [
            service("11", &[route("plain11", None), route("get11", Some(get_item("1.1"))), route("list", Some(list_items))]),
            service("12", &[route("plain12", None), route("get12", Some(get_item("1.2")))]),
        ],
    });
    let program = start_portico(&site, &file.to_string(), &[]);
    for version in ["11", "12"] {
        // The client reads the server's own description, and calls it directly and through the gateway.
        let direct = format!("http://127.0.0.1:{port}/{version}");
        let through = format!("http://{}/plain{version}", site.address_of("http"));
        let [expected, found] = [&direct, &through].map(|address| {
            let output = python("soap_client.py", &[&direct, address]).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            String::from_utf8(output.stdout).unwrap()
        });
        assert_eq!(found, expected);
        let calls: Vec<Value> = expected.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(calls.len(), 5, "{expected}");

        let call = |name: &str| {
            let response = send(&site, &format!("/get{version}"), Some(&json!({"name": name}).to_string()));
            (response.status, response.json())
        };
        assert_eq!(call("pear"), (200, json!({"GetItemResult": calls[0]})));
        assert_eq!(call("a <b> & ü"), (200, json!({"GetItemResult": calls[1]})));
        for (name, index, status) in [("missing", 2, 400), ("broken", 3, 502)] {
            let (found, problem) = call(name);
            assert_eq!((found, &problem["detail"]), (status, &calls[index]["fault"]), "{problem}");
        }
    }
    let response = send(&site, "/list?second=a%26b", Some(r#"{"first": "<x>"}"#));
    let items = json!([{"name": "<x>", "price": "2"}, {"name": "a&b", "price": "2"}]);
    assert_eq!((response.status, response.json()), (200, json!({"ListItemsResult": {"Item": items}})));
    let response = send(&site, "/list", Some(r#"{"first": "<x>"}"#));
    assert_eq!(response.status, 400, "the template needs a parameter: {response:?}");
    program.stop().expect_success();
}
