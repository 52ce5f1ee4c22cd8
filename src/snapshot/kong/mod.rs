//! Routes in Kong's order: those of Ingress, found by host and path without looking at all of them.
//!
//! ```text
//!   Route ──split by path, ranked──▶ entries ──▶ Router ─ find ─▶ Matched: rule, and by which path
//!                                                                  └ Rule.kong: Manner   how the request goes on
//! ```
//!
//! Kong does not ask the most specific host first: conditions are counted, over all hosts, and only then lengths are
//! compared. So there is one list of entries for all hosts, sorted by rank, and an index that gives positions in it.

mod index;
mod manner;
mod pattern;
mod rank;
mod route;
mod upstream_path;
mod uri_template;

use std::sync::Arc;

use self::index::{Hosts, Place};
pub use self::manner::{HttpsRedirect, Manner, ToHost};
pub use self::pattern::{Captures, PathRegex, TextRegex};
pub use self::rank::Flavor;
use self::rank::Rank;
pub use self::route::{Header, HeaderText, Host, HostName, Path, Route, Source, normalize};
pub use self::upstream_path::upstream_path;
pub use self::uri_template::{TemplateError, UriTemplate};
use super::redirect::Scheme;
use super::router::{Matched, MatchedPath, Names, Parameters, Question};

/// The routes of a listener.
#[derive(Debug)]
pub struct Router {
    /// In the order in which they are asked.
    entries: Box<[Entry]>,
    hosts: Hosts,
    parameters: Names,
}

/// A route by one of its paths.
#[derive(Clone, Debug)]
pub struct Entry {
    pub route: Arc<Route>,
    /// Which of the route's paths; none if it has no paths.
    path: Option<usize>,
    /// Which of its hosts, if they rank apart.
    host: Option<usize>,
}

impl Router {
    pub fn build(flavor: Flavor, routes: impl IntoIterator<Item: Into<Arc<Route>>>) -> Self {
        let mut ranked: Vec<(Rank, Entry)> = Vec::new();
        for route in routes {
            let route: Arc<Route> = route.into();
            let hosts = match (flavor, route.source) {
                (Flavor::TraditionalCompatible, _) | (_, Source::Ingress) => 0,
                (Flavor::Expressions, Source::HttpRoute | Source::GrpcRoute) => route.hosts.len(),
            };
            for host in each(hosts) {
                for path in each(route.paths.len()) {
                    let entry = Entry { route: Arc::clone(&route), path, host };
                    let rank = match flavor {
                        Flavor::TraditionalCompatible => rank::traditional_compatible(&route, entry.path()),
                        Flavor::Expressions => rank::expressions(&route, entry.path(), host),
                    };
                    ranked.push((rank, entry));
                }
            }
        }
        ranked.sort_by(|(rank, entry), (other_rank, other)| {
            other_rank.cmp(rank).then_with(|| entry.order().cmp(&other.order()))
        });
        let entries: Box<[Entry]> = ranked.into_iter().map(|(_, entry)| entry).collect();
        let position = |at| u32::try_from(at).expect("fewer than 2^32 routes fit in memory");
        let hosts = Hosts::build(entries.iter().enumerate().map(|(at, entry)| Place {
            position: position(at),
            hosts: entry.hosts(),
            path: entry.path(),
        }));
        let parameters = Names::of(entries.iter().flat_map(|entry| &entry.route.query));
        Router { entries, hosts, parameters }
    }

    /// The first entry that fits. The host is in lower case and without port.
    pub fn find(&self, host: &str, question: &Question<'_>) -> Option<Matched<'_>> {
        let parameters = Parameters::new(&self.parameters, question.query);
        let admits = |position: u32| self.entries[position as usize].admits(host, question, &parameters);
        let entry = &self.entries[self.hosts.find(host, question.path, admits)? as usize];
        Some(Matched { rule: &entry.route.rule, path: MatchedPath::Kong(entry.path()) })
    }

    /// All entries in the order in which they are asked.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }
}

impl Entry {
    pub fn path(&self) -> Option<&Path> {
        self.route.paths.get(self.path?)
    }

    /// None means any.
    pub fn hosts(&self) -> &[Host] {
        match self.host {
            Some(at) => self.route.hosts.get(at..=at).unwrap_or_default(),
            None => &self.route.hosts,
        }
    }

    /// Who is asked first of equal ranks: the older, then by name, then as they stand in their object.
    fn order(&self) -> impl Ord + use<'_> {
        (&self.route.age, self.host, self.path)
    }

    /// Everything but the path and the name of the host.
    fn admits(&self, host: &str, question: &Question<'_>, parameters: &Parameters<'_>) -> bool {
        let Route { methods, headers, query, server_names, .. } = &*self.route;
        (methods.is_empty() || methods.contains(question.method))
            && (server_names.is_empty() || is_greeted(server_names, question))
            && self.takes_port(host, question)
            && headers.iter().all(|header| header.fits(question.headers))
            && query.iter().all(|parameter| parameter.admits(parameters))
    }

    fn takes_port(&self, name: &str, question: &Question<'_>) -> bool {
        let hosts = self.hosts();
        let takes = |host: &Host| match host.port {
            None => host.name.fits(name),
            Some(port) => port == question.port() && host.name.fits(name),
        };
        hosts.iter().all(|host| host.port.is_none()) || hosts.iter().any(takes)
    }
}

/// Server names are asked of TLS only: a request in plain text has none, and is no less meant for the route.
pub(super) fn is_greeted(server_names: &[HostName], question: &Question<'_>) -> bool {
    match question.scheme {
        Scheme::Http => true,
        Scheme::Https => {
            question.server_name.is_some_and(|name| server_names.iter().any(|server_name| server_name.fits(name)))
        }
    }
}

/// Each of so many, or none once.
fn each(count: usize) -> impl Iterator<Item = Option<usize>> {
    (0..count).map(Some).chain((count == 0).then_some(None))
}

#[cfg(test)]
mod tests;
