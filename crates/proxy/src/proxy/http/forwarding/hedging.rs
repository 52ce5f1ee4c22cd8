//! Two attempts that compete for a response: the second one begins if the first one has none for a while. The first
//! good response counts. The other attempt is cancelled, which says nothing about its endpoint.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::attempt_policy::AttemptPolicy;
use super::caller::Caller;
use super::ended_attempt::{AttemptResult, AttemptRole, EndedAttempt};
use super::outgoing_request::OutgoingRequest;
use crate::proxy::http::record::request_attempts::Attempts;
use crate::turn_clock;
use crate::upstream::HedgeOutcome;

/// Sends the request to its endpoint, which was recorded as the first attempt, and after `delay` to another one, too.
/// Returns the attempt whose outcome counts; `outgoing` is its request then.
pub(super) async fn attempt_hedged<C: Caller>(
    outgoing: &mut OutgoingRequest<'_, C>,
    started_at: Instant,
    delay: Duration,
    mut attempts: Option<&mut Attempts>,
) -> EndedAttempt<C> {
    let ended =
        |started_at, outcome| EndedAttempt { started_at, retries: 0, reason: None, outcome, other_settles: false };
    let Some(mut second) = outgoing.duplicate() else {
        return ended(started_at, outgoing.attempt_in_time().await);
    };
    let (caller, policy, first_endpoint) = (Rc::clone(&outgoing.caller), outgoing.policy, outgoing.endpoint);
    let counters = caller.pools().hedge_counters();
    let second_started_at;
    let Race { winner, outcome, lost } = {
        let mut first = pin!(outgoing.attempt_in_time());
        if let Ok(outcome) = timeout(delay, first.as_mut()).await {
            return ended(started_at, outcome);
        }
        let Some(endpoint) = endpoint_of_second(&mut second, first_endpoint) else {
            counters.count(HedgeOutcome::NotSent);
            return ended(started_at, first.await);
        };
        second_started_at = turn_clock::now();
        second.begin_attempt(endpoint);
        if let Some(attempts) = attempts.as_deref() {
            second.trace.begin_attempt(attempts.as_slice().len());
        }
        second.attempt_deadline = policy.attempt_time().map(|time| second_started_at + time);
        race::<C, _, _>(first, pin!(second.attempt_in_time()), policy).await
    };
    counters.count(match (&outcome, winner) {
        (Ok(response), _) if !policy.is_good(response) => HedgeOutcome::Failed,
        (Err(_), _) => HedgeOutcome::Failed,
        (Ok(_), Contender::First) => HedgeOutcome::First,
        (Ok(_), Contender::Second) => HedgeOutcome::Second,
    });
    let has_lost = lost.is_some();
    let mut lost = lost.map(|outcome| match winner {
        Contender::First => ended(second_started_at, outcome),
        Contender::Second => ended(started_at, outcome),
    });
    let (loser_endpoint, winner_started_at) = match winner {
        Contender::First => {
            // The attempt whose response counts is recorded last.
            if let Some(attempts) = &mut attempts {
                let outcome = lost.as_ref().map(EndedAttempt::recorded_outcome);
                attempts.insert_before_last(second.endpoint, second_started_at, outcome, turn_clock::now());
            }
            if let Some(lost) = &mut lost {
                lost.report(&mut second, None, AttemptRole::Competitor);
            }
            (second.endpoint, started_at)
        }
        Contender::Second => {
            match &mut lost {
                Some(lost) => lost.report(outgoing, attempts.as_deref_mut(), AttemptRole::Competitor),
                None => {
                    if let Some(attempts) = &mut attempts {
                        attempts.abandon(turn_clock::now());
                    }
                }
            }
            if let Some(attempts) = &mut attempts {
                attempts.start(second.endpoint, second.search.pick(), second_started_at);
            }
            std::mem::swap(outgoing, &mut second);
            std::mem::swap(&mut outgoing.admission, &mut second.admission);
            (first_endpoint, second_started_at)
        }
    };
    let other_settles = lost.as_ref().is_some_and(|lost| !lost.is_outage());
    if let Some(Ok(response)) = lost.map(|lost| lost.outcome) {
        response.into_body().discard();
    }
    if has_lost {
        outgoing.search.avoid(loser_endpoint);
    }
    EndedAttempt { other_settles, ..ended(winner_started_at, outcome) }
}

/// The endpoint of the second attempt, if there is another one and the budget of retries has a place. The budget comes
/// first, because choosing a half-open endpoint claims the only trial of it.
fn endpoint_of_second<C: Caller>(second: &mut OutgoingRequest<'_, C>, first: SocketAddr) -> Option<SocketAddr> {
    let upstream = second.target.upstream;
    second.search.avoid(first);
    if !second.search.has_others(upstream) || upstream.take_retry().is_err() {
        return None;
    }
    second.search.next(second.caller.pools(), upstream, false).ok()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Contender {
    First,
    Second,
}

/// How a race ended.
struct Race<T> {
    winner: Contender,
    outcome: T,
    /// The outcome of the other attempt, if it has ended. It is not good.
    lost: Option<T>,
}

/// Polls both attempts until one has a good response, or both have ended. Of two outcomes that are not good, a response
/// counts more than an error.
async fn race<C, F, S>(
    mut first: Pin<&mut F>,
    mut second: Pin<&mut S>,
    policy: AttemptPolicy<'_>,
) -> Race<AttemptResult<C>>
where
    C: Caller,
    F: Future<Output = AttemptResult<C>>,
    S: Future<Output = AttemptResult<C>>,
{
    let mut ended: Option<(Contender, AttemptResult<C>)> = None;
    let is_good = |outcome: &AttemptResult<C>| outcome.as_ref().is_ok_and(|response| policy.is_good(response));
    let mut poll = |contender: Contender, cx: &mut Context<'_>| match contender {
        Contender::First => first.as_mut().poll(cx),
        Contender::Second => second.as_mut().poll(cx),
    };
    poll_fn(|cx| {
        for contender in [Contender::First, Contender::Second] {
            if ended.as_ref().is_some_and(|(other, _)| *other == contender) {
                continue;
            }
            let Poll::Ready(outcome) = poll(contender, cx) else { continue };
            let race = match ended.take() {
                None if is_good(&outcome) => Race { winner: contender, outcome, lost: None },
                None => {
                    ended = Some((contender, outcome));
                    continue;
                }
                Some((other, lost)) if outcome.is_err() && lost.is_ok() => {
                    Race { winner: other, outcome: lost, lost: Some(outcome) }
                }
                Some((_, lost)) => Race { winner: contender, outcome, lost: Some(lost) },
            };
            return Poll::Ready(race);
        }
        Poll::Pending
    })
    .await
}
