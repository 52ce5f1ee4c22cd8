//! Portico in place of ingress-nginx: the table of outcomes by hand, and generated Ingresses in comparison with nginx.

use std::net::SocketAddr;
use std::ops::Range;

use super::directives::{self, DirectiveCase};
use super::model::CLASS_YAML;
use super::{Differential, Subject, client, expectations, snippet_generator};
use crate::harness::program::{Program, run};
use crate::harness::site::Site;

/// Portico with the objects of one file.
pub(crate) struct Served {
    site: Site,
    address: SocketAddr,
    _program: Program,
}

impl Served {
    fn start() -> Served {
        Served::start_with("", &[])
    }

    /// With objects that exist from the start, as YAML documents that begin with `---`, and with further arguments.
    pub(crate) fn start_with(objects: &str, more: &[&str]) -> Served {
        let site = Site::new();
        site.save_bytes("manifests/all.yaml", (CLASS_YAML.to_owned() + objects).as_bytes());
        let address = site.address_of("other");
        let own = ["--access-log", "off", "--ingress-http-listen", &address, "--ingress-https-listen", "off"];
        let program = run(&site, &[&own[..], more].concat());
        program.wait_started();
        Served { address: address.parse().unwrap(), site, _program: program }
    }

    /// nginx and the backends, next to the program.
    pub(crate) fn differential(&self) -> Differential {
        let folder = self.site.path("nginx");
        std::fs::create_dir(&folder).unwrap();
        let address = self.site.address_of("http").parse().unwrap();
        Differential::new(&folder, address).unwrap()
    }
}

impl Subject for Served {
    fn address(&self) -> SocketAddr {
        self.address
    }

    fn load(&mut self, yaml: &str) -> Result<(), String> {
        self.site.save_bytes("manifests/all.yaml", yaml.as_bytes());
        Ok(())
    }
}

/// How many sets of Ingresses are generated. `make differential` sets more.
fn sets() -> u64 {
    std::env::var("DIFFERENTIAL_SETS").map_or(60, |sets| sets.parse().unwrap())
}

/// The sets that are served at once.
fn batches(sets: u64) -> impl Iterator<Item = Range<u64>> {
    const BATCH: u64 = 60;
    (0..sets.div_ceil(BATCH)).map(move |batch| batch * BATCH..(batch * BATCH + BATCH).min(sets))
}

#[test]
fn outcomes_are_those_that_are_specified() {
    let mut served = Served::start();
    let mut differential = served.differential();
    let ingresses: Vec<_> = expectations::cases().into_iter().flat_map(|case| case.ingresses).collect();
    differential.load(&mut served, &ingresses).unwrap();
    let differences = expectations::differences(|request| client::send(served.address, request));
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn generated_ingresses_are_served_as_by_nginx() {
    let mut served = Served::start();
    let mut differential = served.differential();
    let mut reports = Vec::new();
    for seeds in batches(sets()) {
        let report = differential.run(&mut served, seeds, 60).unwrap();
        reports.extend((!report.is_same()).then(|| report.to_string()));
    }
    assert!(reports.is_empty(), "{}", reports.join("\n"));
}

#[test]
fn generated_rules_for_all_hosts_are_served_as_by_nginx() {
    let mut served = Served::start();
    let mut differential = served.differential();
    let report = differential.run_for_all_hosts(&mut served, 0..sets() / 10, 60).unwrap();
    assert!(report.is_same(), "{report}");
}

#[test]
fn generated_snippets_act_as_in_nginx() {
    let mut served = directives::start();
    let mut differential = served.differential();
    let mut differences = Vec::new();
    for seeds in batches(sets()) {
        let cases: Vec<DirectiveCase> = seeds.map(snippet_generator::case).collect();
        differences.extend(directives::differences(&mut served, &mut differential, &cases));
    }
    assert!(differences.is_empty(), "{} differences\n{}", differences.len(), differences.join("\n"));
}
