//! The API server is killed and restarted, responds late, or responds with errors.

use anyhow::{Context, ensure};

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::site::ChaosSite;
use crate::error_injector::{InjectedError, Requests};

/// SIGKILL; the data are kept.
pub(in crate::chaos) struct ApiServerKilled;

impl Disruption for ApiServerKilled {
    fn name(&self) -> String {
        "API server killed".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.cluster.kill_apiserver()?;
            site.until_both("the known objects grow old", async |replica| {
                let age = replica.metric("portico_watch_age_seconds", &[]).await?;
                ensure!(age > 0.0, "portico_watch_age_seconds is 0");
                Ok(())
            })
            .await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.cluster.start_apiserver().await?;
            site.until_watches_work().await
        })
    }
}

/// All requests of both replicas to the API server hit this error.
pub(in crate::chaos) struct ApiServerError {
    pub(in crate::chaos) name: &'static str,
    pub(in crate::chaos) error: InjectedError,
}

/// Requests of each replica that hit the error: more than those that renew a Lease or open one watch.
const HITS: usize = 5;

impl Disruption for ApiServerError {
    fn name(&self) -> String {
        self.name.to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            for replica in &site.replicas {
                replica.injector.inject(Requests::All, self.error.clone());
            }
            for replica in &site.replicas {
                replica.injector.wait_for_hits(HITS).await.context("requests to the API server")?;
            }
            Ok(())
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.replicas.iter().for_each(|replica| replica.injector.clear());
            site.until_watches_work().await
        })
    }
}
