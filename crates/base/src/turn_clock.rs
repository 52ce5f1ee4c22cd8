//! The time of the current turn of a task. A turn takes microseconds, so what happens within it may share one reading
//! of the clock, which costs tens of nanoseconds: a request would otherwise read it nine times.
//!
//! Deadlines and phases use this clock. What is measured to be reported, such as the duration of a request, ends with a
//! reading of its own.

use std::cell::Cell;
use std::marker::PhantomData;
use std::time::SystemTime;

use tokio::time::Instant;

thread_local! {
    /// None outside of turns.
    static TURN: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// A turn of a task: one poll of its future. Turns are not nested, because a task does not poll another one.
pub struct Turn(PhantomData<*const ()>);

impl Turn {
    /// Reads the clock. The turn ends when the value is dropped.
    pub fn begin() -> Self {
        let outer = TURN.replace(Some(Instant::now()));
        debug_assert!(outer.is_none(), "a task polls another one");
        Turn(PhantomData)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        TURN.set(None);
    }
}

/// When the current turn began, or was [refreshed](refresh). Outside of a turn, the current time.
pub fn now() -> Instant {
    TURN.get().unwrap_or_else(Instant::now)
}

/// Reads the clock. The rest of the turn has this time.
pub fn refresh() -> Instant {
    let now = Instant::now();
    if TURN.get().is_some() {
        TURN.set(Some(now));
    }
    now
}

/// A moment of the past as the clock of the machine shows it now. Both clocks are read together: a reading of this turn
/// may be old, and would move the moment into the future.
pub fn to_system_time(moment: Instant) -> SystemTime {
    SystemTime::now() - moment.elapsed()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::advance;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_within_a_turn() {
        const SECOND: Duration = Duration::from_secs(1);
        let begin = Instant::now();
        let turn = Turn::begin();
        advance(SECOND).await;
        assert_eq!(now(), begin);
        assert_eq!(refresh(), begin + SECOND);
        advance(SECOND).await;
        assert_eq!(now(), begin + SECOND);
        drop(turn);
        assert_eq!(now(), begin + 2 * SECOND);
        refresh();
        advance(SECOND).await;
        assert_eq!(now(), begin + 3 * SECOND, "outside of a turn, nothing is kept");
    }
}
