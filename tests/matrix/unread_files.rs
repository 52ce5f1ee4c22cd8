//! Files with objects that protect requests, of which some part cannot be read: nothing is served that they may
//! protect.

use std::fs;
use std::os::unix::fs::symlink;

use crate::harness::client::Connection;
use crate::harness::eventually;
use crate::harness::objects::{GATEWAY, route};
use crate::harness::program::{Program, portico, run, run_arguments};
use crate::harness::site::Site;

const GUARD: &str = "apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata:
  name: guard
  labels: {global: \"true\"}
  annotations: {kubernetes.io/ingress.class: portico}
plugin: ip-restriction
config: {deny: [0.0.0.0/0]}
";

/// What the file with the guard has instead: an error in it or in another part.
fn broken_files() -> Vec<(&'static str, Vec<u8>)> {
    let deep = format!("{GUARD}x: {}{}\n", "[".repeat(200), "]".repeat(200));
    let utf16: Vec<u8> = [0xfeff].into_iter().chain(GUARD.encode_utf16()).flat_map(u16::to_le_bytes).collect();
    vec![
        ("a key is there twice", format!("{GUARD}plugin: cors\n").into_bytes()),
        ("a bracket is open", GUARD.replace("0/0]}", "0/0]").into_bytes()),
        ("another document is not valid", format!("{GUARD}---\na: b: c\n").into_bytes()),
        ("it is nested too deeply", deep.into_bytes()),
        ("an alias contains itself", format!("{GUARD}x: &x [*x]\n").into_bytes()),
        ("it is UTF-16", utf16),
        ("it is a list", format!("- {}", GUARD.trim_end().replace('\n', "\n  ")).into_bytes()),
        ("the kind is missing", GUARD.replace("kind: KongClusterPlugin\n", "").into_bytes()),
    ]
}

fn status(site: &Site) -> Option<u16> {
    let connection = Connection::open(&site.address_of("port")).ok();
    connection?.get("a.example", "/open").ok().map(|response| response.status)
}

/// The status and the text of `/readyz`.
fn readiness(site: &Site) -> Option<(u16, String)> {
    let response = Connection::open(&site.address_of("status")).ok()?.get("localhost", "/readyz").ok()?;
    Some((response.status, response.body))
}

fn site_with_open_route() -> Site {
    let site = Site::new();
    site.save("manifests/gateway.yaml", GATEWAY);
    site.save("manifests/open.yaml", &route("good", "open", "echo"));
    site
}

/// Nothing is served until the file is corrected, and the readiness names it.
fn check_start(site: &Site, program: &Program, what: &str, file: &str, correct: impl FnOnce()) {
    eventually(&format!("not ready if {what}\n{}", program.stderr()), || {
        readiness(site).filter(|(status, text)| *status == 503 && text.contains(file))
    });
    assert_eq!(status(site), None, "{what}");
    correct();
    let served = eventually(&format!("served after {what}\n{}", program.stderr()), || status(site));
    assert_eq!(served, 403, "{what}");
    eventually("ready", || readiness(site).filter(|(status, _)| *status == 200));
}

#[test]
fn nothing_is_served_before_all_files_can_be_read() {
    for (what, bytes) in broken_files() {
        let site = site_with_open_route();
        site.save_bytes("manifests/guard.yaml", &bytes);
        let program = run(&site, &[]);
        check_start(&site, &program, what, "manifests/guard.yaml", || site.save("manifests/guard.yaml", GUARD));
    }
    let site = site_with_open_route();
    symlink("nowhere.yaml", site.path("manifests/guard.yaml")).unwrap();
    let program = run(&site, &[]);
    check_start(&site, &program, "a link has no target", "manifests/guard.yaml", || {
        site.save("manifests/nowhere.yaml", GUARD);
    });
}

#[test]
fn nothing_is_served_before_the_file_of_kong_can_be_read() {
    let site = site_with_open_route();
    let file = "_format_version: \"3.0\"\nplugins: [{name: ip-restriction, config: {deny: [0.0.0.0/0]}}]\n";
    site.save("kong.yml", &file.replace("plugins:", "plugin:"));
    let mut command = portico(&site);
    command.args(run_arguments(&site)).args(["--kong-config", "kong.yml"]);
    let program = Program::start(command);
    check_start(&site, &program, "the file of Kong is not valid", "kong.yml", || site.save("kong.yml", file));
}

/// The objects of a file that is renamed may be those of another one that cannot be read.
#[test]
fn guards_stay_if_their_file_is_renamed_with_an_error() {
    let site = site_with_open_route();
    site.save("manifests/guard.yaml", GUARD);
    let program = run(&site, &[]);
    let expect = |expected: u16| {
        eventually(&format!("{expected}\n{}", program.stderr()), || status(&site).filter(|found| *found == expected));
    };
    expect(403);
    site.save("manifests/guard.yaml", &format!("{GUARD}plugin: cors\n"));
    fs::rename(site.path("manifests/guard.yaml"), site.path("manifests/renamed.yaml")).unwrap();
    program.wait_messages(|text| text.contains("stay in use until this file can be read")).unwrap();
    expect(403);
    assert_eq!(readiness(&site).map(|(status, _)| status), Some(200), "what it serves is known");
    site.remove("manifests/renamed.yaml");
    expect(200);
}

/// `render > file` truncates the file before it writes it.
#[test]
fn rejected_guards_stay_while_their_file_is_truncated() {
    let site = site_with_open_route();
    site.save("manifests/guard.yaml", &GUARD.replace("plugin:", "disabled: \"no\"\nplugin:"));
    let program = run(&site, &[]);
    let expect = |expected: u16| {
        eventually(&format!("{expected}\n{}", program.stderr()), || status(&site).filter(|found| *found == expected));
    };
    expect(503);
    site.save("manifests/guard.yaml", "");
    program.wait_messages(|text| text.contains("it may be about to be written")).unwrap();
    assert_eq!(status(&site), Some(503));
    site.save("manifests/guard.yaml", GUARD);
    expect(403);
}
