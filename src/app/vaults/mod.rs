//! Reads the values that configurations of plugins need from servers of vaults, and keeps them up to date.
//!
//! ```text
//!   compiler ─ wanted ─▶ follow_vaults ┬ client.rs ─ hashicorp.rs, aws.rs, google.rs ─▶ server
//!      ▲                               └ responses ▶ VaultValues ─ changed ─▶ control loop
//!      └───────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A server that does not respond changes nothing: the last value stays, until `resurrect_ttl` after its `ttl`.

mod aws;
mod client;
mod google;
mod hashicorp;
mod secret_reading;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use futures_util::{StreamExt, stream};
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use crate::diagnostic::Diagnostic;
use crate::plugin_api::PluginServices;
use crate::plugin_api::vault::{VaultQuery, VaultResponse, VaultResponses, VaultValues};
use client::VaultClient;
use secret_reading::ReadError;

/// Reads the wanted values. Does not end.
pub(super) async fn follow_vaults(values: Arc<VaultValues>, services: Arc<dyn PluginServices>) {
    let client = VaultClient::new(&services);
    let mut wanted = values.wanted();
    let mut secrets = KnownSecrets::default();
    let mut reported = BTreeMap::new();
    loop {
        let queries = wanted.borrow_and_update().clone().unwrap_or_default();
        secrets.keep_only(&queries);
        let now = Instant::now();
        let due: Vec<_> = secrets.due(now).cloned().collect();
        let client = &client;
        let read = |query: Arc<VaultQuery>| async move { (client.read(&query).await, query) };
        let mut results = stream::iter(due).map(read).buffer_unordered(MAX_CONCURRENT_READS);
        while let Some((result, query)) = results.next().await {
            secrets.set(&query, result, Instant::now());
            // Other servers may take long.
            values.set_responses(secrets.responses());
        }
        secrets.expire(Instant::now());
        report(&services, &mut reported, secrets.problems());
        values.set_responses(secrets.responses());
        let next = secrets.next_due();
        let timer = async {
            match next {
                Some(next) => sleep_until(next).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return },
            () = timer => {}
        }
    }
}

/// Reports the problem of each vault in its conditions and in the log, once for each change.
fn report(
    services: &Arc<dyn PluginServices>,
    reported: &mut BTreeMap<String, String>,
    problems: BTreeMap<String, String>,
) {
    for (object, problem) in &problems {
        if reported.get(object) != Some(problem) {
            warn!("{object}: {problem}");
            let remedy = "the last values stay in use; start the server, or correct the KongVault";
            services.report(object, Some(Diagnostic::error("spec.config", problem.as_str(), remedy)));
        }
    }
    for object in reported.keys().filter(|object| !problems.contains_key(*object)) {
        info!("{object}: the vault responds again");
        services.report(object, None);
    }
    *reported = problems;
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

    /// When something is to be read, or expires.
    fn next_due(&self) -> Option<Instant> {
        let ends = self.0.iter().filter_map(|(query, known)| KnownSecrets::end_of(query, known));
        self.0.values().filter_map(|known| known.due).chain(ends).min()
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

const MAX_CONCURRENT_READS: usize = 8;

#[cfg(test)]
mod tests;
