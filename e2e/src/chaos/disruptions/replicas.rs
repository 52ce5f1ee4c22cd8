//! The leader is killed and restarted, paused, or cut off from the API server.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::time::{Instant, timeout};

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::objects::EFFECT_TIMEOUT;
use crate::chaos::record::Killed;
use crate::chaos::site::{ChaosSite, Replica};
use crate::error_injector::{InjectedError, Requests};
use crate::identity::ProcessIdentity;
use crate::wait::until;

/// SIGKILL. The other replica takes over the Lease before the killed one is restarted.
///
/// Both replicas listen at the same addresses, and the kernel assigns each connection of the polite client to one of
/// them. So requests on connections to the killed replica may fail.
#[derive(Default)]
pub(in crate::chaos) struct LeaderKilled {
    killed: Option<usize>,
}

impl Disruption for LeaderKilled {
    fn name(&self) -> String {
        "leader killed".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let [leader, other] = site.leader().await?;
            let begin = Instant::now();
            site.replicas[leader].portico.kill().await?;
            site.recorder.add_kill(Killed::Replica, begin);
            self.killed = Some(leader);
            site.until_leads(other).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let killed = self.killed.take().context("no replica was killed")?;
            site.replicas[killed].portico.restart().await?;
            site.until_watches_work().await
        })
    }
}

/// SIGSTOP, for less time than a Lease and the timeouts of clients. Its requests wait.
#[derive(Default)]
pub(in crate::chaos) struct LeaderPaused {
    paused: Option<usize>,
}

/// How long a paused replica does not respond until it is paused for certain.
const PAUSED_AFTER: Duration = Duration::from_millis(500);

impl LeaderPaused {
    fn identity(&self, site: &ChaosSite<'_>) -> Result<ProcessIdentity> {
        let paused = self.paused.context("no replica was paused")?;
        let id = site.replicas[paused].portico.process_id().context("the replica is not running")?;
        ProcessIdentity::lookup(id).context("the replica has ended")
    }
}

impl Disruption for LeaderPaused {
    fn name(&self) -> String {
        "leader paused".to_owned()
    }

    fn longest(&self) -> Duration {
        Duration::from_secs(1)
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let [leader, _] = site.leader().await?;
            self.paused = Some(leader);
            self.identity(site)?.pause()?;
            until("the leader does not respond", EFFECT_TIMEOUT, async || {
                match is_responding(&site.replicas[leader]).await {
                    true => bail!("it responds"),
                    false => Ok(()),
                }
            })
            .await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            self.identity(site)?.resume()?;
            let paused = self.paused.take().context("no replica was paused")?;
            until("the replica responds", EFFECT_TIMEOUT, async || match is_responding(&site.replicas[paused]).await {
                true => Ok(()),
                false => bail!("it does not respond"),
            })
            .await?;
            site.leader().await?;
            site.until_watches_work().await
        })
    }
}

async fn is_responding(replica: &Replica) -> bool {
    timeout(PAUSED_AFTER, replica.portico.get("/healthz")).await.is_ok_and(|response| response.is_ok())
}

/// The API server does not respond to the leader, until the other replica leads.
#[derive(Default)]
pub(in crate::chaos) struct LeaderIsolated {
    isolated: Option<usize>,
}

impl Disruption for LeaderIsolated {
    fn name(&self) -> String {
        "leader cut off from API server".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let [leader, other] = site.leader().await?;
            self.isolated = Some(leader);
            site.replicas[leader].injector.inject(Requests::All, InjectedError::NoResponse);
            site.until_leads(other).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let isolated = self.isolated.take().context("no replica was cut off")?;
            site.replicas[isolated].injector.clear_and_disconnect();
            site.leader().await?;
            site.until_watches_work().await
        })
    }
}
