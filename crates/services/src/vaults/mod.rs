//! Reads the values that configurations of plugins need from servers of vaults, and keeps them up to date.
//!
//! ```text
//!   compiler ─ wanted ─▶ follow_vaults ┬ client.rs ─ hashicorp.rs, aws.rs, google.rs ─▶ server
//!      ▲                               └ responses ▶ VaultValues ─ changed ─▶ control loop
//!      └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A server that does not respond changes nothing: the last value stays, until `resurrect_ttl` after its `ttl`. It also
//! delays no other server, because reads of different servers do not wait for each other.

mod aws;
mod client;
mod google;
mod hashicorp;
mod logins;
mod secret_reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::PluginServices;
use crate::plugin_api::vault::{VaultQuery, VaultResponse, VaultResponses, VaultServer, VaultValues};
use client::VaultClient;
use secret_reading::ReadError;

/// Reads the wanted values. Does not end.
pub async fn follow_vaults(values: Arc<VaultValues>, services: Arc<dyn PluginServices>) {
    let client = VaultClient::new(&services);
    let read = async |query: Arc<VaultQuery>| (client.read(&query).await, query);
    let mut wanted = values.wanted();
    let mut secrets = KnownSecrets::default();
    let mut reported = BTreeMap::new();
    let mut reads = FuturesUnordered::new();
    let mut running = RunningReads::default();
    secrets.keep_only(&wanted.borrow_and_update().clone().unwrap_or_default());
    loop {
        let now = Instant::now();
        for query in secrets.due(now) {
            if running.start(query) {
                reads.push(read(Arc::clone(query)));
            }
        }
        secrets.expire(now);
        report(&services, &mut reported, secrets.problems(), &running);
        values.set_responses(secrets.responses());
        let next = secrets.next_due(now);
        let timer = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => secrets.keep_only(&wanted.borrow_and_update().clone().unwrap_or_default()),
                Err(_) => return,
            },
            Some((result, query)) = reads.next() => {
                running.end(&query);
                secrets.set(&query, result, Instant::now());
            }
            () = timer => {}
        }
    }
}

/// The reads in progress of each server.
#[derive(Default)]
struct RunningReads(BTreeMap<Arc<VaultServer>, BTreeSet<Arc<VaultQuery>>>);

impl RunningReads {
    /// Adds a read, unless it is in progress or its server has enough.
    fn start(&mut self, query: &Arc<VaultQuery>) -> bool {
        let reads = self.0.entry(Arc::clone(&query.server)).or_default();
        reads.len() < MAX_READS_OF_SERVER && reads.insert(Arc::clone(query))
    }

    fn end(&mut self, query: &Arc<VaultQuery>) {
        if let Some(reads) = self.0.get_mut(&query.server) {
            reads.remove(query);
            if reads.is_empty() {
                self.0.remove(&query.server);
            }
        }
    }

    /// Whether a vault is being read.
    fn has(&self, object: &str) -> bool {
        self.0.keys().any(|server| server.object == object)
    }
}

/// Reports the problem of each vault in its conditions and in the log, once for each change. While further secrets are
/// read, which of several problems is the first may change, so a report stays.
fn report(
    services: &Arc<dyn PluginServices>,
    reported: &mut BTreeMap<String, String>,
    problems: BTreeMap<String, String>,
    running: &RunningReads,
) {
    reported.retain(|object, _| {
        let remains = problems.contains_key(object);
        if !remains {
            info!("{object}: the vault responds again");
            services.report(object, None);
        }
        remains
    });
    for (object, problem) in problems {
        let last = reported.get(&object);
        if last.is_none() || last != Some(&problem) && !running.has(&object) {
            warn!("{object}: {problem}");
            let remedy = "the last values stay in use; start the server, or correct the KongVault";
            services.report(&object, Some(Diagnostic::error("spec.config", problem.as_str(), remedy)));
            reported.insert(object, problem);
        }
    }
}

/// The wanted secrets, and what is known of them.
#[derive(Default)]
struct KnownSecrets(BTreeMap<Arc<VaultQuery>, KnownSecret>);

struct KnownSecret {
    response: Option<VaultResponse>,
    /// When the response was read.
    read_at: Instant,
    /// When to read it next; `None` for never.
    due: Option<Instant>,
    /// Why the last reading failed, if the server is the reason.
    problem: Option<String>,
}

impl KnownSecrets {
    /// Adds new queries, and removes those that are not wanted any more.
    fn keep_only(&mut self, wanted: &BTreeSet<Arc<VaultQuery>>) {
        self.0.retain(|query, _| wanted.contains(query));
        let now = Instant::now();
        for query in wanted {
            let unread = || KnownSecret { response: None, read_at: now, due: Some(now), problem: None };
            self.0.entry(Arc::clone(query)).or_insert_with(unread);
        }
    }

    fn due(&self, now: Instant) -> impl Iterator<Item = &Arc<VaultQuery>> {
        self.0.iter().filter(move |(_, known)| known.due.is_some_and(|due| due <= now)).map(|(query, _)| query)
    }

    fn set(&mut self, query: &Arc<VaultQuery>, result: Result<BTreeMap<String, String>, ReadError>, now: Instant) {
        let Some(known) = self.0.get_mut(query) else { return };
        match result {
            Ok(found) => {
                known.response = Some(VaultResponse::Found(Arc::new(found)));
                (known.read_at, known.problem) = (now, None);
                known.due = query.server.ttl.map(|ttl| now + ttl);
            }
            Err(ReadError::Missing(reason)) => {
                known.response = Some(VaultResponse::Failed(reason));
                (known.read_at, known.problem) = (now, None);
                known.due = Some(now + query.server.retry_after);
            }
            Err(ReadError::Unavailable(reason)) => {
                if !matches!(known.response, Some(VaultResponse::Found(_))) {
                    known.response = Some(VaultResponse::Failed(reason.clone()));
                }
                known.problem = Some(reason);
                known.due = Some(now + query.server.retry_after);
            }
        }
    }

    /// When a value may not be used any longer although the server does not respond.
    fn end_of(query: &VaultQuery, known: &KnownSecret) -> Option<Instant> {
        let is_found = matches!(known.response, Some(VaultResponse::Found(_)));
        let (ttl, resurrect_ttl) = query.server.ttl.zip(query.server.resurrect_ttl)?;
        (is_found && known.problem.is_some()).then(|| known.read_at + ttl + resurrect_ttl)
    }

    /// Removes values whose time is over.
    fn expire(&mut self, now: Instant) {
        for (query, known) in &mut self.0 {
            if KnownSecrets::end_of(query, known).is_some_and(|end| end <= now) {
                let reason = known.problem.clone().unwrap_or_default();
                known.response = Some(VaultResponse::Failed(reason));
            }
        }
    }

    /// When something is to be read, or expires, after `now`. What is due is read, or begins after another read.
    fn next_due(&self, now: Instant) -> Option<Instant> {
        let ends = self.0.iter().filter_map(|(query, known)| KnownSecrets::end_of(query, known));
        self.0.values().filter_map(|known| known.due).chain(ends).filter(|instant| *instant > now).min()
    }

    fn responses(&self) -> VaultResponses {
        let received =
            |(query, known): (&Arc<VaultQuery>, &KnownSecret)| Some((Arc::clone(query), known.response.clone()?));
        self.0.iter().filter_map(received).collect()
    }

    /// The first problem of each vault, by its object.
    fn problems(&self) -> BTreeMap<String, String> {
        let mut problems = BTreeMap::new();
        for (query, known) in &self.0 {
            if let Some(problem) = &known.problem {
                problems.entry(query.server.object.clone()).or_insert_with(|| problem.clone());
            }
        }
        problems
    }
}

const MAX_READS_OF_SERVER: usize = 8;

#[cfg(test)]
mod tests;
