//! How long a request may take, and how often it is tried (`gateway-api.md` §3.6).

use std::fmt;
use std::num::NonZeroU32;
use std::time::Duration;

/// What a rule says about time and tries. A rule that says nothing has none of this.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tries {
    pub request: Limit,
    pub backend_request: Limit,
    /// Connecting to one endpoint (`connect-timeout`).
    pub connect: Patience,
    /// How long an endpoint may take no more of a request that there is more of (`write-timeout`).
    pub write: Patience,
    /// How long an endpoint may be silent before its answer and between the parts of it (`read-timeout`).
    pub read: Patience,
    pub retry: Option<Retry>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Limit {
    /// Nothing is said, so our own patience counts.
    #[default]
    Unset,
    /// Zero: as long as it takes.
    Endless,
    After(Duration),
}

/// How long somebody may be silent. Without it our own patience counts. What is endless outlasts that, by weeks.
///
/// In milliseconds, since every connection has room for what its request is limited by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Patience(Option<NonZeroU32>);

impl Patience {
    pub fn duration(self) -> Option<Duration> {
        self.0.map(|milliseconds| Duration::from_millis(milliseconds.get().into()))
    }

    pub fn is_set(self) -> bool {
        self.0.is_some()
    }
}

impl From<Limit> for Patience {
    fn from(limit: Limit) -> Self {
        Patience(match limit {
            Limit::Unset => None,
            Limit::Endless => Some(NonZeroU32::MAX),
            Limit::After(duration) => {
                let milliseconds = u32::try_from(duration.as_millis()).unwrap_or(u32::MAX);
                Some(NonZeroU32::new(milliseconds).unwrap_or(NonZeroU32::MIN))
            }
        })
    }
}

/// When a request is tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Further tries after the first. None at all also means: not even after a failure to connect.
    pub attempts: u32,
    /// Statuses of answers that are not taken, sorted.
    pub codes: Box<[u16]>,
    /// What is waited before the first further try; it doubles from there.
    pub backoff: Duration,
}

impl Limit {
    pub fn duration(self) -> Option<Duration> {
        match self {
            Limit::Unset | Limit::Endless => None,
            Limit::After(duration) => Some(duration),
        }
    }
}

impl Tries {
    /// What a service of Kong's has: times between two signs of life, and so many further tries, at once and elsewhere if
    /// there is another endpoint (`kong-compat.md` §3.8).
    pub fn of_service(connect: Duration, write: Duration, read: Duration, retries: u32) -> Self {
        let [connect, write, read] = [connect, write, read].map(|limit| Limit::After(limit).into());
        let retry = Some(Retry { attempts: retries, codes: [].into(), backoff: Duration::ZERO });
        Tries { connect, write, read, retry, ..Tries::default() }
    }

    /// The same as it is without annotations.
    pub fn usual_of_service() -> Self {
        let minute = Duration::from_secs(60);
        Tries::of_service(minute, minute, minute, 5)
    }

    /// Whether it makes no difference.
    pub fn is_empty(&self) -> bool {
        *self == Tries::default()
    }

    /// Whether the rule says how long to wait for an answer, so that our own patience does not count.
    pub fn decides_patience(&self) -> bool {
        self.request != Limit::Unset || self.backend_request != Limit::Unset
    }
}

impl Retry {
    /// What a rule that does not say it waits before the first further try.
    pub const BACKOFF: Duration = Duration::from_millis(25);

    /// The wait before the `further`-th further try, counted from 0: never less than `backoff`, and up to half as long again,
    /// so that requests that failed together do not come back together. `dice` is a random number.
    pub fn wait(&self, further: u32, dice: f64) -> Duration {
        let most = self.backoff.saturating_mul(MOST_BACKOFFS);
        let wait = self.backoff.saturating_mul(1_u32.checked_shl(further.min(16)).unwrap_or(u32::MAX)).min(most);
        wait.saturating_add(wait.mul_f64(dice.clamp(0.0, 1.0) / 2.0))
    }
}

/// The longest wait, as a multiple of the first.
const MOST_BACKOFFS: u32 = 10;

/// A line for each thing that is said.
impl Tries {
    pub(super) fn lines(&self) -> Vec<String> {
        let Tries { request, backend_request, connect, write, read, retry } = self;
        let limits = [("request", request), ("backendRequest", backend_request)].into_iter();
        let limits = limits.filter(|(_, limit)| **limit != Limit::Unset).map(|(name, limit)| format!("{name} {limit}"));
        let silences = [("connect", connect), ("write", write), ("read", read)].into_iter();
        let silences = silences.filter(|(_, patience)| patience.is_set());
        let silences = silences.map(|(name, patience)| format!("{name} {patience}"));
        limits.chain(silences).chain(retry.iter().map(Retry::to_string)).collect()
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Unset => Ok(()),
            Limit::Endless => formatter.write_str("endless"),
            Limit::After(duration) => write!(formatter, "{duration:?}"),
        }
    }
}

impl fmt::Display for Patience {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(NonZeroU32::MAX) => Limit::Endless.fmt(formatter),
            _ => self.duration().map_or(Limit::Unset, Limit::After).fmt(formatter),
        }
    }
}

impl fmt::Display for Retry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "further tries {}", self.attempts)?;
        if !self.codes.is_empty() {
            let codes: Vec<_> = self.codes.iter().map(ToString::to_string).collect();
            write!(formatter, ", also on {}", codes.join(", "))?;
        }
        write!(formatter, ", after {:?}", self.backoff)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_cap_and_are_never_shorter_than_the_first() {
        let retry = |backoff| Retry { attempts: 1, codes: [].into(), backoff: Duration::from_millis(backoff) };
        // (backoff, further try, dice, milliseconds)
        let cases = [
            (100, 0, 0.0, 100),
            (100, 0, 1.0, 150),
            (100, 1, 0.0, 200),
            (100, 2, 0.5, 500),
            (100, 3, 0.0, 800),
            (100, 4, 0.0, 1000),
            (100, 99, 1.0, 1500),
            (0, 5, 1.0, 0),
        ];
        for (backoff, further, dice, expected) in cases {
            let wait = retry(backoff).wait(further, dice);
            assert_eq!(wait, Duration::from_millis(expected), "{backoff} {further} {dice}");
        }
        assert!(Retry { backoff: Duration::MAX, ..retry(0) }.wait(u32::MAX, 1.0) >= Duration::from_secs(1));
    }
}
