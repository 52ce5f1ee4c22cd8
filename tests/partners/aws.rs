//! Functions and secrets of an emulator of AWS, `moto`, which verifies signatures and permissions.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Command;

use serde_json::{Value, json};

use super::{partner_file, python_packages, send, start_portico};
use crate::harness::eventually;
use crate::harness::ports::free_port;
use crate::harness::program::Program;
use crate::harness::site::Site;
use crate::redis::server::Authority;

/// How many requests of `aws_setup.py` are not authorized.
const SETUP_REQUESTS: &str = "9";

/// A running server with TLS.
struct Moto {
    port: u16,
    /// The user of `aws_setup.py`, and the role that only it may assume.
    key: String,
    secret: String,
    role: String,
    _process: Program,
    packages: PathBuf,
}

impl Moto {
    fn start(site: &Site) -> Moto {
        let authority = Authority::new();
        let (certificate, key) = authority.issue("127.0.0.1");
        for (name, text) in [("ca.pem", authority.pem()), ("cert.pem", certificate), ("key.pem", key)] {
            site.save_bytes(name, text.as_bytes());
        }
        let packages = python_packages("aws.txt");
        let port = free_port(Ipv4Addr::LOCALHOST);
        let python = |arguments: &[&str]| {
            let mut command = Command::new(packages.join("bin/python"));
            command.args(arguments).current_dir(site.path("."));
            command
        };
        let mut command = python(&["-m", "moto.server", "-H", "127.0.0.1", "-s", "-c", "cert.pem", "-k", "key.pem"]);
        command.args(["-p", &port.to_string()]).env("INITIAL_NO_AUTH_ACTION_COUNT", SETUP_REQUESTS);
        let process = Program::start(command);
        process.wait_stderr(|text| text.contains("Running on").then_some(()));
        let mut setup = python(&[]);
        let url = format!("https://127.0.0.1:{port}");
        let output = setup.arg(partner_file("aws_setup.py")).args([&url, "ca.pem"]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let made: Value = serde_json::from_slice(&output.stdout).unwrap();
        let text = |name: &str| made[name].as_str().expect("it is a text").to_owned();
        Moto { port, key: text("key"), secret: text("secret"), role: text("role"), _process: process, packages }
    }

    /// Lets functions return their events from now on. Otherwise the server runs them in containers of Docker, which
    /// this machine need not have; and without containers, it invokes functions that do not exist, too.
    fn run_functions_without_containers(&self, site: &Site) {
        let script = "import requests, sys\n\
                      settings = {'lambda': {'use_docker': False}}\n\
                      requests.post(sys.argv[1], json=settings, verify='ca.pem').raise_for_status()\n";
        let mut command = Command::new(self.packages.join("bin/python"));
        let url = format!("https://127.0.0.1:{}/moto-api/config", self.port);
        let output = command.args(["-c", script, &url]).current_dir(site.path(".")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

fn route(name: &str, plugin: &str, config: &Value) -> Value {
    json!({"name": name, "paths": [format!("/{name}")], "plugins": [{"name": plugin, "config": config}]})
}

// docs/kong-compatibility.md, 4.3
// docs/kong-compatibility.md, 1.9
#[test]
#[ignore = "only in make test-full: its packages have 310 MB"]
fn functions_and_secrets_of_aws_are_read_with_signed_requests() {
    let site = Site::new();
    let moto = Moto::start(&site);
    let url = format!("https://127.0.0.1:{}", moto.port);
    let lambda = |fields: &Value| {
        let mut config = json!({
            "host": "127.0.0.1", "port": moto.port, "aws_region": "eu-west-1", "aws_key": moto.key,
            "aws_secret": moto.secret, "function_name": "thumbnails", "preserve_lambda_api_error_code": true,
        });
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    let role = json!({"aws_assume_role_arn": moto.role, "aws_sts_endpoint_url": url});
    let with_role = |fields: &Value| {
        let mut config = lambda(&role);
        config.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        config
    };
    let secret = |reference: &str| json!({"status_code": 403, "message": reference});
    let endpoints = json!({"region": "eu-west-1", "endpoint_url": url, "sts_endpoint_url": url, "neg_ttl": 1});
    let mut of_role = endpoints.clone();
    of_role["assume_role_arn"] = moto.role.clone().into();
    let file = json!({
        "_format_version": "3.0",
        "vaults": [
            {"name": "aws", "prefix": "of-role", "config": of_role},
            {"name": "aws", "prefix": "of-user", "config": endpoints},
        ],
        "routes": [
            route("role", "aws-lambda", &with_role(&json!({"awsgateway_compatible": true}))),
            route("queued", "aws-lambda", &with_role(&json!({"invocation_type": "Event"}))),
            route("absent", "aws-lambda", &with_role(&json!({"function_name": "absent"}))),
            route("user", "aws-lambda", &lambda(&json!({}))),
            route("wrong", "aws-lambda", &lambda(&json!({"aws_secret": "wrong"}))),
            route("field", "request-termination", &secret("{vault://of-role/prod/db/user}")),
            route("whole", "request-termination", &secret("{vault://of-role/token}")),
            route("binary", "request-termination", &secret("{vault://of-role/binary}")),
            route("no-secret", "request-termination", &secret("{vault://of-role/no-secret}")),
            route("denied", "request-termination", &secret("{vault://of-user/token}")),
        ],
    });
    let authority = site.path("ca.pem");
    let variables = [
        ("SSL_CERT_FILE", authority.to_str().expect("the path is UTF-8")),
        ("AWS_ACCESS_KEY_ID", &*moto.key),
        ("AWS_SECRET_ACCESS_KEY", &*moto.secret),
    ];
    let program = start_portico(&site, &file.to_string(), &variables);
    let response = send(&site, "/absent", Some("{}"));
    assert_eq!(response.status, 404, "{response:?}");
    moto.run_functions_without_containers(&site);
    let response = send(&site, "/role?size=10", Some("{\"a\": 1}"));
    assert_eq!(response.status, 200, "{response:?}");
    let event = response.json();
    assert_eq!((&event["httpMethod"], &event["body"]), (&json!("POST"), &json!("eyJhIjogMX0=")), "{event}");
    assert_eq!(event["headers"]["host"], "portico.example", "{event}");
    assert_eq!(event["queryStringParameters"], json!({"size": "10"}), "{event}");
    for (path, expected) in [("/queued", 202), ("/user", 403), ("/wrong", 403)] {
        let response = send(&site, path, Some("{}"));
        assert_eq!(response.status, expected, "{path}: {response:?}");
    }
    for (name, expected) in [("field", "anna"), ("whole", "whole text"), ("binary", "in base64")] {
        eventually(&format!("{name} responds with its value"), || {
            let response = send(&site, &format!("/{name}"), None);
            (response.status == 403 && response.json()["message"] == expected).then_some(())
        });
    }
    for (name, expected) in [
        ("no-secret", "AWS Secrets Manager has no secret no-secret"),
        ("denied", "KongVault/of-user: AWS Secrets Manager has responded with 403"),
    ] {
        program.wait_stderr(|text| text.contains(expected).then_some(()));
        assert_eq!(send(&site, &format!("/{name}"), None).status, 503, "{name}");
    }
    let output = program.stop().expect_success();
    assert!(!output.stderr.contains(&moto.secret), "{}", output.stderr);
}
