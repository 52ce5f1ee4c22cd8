//! The command line interface. Help texts are an interface: their exact text is in `tests/cli/`, and
//! `UPDATE=1 cargo test --workspace --test process cli::` rewrites it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[test]
fn help_texts_match() {
    let cases = [
        ("portico", "--help"),
        ("run", "run --help"),
        ("check", "check --help"),
        ("verify", "verify --help"),
        ("echo", "echo --help"),
        ("crds", "crds --help"),
        ("slo", "slo --help"),
        ("version", "version --help"),
        ("completion", "completion --help"),
    ];
    let mut differing = Vec::new();
    for (name, line) in cases {
        let output = portico(line);
        assert_eq!(exit_code(&output), 0, "portico {line}\n{}", stderr(&output));
        assert_eq!(stderr(&output), "", "portico {line}");
        let help = stdout(&output);
        let widest = help.lines().map(|line| line.chars().count()).max();
        assert!(widest <= Some(100), "portico {line} has a line of {widest:?} characters");
        assert!(help.contains("Examples:") || name == "version", "portico {line} shows no example");
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli").join(format!("{name}.txt"));
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &help).unwrap();
        } else if std::fs::read_to_string(&path).unwrap_or_default() != help {
            differing.push(format!("portico {line} prints:\n{help}"));
        }
    }
    assert!(
        differing.is_empty(),
        "{}\nIf the new output is right: UPDATE=1 cargo test --workspace --test process cli::",
        differing.join("\n")
    );
}

#[test]
fn short_help_equals_long_help() {
    for name in ["", "run", "check", "verify", "echo", "crds", "slo", "version", "completion"] {
        let long = stdout(&portico(&format!("{name} --help")));
        assert_eq!(stdout(&portico(&format!("{name} -h"))), long, "{name}");
        assert_eq!(stdout(&portico(&format!("help {name}"))), long, "{name}");
    }
}

#[test]
fn help_is_colored_only_on_request() {
    for (line, color) in [("--help", false), ("--color always run --help", true), ("run --help --color=always", true)] {
        // NO_COLOR is removed, so that these tests see the default for a pipe and the effect of the flag.
        let output = command(line).env_remove("NO_COLOR").output().unwrap();
        assert_eq!((exit_code(&output), stdout(&output).contains('\u{1b}')), (0, color), "portico {line}");
    }
    let output = command("--help").env("PORTICO_COLOR", "always").output().unwrap();
    assert!(stdout(&output).contains('\u{1b}'));
}

#[test]
fn version_is_one_line_or_json() {
    let output = portico("version");
    let expected = format!("portico {} (", env!("CARGO_PKG_VERSION"));
    assert!(exit_code(&output) == 0 && stdout(&output).starts_with(&expected), "{output:?}");
    assert_eq!(stdout(&output).lines().count(), 1);
    let json: serde_json::Value = serde_json::from_str(&stdout(&portico("version -o json"))).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(stdout(&portico("--version")), format!("portico {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn completion_scripts_contain_all_commands() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let output = portico(&format!("completion {shell}"));
        assert_eq!((exit_code(&output), stderr(&output)), (0, String::new()), "{shell}");
        for word in
            ["check", "completion", "crds", "echo", "run", "verify", "version", "drain-timeout", "gateway-address-pool"]
        {
            assert!(stdout(&output).contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn usage_errors_name_the_fix_and_exit_with_2() {
    let cases = [
        ("", "Usage: portico"),
        ("serve", "unrecognized subcommand 'serve'"),
        ("run", "no source of objects is given; give --manifests PATH"),
        ("run --manifest x", "a similar argument exists: '--manifests'"),
        ("run --kubernetes", "--kubernetes does not select a cluster outside of a Pod; give --kubeconfig"),
        (
            "run --kubeconfig /nowhere/config --status-listen 127.0.0.1:0 --admin-listen off",
            "--kubeconfig /nowhere/config: /nowhere/config cannot be read",
        ),
        ("run --manifests x --client-header-bytes 64kb", "'--client-header-bytes <SIZE>': not a size; write bytes or"),
        ("run --manifests x --client-header-timeout 0s", "a timeout must be longer than zero; write for example 10s"),
        ("run --manifests x --admin-listen 8101", "has no address; write 127.0.0.1:8101 for this machine only"),
        ("run --manifests x --gateway-address-pool 10.0.0.1/8", "write 10.0.0.0/8 for the network or 10.0.0.1 for"),
        (
            "run --manifests x --gateway-controller-name kong",
            "write a domain and a path with at most 253 characters, for example",
        ),
        ("run --manifests x --log-level inof", "`inof` is not a level; write error, warn, info, debug or trace"),
        ("run --manifests x --channel beta", "[possible values: standard, experimental]"),
        ("check", "<PATH>..."),
        ("slo HTTPRoute/a/b", "no objective is given; give --availability, --latency or both"),
        ("slo HTTPRoute/a/b --latency 300ms=99", "the histogram of durations has no such bound; use one of 1ms"),
        ("check -o yaml x", "[possible values: text, json]"),
        ("verify", "<PATH>..."),
        ("verify --dry-run --send-unsafe x", "the argument '--dry-run' cannot be used with '--send-unsafe'"),
        ("verify --connect-to 80=8080 x", "has no address; write 127.0.0.1:8080 for this machine only"),
        ("echo", "--listen <ADDR>"),
        ("completion tcsh", "[possible values: bash"),
    ];
    for (line, expected) in cases {
        let output = portico(line);
        assert_eq!((exit_code(&output), stdout(&output)), (2, String::new()), "portico {line}");
        assert!(stderr(&output).contains(expected), "portico {line}\n{}", stderr(&output));
    }
}

#[test]
fn environment_sets_flags_and_ignores_other_variables() {
    // Kubernetes sets the first three for a Service named portico.
    let output = command("version")
        .env("PORTICO_PORT", "tcp://10.0.0.1:80")
        .env("PORTICO_SERVICE_HOST", "10.0.0.1")
        .env("PORTICO_PORT_80_TCP_PORT", "80")
        .env("PORTICO_WHATEVER", "x")
        .env("PORTICO_OUTPUT", "json")
        .output()
        .unwrap();
    assert!(exit_code(&output) == 0 && stdout(&output).starts_with('{'), "{output:?}");
    // Charts and units set switches to `false`.
    let output = command("run").env("PORTICO_TRACE_ERRORS", "false").output().unwrap();
    assert!(stderr(&output).contains("no source of objects is given"), "{}", stderr(&output));
    let output = command("run --manifests x").env("PORTICO_TRACE_ERRORS", "true").output().unwrap();
    assert!(stderr(&output).contains("--trace-errors is given without"), "{}", stderr(&output));
    let output = command("run --manifests x").env("PORTICO_DRAIN_TIMEOUT", "soon").output().unwrap();
    assert_eq!(exit_code(&output), 2);
    let expected = "invalid value 'soon' for '--drain-timeout <DURATION>': not a duration; write numbers with units";
    assert!(stderr(&output).contains(expected), "{}", stderr(&output));
}

#[test]
fn unavailable_address_is_reported() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let output = portico(&format!("echo --listen {address}"));
    assert_eq!(exit_code(&output), 2);
    let expected = format!("error: --listen {address}: cannot listen: Address already in use");
    assert!(stderr(&output).contains(&expected), "{}", stderr(&output));
}

#[test]
fn echo_responds_and_stops_on_sigterm() {
    let mut child = command("echo --listen 127.0.0.1:0 --log-format json").stderr(Stdio::piped()).spawn().unwrap();
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    log.read_line(&mut line).unwrap();
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = event["message"].as_str().unwrap().strip_prefix("Echo listens on http://").unwrap().to_owned();
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.write_all(b"GET /hello?status=201 HTTP/1.1\r\nhost: a.example\r\nconnection: close\r\n\r\n").unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).unwrap();
    let (head, body) = response.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 201 "), "{head}");
    let body: serde_json::Value = serde_json::from_str(body).unwrap();
    assert_eq!((&body["path"], &body["host"]), (&"/hello".into(), &"a.example".into()));
    let kill = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert!(child.wait().unwrap().success());
}

/// `--manifests -` reads standard input, which may stay open without data.
#[test]
fn run_stops_while_waiting_for_standard_input() {
    let mut child = command("run --manifests - --status-listen off --admin-listen off")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    // SIGTERM (signal 15) is sent once the program has a handler: the default action would end it with another status.
    let handles_sigterm = || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
        let handled = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap();
        u64::from_str_radix(handled.trim(), 16).unwrap() & 1 << 14 != 0
    };
    while !handles_sigterm() {
        std::thread::yield_now();
    }
    let kill = Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// The program without Portico's variables in its environment.
fn command(line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_portico"));
    command.args(line.split_whitespace()).stdin(Stdio::null());
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("PORTICO_") {
            command.env_remove(name);
        }
    }
    // A fixed width, independent of the terminal that runs the tests.
    command.env("COLUMNS", "100").env("NO_COLOR", "1");
    command
}

fn portico(line: &str) -> Output {
    command(line).output().expect("the program is built before its tests")
}

fn exit_code(output: &Output) -> i32 {
    output.status.code().expect("the process was not ended by a signal")
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).expect("the output is UTF-8")
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).expect("the output is UTF-8")
}
