//! Runs `examples/kong` as documented: manifests for Kong's ingress controller, a real Redis server, two replicas, and
//! curl. Runs in a network namespace, so that all ports are the documented ones.

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::harness::eventually;
use crate::harness::network::Network;
use crate::harness::program::{Program, normalize_environment, output, root};
use crate::harness::site::{Site, files_below};

// The expected results are those of Kong's documentation of the jwt, rate-limiting and cors plugins, and of redirects
// and upstream paths.
#[test]
fn kong_manifests_run_unchanged_on_two_replicas() {
    let Some(network) = Network::new() else { return };
    let text = fs::read_to_string(root().join("examples/kong/README.md")).unwrap();
    let site = Site::new();
    for (name, bytes) in files_below(&root().join("examples/kong")) {
        site.save_bytes(&format!("examples/kong/{name}"), &bytes);
    }
    make_certificate(&site, &text);

    let namespace_process =
        Program::start(network.command("sh", &["-c", "echo there && exec sleep infinity"].map(str::to_owned)));
    // Until it prints this line, the process may not be in its network namespace.
    namespace_process.wait_lines(1);
    let network_site = NetworkSite { network, process: namespace_process.id(), site: &site };
    let redis = network_site.redis();
    let first = network_site.portico("--echo 127.0.0.1:9000");
    let second = network_site.portico(
        "--ingress-http-listen 127.0.0.1:8001 --ingress-https-listen 127.0.0.1:8444 --status-listen 127.0.0.1:8200 \
         --admin-listen 127.0.0.1:8201",
    );
    let token_block = block_with(&text, "encode()");
    let commands = commands_in_table(&text);
    let [without_token, counted, with_regex, preflight, redirect] = commands.as_slice() else {
        panic!("{commands:#?}")
    };

    let response = network_site.run_line(token_block, without_token);
    assert_eq!(response.status, 401, "{response:?}");
    assert_eq!(response.body["message"], "Unauthorized", "{response:?}");

    let response = network_site.run_line(token_block, counted);
    assert_eq!((response.status, &response.body["path"]), (200, &Value::from("/7")), "{response:?}");
    assert_eq!(response.body["headers"]["host"][0], "api.company.com:8443", "{response:?}");
    assert_eq!(response.body["headers"]["x-consumer-username"][0], "mobile-app", "{response:?}");
    assert_eq!(response.field("x-ratelimit-limit-hour"), Some("1000"), "{response:?}");
    assert!(response.field("x-ratelimit-remaining-minute").is_some(), "{response:?}");
    assert_eq!(network_site.counted_requests(), 1);
    // The other replica continues the count.
    let response = network_site.run_line(&token_block.replace("8443", "8444"), &counted.replace("8443", "8444"));
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(network_site.counted_requests(), 2);

    let response = network_site.run_line(token_block, with_regex);
    assert_eq!((response.status, &response.body["path"]), (200, &Value::from("/v2/cart")), "{response:?}");

    let response = network_site.run_line(token_block, preflight);
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(response.field("access-control-allow-origin"), Some("https://shop.company.com"), "{response:?}");
    assert_eq!(response.field("access-control-allow-credentials"), Some("true"), "{response:?}");
    // Kong interprets `https://*.company.com` in the plugin as a regular expression, which would give the opposite
    // results.
    for (origin, is_allowed) in [("https://shop.company.com", true), ("https://xcompany.com", false)] {
        let response = network_site.run_line(token_block, &format!("{counted} -H 'Origin: {origin}'"));
        let has_header = response.field("access-control-allow-origin") == Some(origin);
        assert_eq!(has_header, is_allowed, "{origin}: {response:?}");
    }

    let response = network_site.run_line(token_block, redirect);
    assert_eq!(response.status, 308, "{response:?}");
    // As in Kong, without a port: the client has named none, so something maps the ports.
    assert_eq!(response.field("location"), Some("https://www.company.com/"), "{response:?}");

    // The token was issued in the future. Portico verifies `iat`, Kong cannot.
    let future_token = token_block.replace(r#""iat":%d,"exp":%d}' $now "#, r#""iat":%d,"exp":%d}' $((now + 300)) "#);
    assert_ne!(future_token, token_block);
    let response = network_site.run_line(&future_token, counted);
    assert_eq!(response.status, 401, "{response:?}");

    // Without Redis all requests are allowed and none is counted. Once it is back, counting starts again.
    drop(redis);
    let response = network_site.run_line(token_block, counted);
    assert_eq!((response.status, response.field("x-ratelimit-limit-hour")), (200, None), "{response:?}");
    let _redis = network_site.redis();
    eventually("requests are counted again", || {
        assert_eq!(network_site.run_line(token_block, counted).status, 200);
        (network_site.counted_requests() > 0).then_some(())
    });

    for program in [first, second] {
        program.stop().expect_success();
    }
}

/// A network namespace, and the working directory of the programs that run in it.
struct NetworkSite<'s> {
    network: Network,
    /// A process in the network namespace.
    process: u32,
    site: &'s Site,
}

/// A response printed by curl.
#[derive(Debug)]
struct CurlResponse {
    status: u16,
    head: String,
    body: Value,
}

impl CurlResponse {
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

impl NetworkSite<'_> {
    /// Starts Portico as documented, with additional flags.
    fn portico(&self, flags: &str) -> Program {
        let documented = "run --manifests examples/kong --ingress-class kong --log-format text";
        let words: Vec<&str> = documented.split(' ').chain(flags.split_whitespace()).collect();
        let program = Program::start(self.command(env!("CARGO_BIN_EXE_portico"), &words));
        program.wait_started();
        program
    }

    /// Starts an empty Redis server on the port in the manifests.
    fn redis(&self) -> Program {
        let words = ["--bind", "127.0.0.1", "--port", "6379", "--save", "", "--appendonly", "no"];
        let program = Program::start(self.command("redis-server", &words));
        eventually("redis-server responds", || (self.redis_cli(&["PING"]).trim() == "PONG").then_some(()));
        program
    }

    fn redis_cli(&self, arguments: &[&str]) -> String {
        String::from_utf8(output(self.command("redis-cli", arguments)).stdout).unwrap()
    }

    /// The sum of all hourly counters in Redis, which is correct even if an hour ends between two requests.
    fn counted_requests(&self) -> u64 {
        let keys = self.redis_cli(&["KEYS", "*:hour"]);
        keys.lines()
            .filter(|key| !key.is_empty())
            .map(|key| self.redis_cli(&["GET", key]).trim().parse::<u64>().unwrap())
            .sum()
    }

    /// Runs in one shell a block of commands, then a `curl` line that uses its variables.
    fn run_line(&self, block: &str, line: &str) -> CurlResponse {
        let script = format!("set -eu\n{block}\n{line} --silent --show-error --no-progress-meter");
        let output = output(self.command("bash", &["-c", &script]));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {stderr}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {text}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        CurlResponse { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.network.command_in(self.process, program, arguments);
        normalize_environment(&mut command);
        command.current_dir(self.site.path("."));
        command
    }
}

/// Creates the certificate as documented, and the Secret that `kubectl create secret tls` would print.
fn make_certificate(site: &Site, text: &str) {
    let block = block_with(text, "openssl req");
    let (openssl, kubectl) = block.split_once("\nkubectl ").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", openssl]).current_dir(site.path("."));
    let output = output(shell);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let secret_file = kubectl.rsplit("> ").next().unwrap().trim();
    let data = |name: &str| BASE64_STANDARD.encode(fs::read(site.path(name)).unwrap());
    let (certificate, key) = (data("tls.crt"), data("tls.key"));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: api-company-com\ntype: kubernetes.io/tls\ndata:\n  \
         tls.crt: {certificate}\n  tls.key: {key}\n"
    );
    site.save_bytes(secret_file, secret.as_bytes());
}

/// The block of shell commands that contains these words.
fn block_with<'t>(text: &'t str, words: &str) -> &'t str {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.into_iter().find(|block| block.contains(words)).unwrap_or_else(|| panic!("no block has {words:?}"))
}

/// The commands in the table, in order.
fn commands_in_table(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `curl "));
    rows.map(|row| format!("curl {}", row.split('`').next().unwrap_or_default())).collect()
}
