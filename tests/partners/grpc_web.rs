//! A client of gRPC-Web for browsers, `@protobuf-ts/grpcweb-transport`, and a `tonic` server behind the plugin.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{partner_file, start_portico};
use crate::grpc_servers::echo_server::EchoServer;
use crate::harness::program::{Program, node_packages};
use crate::harness::site::Site;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_for_browsers_calls_a_grpc_server() {
    let server = EchoServer::start("tonic").await;
    let site = Site::new();
    let file = json!({
        "_format_version": "3.0",
        "services": [{
            "name": "echo", "url": format!("grpc://127.0.0.1:{}", server.port),
            "routes": [{"name": "echo", "protocols": ["http"], "paths": ["/"], "plugins": [{"name": "grpc-web"}]}],
        }],
    });
    let program = start_portico(&site, &file.to_string(), &[]);
    let folder = node_packages("tests/partners/grpc_web");
    let mut command = Command::new(format!("{folder}/node"));
    command.arg(partner_file("grpc_web/client.mjs")).args([&folder, &format!("http://{}", site.address_of("http"))]);
    let client = Program::start({
        command.stdin(Stdio::null());
        command
    });
    for format in ["binary", "text"] {
        let lines = client.wait_lines(if format == "binary" { 1 } else { 2 });
        let result: Value = serde_json::from_str(lines.last().expect("there is a line")).unwrap();
        assert_eq!(result["format"], format);
        assert_eq!(result["unary"], json!({"message": "hello ✓", "server": "tonic", "label": "first"}), "{result}");
        assert_eq!(result["large"], 600_000, "{result}");
        assert_eq!(result["stream"], json!(["a", "b", "c"]), "{result}");
        // A message arrives before the call ends, and the client cancels it.
        assert_eq!(result["partial"], json!(["a"]), "{result}");
        for failed in ["failure", "stream_failure"] {
            let failure = &result[failed];
            assert_eq!(failure["code"], "FAILED_PRECONDITION", "{result}");
            assert_eq!(failure["message"], "not ready: 100% of ✓ are missing\n\"für immer\"", "{result}");
        }
        // Fields after a single response are none of those that this client shows with an error.
        assert_eq!(result["stream_failure"]["step"], "second", "{result}");
        assert_eq!(result["before_failure"], json!(["a"]), "{result}");
        assert_eq!(result["unknown"], "UNIMPLEMENTED", "{result}");
    }
    client.wait().expect_success();
    server.wait_for_open_calls(0).await;
    program.stop().expect_success();
    server.stop().await;
}
