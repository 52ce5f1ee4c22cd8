//! `examples/kong` as its text tells it: manifests of Kong's ingress controller, the class taken over, with a real Redis
//! server, two replicas, and curl. In a network of its own, so that every port is the one that the text names.

#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod harness;

use std::fs;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use harness::eventually;
use harness::network::Network;
use harness::program::{Program, clean, output, root};
use harness::site::{Site, files_below};

// kong-compat §4.25, §4.8, §4.16, §2.2, §3.5
#[test]
fn kongs_manifests_run_as_they_are_on_two_replicas_with_redis() {
    let Some(network) = Network::new() else { return };
    let text = fs::read_to_string(root().join("examples/kong/README.md")).unwrap();
    let site = Site::new();
    for (name, bytes) in files_below(&root().join("examples/kong")) {
        site.save_bytes(&format!("examples/kong/{name}"), &bytes);
    }
    make_certificate(&site, &text);

    let holder = Program::start(network.command("sh", &["-c", "echo there && exec sleep infinity"].map(str::to_owned)));
    // Before that, it is still in the network that everybody has.
    holder.wait_lines(1);
    let place = Place { network, process: holder.id(), site: &site };
    let redis = place.redis();
    let one = place.portico("--echo 127.0.0.1:9000");
    let two = place.portico(
        "--ingress-http-listen 127.0.0.1:8001 --ingress-https-listen 127.0.0.1:8444 --status-listen 127.0.0.1:8200 \
         --admin-listen 127.0.0.1:8201",
    );
    let token = block_with(&text, "encode()");
    let tries = tries(&text);
    let [no_token, counted, regex, preflight, redirect] = tries.as_slice() else { panic!("{tries:#?}") };

    let answer = place.ask(token, no_token);
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(answer.body["message"], "Unauthorized", "{answer:?}");

    let answer = place.ask(token, counted);
    assert_eq!((answer.status, &answer.body["path"]), (200, &Value::from("/7")), "{answer:?}");
    assert_eq!(answer.body["headers"]["host"][0], "api.company.com:8443", "{answer:?}");
    assert_eq!(answer.body["headers"]["x-consumer-username"][0], "mobile-app", "{answer:?}");
    assert_eq!(answer.field("x-ratelimit-limit-hour"), Some("1000"), "{answer:?}");
    assert!(answer.field("x-ratelimit-remaining-minute").is_some(), "{answer:?}");
    assert_eq!(place.counted(), 1);
    // The other replica goes on counting where this one was.
    let answer = place.ask(&token.replace("8443", "8444"), &counted.replace("8443", "8444"));
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(place.counted(), 2);

    let answer = place.ask(token, regex);
    assert_eq!((answer.status, &answer.body["path"]), (200, &Value::from("/v2/cart")), "{answer:?}");

    let answer = place.ask(token, preflight);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.field("access-control-allow-origin"), Some("https://shop.company.com"), "{answer:?}");
    assert_eq!(answer.field("access-control-allow-credentials"), Some("true"), "{answer:?}");
    // Kong's reading of the origin lets these two in the other way round.
    for (origin, admitted) in [("https://shop.company.com", true), ("https://xcompany.com", false)] {
        let answer = place.ask(token, &format!("{counted} -H 'Origin: {origin}'"));
        let allowed = answer.field("access-control-allow-origin") == Some(origin);
        assert_eq!(allowed, admitted, "{origin}: {answer:?}");
    }

    let answer = place.ask(token, redirect);
    assert_eq!(answer.status, 308, "{answer:?}");
    assert_eq!(answer.field("location"), Some("https://www.company.com:8443/"), "{answer:?}");

    // A token from the future: Kong refuses to verify `iat`, here it is verified.
    let later = token.replace(r#""iat":%d,"exp":%d}' $now "#, r#""iat":%d,"exp":%d}' $((now + 300)) "#);
    assert_ne!(later, token);
    let answer = place.ask(&later, counted);
    assert_eq!(answer.status, 401, "{answer:?}");

    // Without the server everybody is let through, and nobody counts. When it is back, counting begins again.
    drop(redis);
    let answer = place.ask(token, counted);
    assert_eq!((answer.status, answer.field("x-ratelimit-limit-hour")), (200, None), "{answer:?}");
    let _redis = place.redis();
    eventually("requests are counted again", || {
        assert_eq!(place.ask(token, counted).status, 200);
        (place.counted() > 0).then_some(())
    });

    for program in [one, two] {
        program.stop().expect_fine();
    }
}

/// The network, the folder, and what runs there.
struct Place<'s> {
    network: Network,
    /// Whose network it is.
    process: u32,
    site: &'s Site,
}

/// What curl printed.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: Value,
}

impl Answer {
    fn field(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().filter_map(|line| line.split_once(':'));
        fields.filter(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

impl Place<'_> {
    /// As the text starts it, with more flags.
    fn portico(&self, flags: &str) -> Program {
        let usual = "run --manifests examples/kong --ingress-class kong --log-format text";
        let words: Vec<&str> = usual.split(' ').chain(flags.split_whitespace()).collect();
        let program = Program::start(self.command(env!("CARGO_BIN_EXE_portico"), &words));
        program.wait_started();
        program
    }

    /// A Redis server at the port that the manifests name, empty.
    fn redis(&self) -> Program {
        let words = ["--bind", "127.0.0.1", "--port", "6379", "--save", "", "--appendonly", "no"];
        let program = Program::start(self.command("redis-server", &words));
        eventually("redis-server answers", || (self.redis_cli(&["PING"]).trim() == "PONG").then_some(()));
        program
    }

    fn redis_cli(&self, arguments: &[&str]) -> String {
        String::from_utf8(output(self.command("redis-cli", arguments)).stdout).unwrap()
    }

    /// How many requests the counters of hours hold together: also right where one hour ends between two requests.
    fn counted(&self) -> u64 {
        let keys = self.redis_cli(&["KEYS", "*:hour"]);
        keys.lines()
            .filter(|key| !key.is_empty())
            .map(|key| self.redis_cli(&["GET", key]).trim().parse::<u64>().unwrap())
            .sum()
    }

    /// Runs a line of the text in a shell that has run the block which it needs.
    fn ask(&self, block: &str, line: &str) -> Answer {
        let script = format!("set -eu\n{block}\n{line} --silent --show-error --no-progress-meter");
        let output = output(self.command("bash", &["-c", &script]));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{line}: {said}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{line}: {text}"));
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap();
        Answer { status, head: head.to_owned(), body: serde_json::from_str(body).unwrap_or_default() }
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = self.network.beside(self.process, program, arguments);
        clean(&mut command);
        command.current_dir(self.site.path("."));
        command
    }
}

/// The certificate as the text has it made, and its Secret as `kubectl create secret tls` prints it.
fn make_certificate(site: &Site, text: &str) {
    let block = block_with(text, "openssl req");
    let (openssl, kubectl) = block.split_once("\nkubectl ").unwrap();
    let mut shell = Command::new("bash");
    shell.args(["-c", openssl]).current_dir(site.path("."));
    let made = output(shell);
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let file = kubectl.rsplit("> ").next().unwrap().trim();
    let data = |name: &str| BASE64_STANDARD.encode(fs::read(site.path(name)).unwrap());
    let (certificate, key) = (data("tls.crt"), data("tls.key"));
    let secret = format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: api-company-com\ntype: kubernetes.io/tls\ndata:\n  \
         tls.crt: {certificate}\n  tls.key: {key}\n"
    );
    site.save_bytes(file, secret.as_bytes());
}

/// The block of shell commands that contains these words.
fn block_with<'t>(text: &'t str, words: &str) -> &'t str {
    let blocks = text.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.into_iter().find(|block| block.contains(words)).unwrap_or_else(|| panic!("no block has {words:?}"))
}

/// What the table says can be tried, in its order.
fn tries(text: &str) -> Vec<String> {
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `curl "));
    rows.map(|row| format!("curl {}", row.split('`').next().unwrap_or_default())).collect()
}
