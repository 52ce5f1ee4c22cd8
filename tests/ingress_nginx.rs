//! Compares Portico with nginx for generated Ingresses of ingress-nginx.
//!
//! ```text
//!   seed ──generator──▶ Ingresses ──┬─ model: YAML ──────────────▶ Portico ──┐
//!                          │        └─ locations, nginx_conf ────▶ nginx ────┼─▶ echo
//!                          └──requests──▶ client: the same requests to both ─┘
//!                                            └──outcomes──▶ compare: report
//! ```
//!
//! The test of a specification, not of the original: `locations` and `nginx_conf` follow the specification, and nginx
//! decides what its own rules are, such as normalization, the order of locations, and rewrites.
//!
//! A report names the seed of each case: `run(subject, SEED..SEED + 1, requests)` repeats it.
//!
//! `directives` compares single Ingresses whose snippets and annotations become directives of nginx: those of tables,
//! and those of `snippet_generator`.

mod access_cases;
pub(crate) mod annotations;
mod auth_server_cases;
pub(crate) mod cases;
mod charts;
pub(crate) mod client;
pub(crate) mod compare;
mod directives;
pub(crate) mod echo;
pub(crate) mod expectations;
mod gateway_api;
pub(crate) mod generator;
mod limits;
pub(crate) mod locations;
mod migration;
pub(crate) mod model;
pub(crate) mod nginx;
pub(crate) mod nginx_conf;
pub(crate) mod random;
pub(crate) mod requests;
mod response_cases;
mod response_rewrite_cases;
mod rewrite_cases;
mod served;
mod server_cases;
mod snippet_generator;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;

use compare::Report;
use echo::Echo;
use locations::{Reading, host_tables};
use model::{CLASS_YAML, IngressSet, PathType, TestIngress, TestPath, Tls};
use nginx::Nginx;
use nginx_conf::NginxLines;
use requests::Request;

use crate::harness::eventually;

/// The program that is compared with nginx.
pub(crate) trait Subject {
    /// Address of its HTTP listener.
    fn address(&self) -> SocketAddr;

    /// Makes it serve these objects, and no others, soon. [`Differential`] waits until it does.
    fn load(&mut self, yaml: &str) -> Result<(), String>;
}

/// What a test has in addition to Ingresses.
#[derive(Default)]
pub(crate) struct Additions {
    /// Objects for the program, as YAML documents that begin with `---`.
    pub(crate) objects: String,
    /// For nginx, by host.
    pub(crate) lines: BTreeMap<String, NginxLines>,
}

/// nginx and the backends of a comparison.
pub(crate) struct Differential {
    nginx: Nginx,
    echo: Echo,
    pub(crate) reading: Reading,
    /// Leaves out the path type of some paths. The original serves them, but the API server does not store them.
    pub(crate) omits_path_types: bool,
    loads: usize,
}

impl Differential {
    /// nginx writes below the folder, which must exist. The backends listen on the same IP address.
    pub(crate) fn new(folder: &Path, nginx: SocketAddr) -> Result<Differential, String> {
        let echo = Echo::start(nginx.ip()).map_err(|error| format!("the backends cannot listen: {error}"))?;
        let (nginx, reading) = (Nginx::new(folder, nginx), Reading::Specification);
        Ok(Differential { nginx, echo, reading, omits_path_types: false, loads: 0 })
    }

    /// Compares the sets of the seeds, all served at once, with this number of requests for each.
    pub(crate) fn run(
        &mut self,
        subject: &mut dyn Subject,
        seeds: Range<u64>,
        requests: usize,
    ) -> Result<Report, String> {
        let sets: Vec<IngressSet> = seeds.map(generator::set).collect();
        let mut report = Report::default();
        self.compare(subject, sets, requests, &mut report)?;
        Ok(report)
    }

    /// Compares sets with rules for all hosts, one after the other.
    pub(crate) fn run_for_all_hosts(
        &mut self,
        subject: &mut dyn Subject,
        seeds: Range<u64>,
        requests: usize,
    ) -> Result<Report, String> {
        let mut report = Report::default();
        for seed in seeds {
            self.compare(subject, vec![generator::set_for_all_hosts(seed)], requests, &mut report)?;
        }
        Ok(report)
    }

    fn compare(
        &mut self,
        subject: &mut dyn Subject,
        mut sets: Vec<IngressSet>,
        requests: usize,
        report: &mut Report,
    ) -> Result<(), String> {
        let mut ingresses = Vec::new();
        for set in &mut sets {
            for path in set.ingresses.iter_mut().flat_map(|ingress| &mut ingress.paths) {
                if !self.omits_path_types {
                    path.path_type.get_or_insert(PathType::ImplementationSpecific);
                }
            }
            ingresses.extend(set.ingresses.iter().cloned());
        }
        self.load(subject, &ingresses)?;
        for set in &sets {
            for request in requests::requests(set, requests) {
                let nginx = client::send(self.nginx.address(), &request);
                let portico = client::send(subject.address(), &request);
                report.add(set, &request, &nginx, &portico);
            }
        }
        Ok(())
    }

    /// Makes both serve the Ingresses, and waits until they do.
    pub(crate) fn load(&mut self, subject: &mut dyn Subject, ingresses: &[TestIngress]) -> Result<(), String> {
        self.load_with(subject, ingresses, &Additions::default())
    }

    /// Like [`Differential::load`], with further objects and lines.
    pub(crate) fn load_with(
        &mut self,
        subject: &mut dyn Subject,
        ingresses: &[TestIngress],
        additions: &Additions,
    ) -> Result<(), String> {
        self.loads += 1;
        let marker = marker(self.loads);
        let mut all = ingresses.to_vec();
        all.push(marker.clone());
        self.nginx.load(&self.configuration(&all, additions))?;
        let mut yaml = CLASS_YAML.to_owned() + &self.echo.to_yaml() + &additions.objects;
        for ingress in &all {
            write!(yaml, "{}", ingress.to_yaml()).expect("a string accepts all text");
        }
        subject.load(&yaml)?;
        let service = Some(format!("{}/{}", marker.namespace, echo::MARKER));
        let host = marker.host.expect("the marker has a host");
        let request = Request { method: "GET", host, target: MARKER_PATH.to_owned() };
        eventually("the program serves the objects", || {
            (client::send(subject.address(), &request).service == service).then_some(())
        });
        Ok(())
    }

    /// The configuration of nginx for these Ingresses.
    fn configuration(&self, ingresses: &[TestIngress], additions: &Additions) -> String {
        let tables = host_tables(ingresses, self.reading);
        let (services, address) = (self.echo.services(), self.nginx.address());
        nginx_conf::configuration(&tables, services, address, self.nginx.folder(), &additions.lines)
    }

    /// Address of nginx.
    pub(crate) fn nginx_address(&self) -> SocketAddr {
        self.nginx.address()
    }

    /// Writes a file that lines of nginx name.
    pub(crate) fn write_for_nginx(&self, name: &str, text: &str) -> Result<(), String> {
        let file = self.nginx.folder().join(name);
        std::fs::write(&file, text).map_err(|error| format!("{}: {error}", file.display()))
    }

    /// Address of the backend of a Service. The name follows the namespace and a slash.
    pub(crate) fn service_address(&self, service: &str) -> SocketAddr {
        let found = self.echo.services().iter().find(|(known, _)| known == service);
        found.map(|(_, address)| *address).expect("the Service has a backend")
    }
}

/// An Ingress of one load only, with a Service of its own, which shows that the objects of this load are served.
fn marker(load: usize) -> TestIngress {
    TestIngress {
        namespace: echo::NAMESPACES[0].to_owned(),
        name: format!("marker-{load}"),
        created: 0,
        host: Some(format!("load{load}.marker.example")),
        tls: Tls::None,
        annotations: Vec::new(),
        paths: vec![TestPath {
            path: MARKER_PATH.to_owned(),
            path_type: Some(PathType::Exact),
            backend: echo::MARKER.to_owned(),
        }],
        default_backend: None,
    }
}

const MARKER_PATH: &str = "/marker";
