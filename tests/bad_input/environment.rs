//! Problems outside of the files: missing folders, ports in use, missing permissions. Expected output is in folders, as
//! for other cases.

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use super::{Transcript, check, save_good};
use crate::harness::client;
use crate::harness::golden::{self, Golden};
use crate::harness::network::Network;
use crate::harness::objects::{gateway, route};
use crate::harness::program::{Program, normalize_environment, run, run_arguments};
use crate::harness::site::Site;

/// Folders with expected output but without input files.
pub(super) const NAMES: &[&str] =
    &["empty-folder", "folder-vanishes", "no-such-path", "not-readable", "port-in-use", "port-not-permitted"];

#[test]
fn port_in_use_is_reported_and_bound_once_free() {
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    let mut transcript = Transcript::new("port-in-use", &site, run(&site, &[]));
    transcript.skip_start();
    let listener = TcpListener::bind((site.next_address(), site.port("other"))).unwrap();
    site.save("manifests/taken.yaml", &routed_gateway("taken", "@other@"));
    transcript.step("A Gateway is added whose port is in use");
    drop(listener);
    transcript.step("The port becomes free without an edit");
    let address = format!("{}:{}", site.next_address(), site.port("other"));
    assert_eq!(client::get(&address, "/taken").status, 200);
    transcript.end();
    golden::expect_none(&transcript.compare().err().into_iter().collect::<Vec<_>>(), "bad_input");
}

#[test]
fn forbidden_port_is_reported_with_a_remedy() {
    let Some(network) = Network::new() else { return };
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    // `setpriv` drops the capability with which root may bind ports below 1024.
    let mut arguments: Vec<String> =
        ["--inh-caps=-all", "--bounding-set=-all", env!("CARGO_BIN_EXE_portico")].map(str::to_owned).into();
    arguments.extend(run_arguments(&site));
    let mut command = network.command("setpriv", &arguments);
    normalize_environment(&mut command);
    command.current_dir(site.path("."));
    let mut transcript = Transcript::new("port-not-permitted", &site, Program::start(command));
    transcript.network = Some(network);
    transcript.skip_start();
    site.save("manifests/low.yaml", &routed_gateway("low", "80"));
    transcript.step("A Gateway with a port below 1024 is added");
    site.save("manifests/low.yaml", &routed_gateway("low", "8888"));
    transcript.step("Its port is changed");
    transcript.end();
    golden::expect_none(&transcript.compare().err().into_iter().collect::<Vec<_>>(), "bad_input");
}

#[test]
fn empty_folder_is_reported_and_watched() {
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    fs::create_dir(site.path("empty")).unwrap();
    let check_difference = check(&site, "empty-folder", &["manifests", "empty"]);
    let mut transcript = Transcript::new("empty-folder", &site, run(&site, &["--manifests", "empty"]));
    transcript.step("One of two folders is empty");
    site.save("empty/late.yaml", &route("good", "late", "echo"));
    transcript.step("A file is added");
    assert_eq!(client::get(&site.address_of("port"), "/late").status, 200);
    transcript.end();
    golden::expect_none(
        &check_difference.into_iter().chain(transcript.compare().err()).collect::<Vec<_>>(),
        "bad_input",
    );
}

#[test]
fn moved_folder_stays_served_and_is_watched_again() {
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    let mut transcript = Transcript::new("folder-vanishes", &site, run(&site, &[]));
    transcript.skip_start();
    fs::rename(site.path("manifests"), site.path("aside")).unwrap();
    transcript.step("The folder is moved away");
    fs::rename(site.path("aside"), site.path("manifests")).unwrap();
    transcript.step("The folder is moved back");
    site.save("manifests/late.yaml", &route("good", "late", "echo"));
    transcript.step("A file is added to it");
    assert_eq!(client::get(&site.address_of("port"), "/late").status, 200);
    transcript.end();
    golden::expect_none(&transcript.compare().err().into_iter().collect::<Vec<_>>(), "bad_input");
}

#[test]
fn missing_path_is_reported() {
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    let difference = check(&site, "no-such-path", &["manifests", "nowhere/late.yaml"]);
    golden::expect_none(&difference.into_iter().collect::<Vec<_>>(), "bad_input");
}

#[test]
fn unreadable_file_is_reported() {
    let site = Site::new();
    save_good(&site, &BTreeMap::new());
    site.save("manifests/closed.yaml", &route("good", "closed", "echo"));
    fs::set_permissions(site.path("manifests/closed.yaml"), fs::Permissions::from_mode(0o000)).unwrap();
    // `setpriv` drops the capability with which root may read every file.
    let mut command = Command::new("setpriv");
    command.args(["--inh-caps=-all", "--bounding-set=-all", env!("CARGO_BIN_EXE_portico"), "check", "manifests"]);
    normalize_environment(&mut command);
    command.current_dir(site.path("."));
    let output = command.output().unwrap();
    let text = format!("{}{}\n", String::from_utf8_lossy(&output.stdout), output.status);
    let difference = Golden::new("bad_input/not-readable/check.txt").compare(&site.normalize(&text)).err();
    golden::expect_none(&difference.into_iter().collect::<Vec<_>>(), "bad_input");
}

/// A Gateway and a route of the same name that is attached to it.
fn routed_gateway(name: &str, port: &str) -> String {
    format!("{}---\n{}", gateway(name, port), route(name, name, "echo"))
}
