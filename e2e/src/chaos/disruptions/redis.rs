//! The Redis server of a rate limit is killed and restarted, or does not respond. Requests are still forwarded.

use anyhow::{Result, ensure};

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::site::ChaosSite;

/// SIGKILL, and a start without data.
pub(in crate::chaos) struct RedisKilled;

/// SIGSTOP: connections stay open, and the server does not respond.
pub(in crate::chaos) struct RedisPaused;

impl Disruption for RedisKilled {
    fn name(&self) -> String {
        "Redis killed".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.redis.kill()?;
            until_reported(site).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.redis.start_again(site.cluster).await?;
            until_resolved(site).await
        })
    }
}

impl Disruption for RedisPaused {
    fn name(&self) -> String {
        "Redis does not respond".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.redis.identity()?.pause()?;
            until_reported(site).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            site.redis.identity()?.resume()?;
            until_resolved(site).await
        })
    }
}

/// Waits until both replicas report that the plugin cannot reach its server.
async fn until_reported(site: &ChaosSite<'_>) -> Result<()> {
    site.until_both("the plugin reports its server", async |replica| {
        let diagnostics = replica.metric("portico_diagnostics", &["kind=\"KongPlugin\""]).await?;
        ensure!(diagnostics > 0.0, "no KongPlugin has a diagnostic");
        Ok(())
    })
    .await
}

async fn until_resolved(site: &ChaosSite<'_>) -> Result<()> {
    site.until_both("the plugin reaches its server", async |replica| {
        let diagnostics = replica.metric("portico_diagnostics", &["kind=\"KongPlugin\""]).await?;
        ensure!(diagnostics == 0.0, "{diagnostics} diagnostics of KongPlugins");
        Ok(())
    })
    .await
}
