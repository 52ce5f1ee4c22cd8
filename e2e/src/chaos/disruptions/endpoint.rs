//! One endpoint of a Service is killed and returns, while its EndpointSlice calls it ready.

use anyhow::{Context, Result, ensure};
use tokio::time::Instant;

use crate::chaos::disruption::{Disruption, Step};
use crate::chaos::objects::UPSTREAM;
use crate::chaos::record::Killed;
use crate::chaos::site::ChaosSite;

#[derive(Default)]
pub(in crate::chaos) struct EndpointKilled {
    killed: Option<usize>,
}

impl Disruption for EndpointKilled {
    fn name(&self) -> String {
        "endpoint killed".to_owned()
    }

    fn begin<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let number = site.random.usize(..site.endpoints.len());
            let begin = Instant::now();
            let first_requests = site.endpoints[number].kill()?;
            site.recorder.add_kill(Killed::Endpoint { first_requests }, begin);
            self.killed = Some(number);
            until_ejected_is(site, 1.0).await
        })
    }

    fn end<'a>(&'a mut self, site: &'a mut ChaosSite<'_>) -> Step<'a> {
        Box::pin(async {
            let number = self.killed.take().context("no endpoint was killed")?;
            site.endpoints[number].start_again()?;
            until_ejected_is(site, 0.0).await
        })
    }
}

/// Waits until each replica has ejected this number of endpoints.
async fn until_ejected_is(site: &ChaosSite<'_>, number: f64) -> Result<()> {
    let labels = [format!("upstream=\"{UPSTREAM}\""), "state=\"ejected\"".to_owned()];
    let labels = labels.each_ref().map(String::as_str);
    site.until_both("the endpoint is ejected exactly while it is gone", async |replica| {
        let ejected = replica.metric("portico_upstream_endpoints", &labels).await?;
        ensure!(ejected == number, "{ejected} endpoints are ejected instead of {number}");
        Ok(())
    })
    .await
}
