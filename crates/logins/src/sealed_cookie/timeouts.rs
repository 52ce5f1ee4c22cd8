//! How long sessions last: since their begin, since they were renewed, and since they were last used.

use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

/// The limits of a session in seconds; 0 for no limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionTimeouts {
    /// Without requests.
    pub idling: u64,
    /// Without being renewed. A request in the last quarter of this time renews the session.
    pub rolling: u64,
    /// In total.
    pub absolute: u64,
}

/// When a session began, was renewed and was used, in seconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionTimes {
    #[serde(rename = "c")]
    pub created: u64,
    #[serde(rename = "r")]
    pub renewed: u64,
    #[serde(rename = "u")]
    pub used: u64,
}

/// What a request does to its session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionAge {
    /// Nothing.
    Current,
    /// It records the time of use.
    Used,
    /// It renews the session.
    Renewed,
    /// The session has ended.
    Expired,
}

impl SessionTimes {
    pub fn begin(now: u64) -> Self {
        SessionTimes { created: now, renewed: now, used: now }
    }

    /// The times after a request that found this age.
    #[must_use]
    pub fn after(self, age: SessionAge, now: u64) -> Self {
        match age {
            SessionAge::Current | SessionAge::Expired => self,
            SessionAge::Used => SessionTimes { used: now, ..self },
            SessionAge::Renewed => SessionTimes { used: now, renewed: now, ..self },
        }
    }
}

impl SessionTimeouts {
    pub fn age(&self, times: SessionTimes, now: u64) -> SessionAge {
        let passed = |since: u64| now.saturating_sub(since);
        let has_ended = |since: u64, limit: u64| limit > 0 && passed(since) >= limit;
        if has_ended(times.created, self.absolute)
            || has_ended(times.renewed, self.rolling)
            || has_ended(times.used, self.idling)
        {
            return SessionAge::Expired;
        }
        // The product cannot overflow: configurations have limits of at most 32 bits.
        if self.rolling > 0 && passed(times.renewed).saturating_mul(4) >= self.rolling * 3 {
            return SessionAge::Renewed;
        }
        // The time of use is not recorded on each request, which would send a cookie with each response.
        if self.idling > 0 && passed(times.used) >= MAX_USE_DELAY.min(self.idling / 4) && now > times.used {
            return SessionAge::Used;
        }
        SessionAge::Current
    }

    /// The longest time without being renewed, in seconds. `None` without a limit.
    pub fn longest(&self) -> Option<u64> {
        [self.rolling, self.absolute].into_iter().filter(|limit| *limit > 0).min()
    }

    /// The seconds until each limit, in the order idling, rolling, absolute. `None` without this limit.
    pub fn remaining(&self, times: SessionTimes, now: u64) -> [Option<u64>; 3] {
        let remaining = |since: u64, limit: u64| (limit > 0).then(|| limit.saturating_sub(now.saturating_sub(since)));
        [
            remaining(times.used, self.idling),
            remaining(times.renewed, self.rolling),
            remaining(times.created, self.absolute),
        ]
    }
}

/// The time in whole seconds since 1970.
pub fn unix_second(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// The longest time of use that is not recorded, in seconds.
const MAX_USE_DELAY: u64 = 60;

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 4.32
    #[test]
    fn sessions_end_at_each_of_their_limits() {
        use SessionAge::{Current, Expired, Renewed, Used};
        let timeouts = SessionTimeouts { idling: 900, rolling: 3600, absolute: 86_400 };
        let at = |created, renewed, used| SessionTimes { created, renewed, used };
        let now = 100_000;
        for (times, expected) in [
            (at(now, now, now), Current),
            (at(now, now, now - 59), Current),
            (at(now, now, now - 60), Used),
            (at(now, now, now - 899), Used),
            (at(now, now, now - 900), Expired),
            (at(now, now - 2699, now), Current),
            (at(now, now - 2700, now), Renewed),
            (at(now, now - 3600, now), Expired),
            (at(now - 86_399, now, now), Current),
            (at(now - 86_400, now, now), Expired),
            (at(now + 5, now + 5, now + 5), Current),
        ] {
            assert_eq!(timeouts.age(times, now), expected, "{times:?}");
        }
        let without = SessionTimeouts { idling: 0, rolling: 0, absolute: 0 };
        assert_eq!(without.age(at(0, 0, 0), now), Current);
        let short = SessionTimeouts { idling: 8, rolling: 0, absolute: 0 };
        assert_eq!([now, now - 1, now - 2].map(|used| short.age(at(now, now, used), now)), [Current, Current, Used]);
        assert_eq!(timeouts.remaining(at(now - 9, now - 8, now - 7), now), [Some(893), Some(3592), Some(86_391)]);
        assert_eq!(without.remaining(at(0, 0, 0), now), [None; 3]);
        assert_eq!(at(1, 2, 3).after(Renewed, 9), at(1, 9, 9));
        assert_eq!(at(1, 2, 3).after(Used, 9), at(1, 2, 9));
    }
}
