//! Waiting for what gives no signal: asking again and again, up to a deadline.

use std::time::Duration;

use anyhow::{Result, anyhow, bail};
use tokio::time::{Instant, sleep, timeout};

/// Asks until the answer is good. When time is up, the error has the last reason why it was not.
///
/// ```no_run
/// # async fn answers() -> anyhow::Result<()> { Ok(()) }
/// # async fn example() -> anyhow::Result<()> {
/// portico_e2e::patience::until("the route answers", std::time::Duration::from_secs(30), answers).await
/// # }
/// ```
pub async fn until<Answer>(
    what: &str,
    patience: Duration,
    mut ask: impl AsyncFnMut() -> Result<Answer>,
) -> Result<Answer> {
    let deadline = Instant::now() + patience;
    loop {
        let reason = match timeout(ATTEMPT, ask()).await {
            Ok(Ok(answer)) => return Ok(answer),
            Ok(Err(reason)) => reason,
            Err(_) => anyhow!("no answer within {} s", ATTEMPT.as_secs()),
        };
        if Instant::now() >= deadline {
            bail!("waited {} s in vain until {what}: {reason:#}", patience.as_secs());
        }
        sleep(PAUSE).await;
    }
}

/// How long one question may take: enough for a busy machine.
const ATTEMPT: Duration = Duration::from_secs(10);
/// Between two questions.
const PAUSE: Duration = Duration::from_millis(50);

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_good_answer_counts() {
        let mut asked = 0;
        let answer = until("three", Duration::from_secs(1), async || {
            asked += 1;
            if asked == 3 { Ok(asked) } else { bail!("it is {asked}") }
        });
        assert_eq!(answer.await.unwrap(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_reason_is_told_when_time_is_up() {
        let never = until("the door opens", Duration::from_secs(2), async || -> Result<()> { bail!("it is locked") });
        assert_eq!(never.await.unwrap_err().to_string(), "waited 2 s in vain until the door opens: it is locked");
        let silent = until("it speaks", Duration::from_secs(20), async || std::future::pending::<Result<()>>().await);
        assert_eq!(silent.await.unwrap_err().to_string(), "waited 20 s in vain until it speaks: no answer within 10 s");
    }
}
