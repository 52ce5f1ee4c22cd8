//! Polls conditions that have no event, up to a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};

/// Calls `attempt` until it succeeds. At the deadline, the error has the reason of the last failure. `condition`
/// completes the sentence "waiting until …".
///
/// ```no_run
/// # async fn is_served() -> anyhow::Result<()> { Ok(()) }
/// # async fn example() -> anyhow::Result<()> {
/// portico_e2e::wait::until("the route is served", std::time::Duration::from_secs(30), is_served).await
/// # }
/// ```
pub async fn until<Output>(
    condition: &str,
    limit: Duration,
    mut attempt: impl AsyncFnMut() -> Result<Output>,
) -> Result<Output> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match timeout(ATTEMPT_TIMEOUT, attempt()).await {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(reason)) => reason,
            Err(_) => anyhow!("no result within {} s", ATTEMPT_TIMEOUT.as_secs()),
        };
        if Instant::now() >= deadline {
            bail!("timed out after {} s waiting until {condition}: {reason:#}", limit.as_secs());
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// How long one attempt may take. Long enough for a busy machine.
const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(30);
/// Delay between two attempts.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_success_ends_the_wait() {
        let mut attempts = 0;
        let third_attempt = until("the third attempt", Duration::from_secs(1), async || {
            attempts += 1;
            if attempts == 3 { Ok(attempts) } else { bail!("attempt {attempts}") }
        });
        assert_eq!(third_attempt.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_reports_the_last_reason() {
        let failing = until("the door opens", Duration::from_secs(2), async || -> Result<()> { bail!("it is locked") });
        assert_eq!(
            failing.await.unwrap_err().to_string(),
            "timed out after 2 s waiting until the door opens: it is locked"
        );
        let hanging =
            until("it is ready", Duration::from_secs(60), async || std::future::pending::<Result<()>>().await);
        assert_eq!(
            hanging.await.unwrap_err().to_string(),
            "timed out after 60 s waiting until it is ready: no result within 30 s"
        );
    }
}
