//! Polls conditions that have no event, up to a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};

/// Calls `ask` until it succeeds. At the deadline, the error has the reason of the last failure.
///
/// ```no_run
/// # async fn is_served() -> anyhow::Result<()> { Ok(()) }
/// # async fn example() -> anyhow::Result<()> {
/// portico_e2e::wait::until("the route is served", std::time::Duration::from_secs(30), is_served).await
/// # }
/// ```
pub async fn until<Answer>(
    what: &str,
    limit: Duration,
    mut ask: impl AsyncFnMut() -> Result<Answer>,
) -> Result<Answer> {
    let deadline = Instant::now() + limit;
    loop {
        let reason = match timeout(ATTEMPT, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => reason,
            Err(_) => anyhow!("no result within {} s", ATTEMPT.as_secs()),
        };
        if Instant::now() >= deadline {
            bail!("timed out after {} s waiting until {what}: {reason:#}", limit.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// How long one attempt may take on a busy machine.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Delay between two attempts.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn first_success_ends_the_wait() {
        let mut asked = 0;
        let answer = until("three", Duration::from_secs(1), async || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { bail!("it is {asked}") }
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn timeout_reports_the_last_reason() {
        let never = until("the door opens", Duration::from_secs(2), async || -> Result<()> { bail!("it is locked") });
        assert_eq!(
            never.await.unwrap_err().to_string(),
            "timed out after 2 s waiting until the door opens: it is locked"
        );
        let silent = until("it is ready", Duration::from_secs(20), async || std::future::pending::<Result<()>>().await);
        assert_eq!(
            silent.await.unwrap_err().to_string(),
            "timed out after 20 s waiting until it is ready: no result within 10 s"
        );
    }
}
