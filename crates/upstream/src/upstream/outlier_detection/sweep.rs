//! What happens once in each interval, apart from requests.

use std::fmt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::{COUNTS_RATES, ObservedEndpoint, OutlierDetection};
use crate::upstream::health::{RateSample, rate_outliers};

impl OutlierDetection {
    /// How often [`Self::sweep`] is due; `None` if rates are not compared.
    pub(in crate::upstream) fn sweep_interval(&self) -> Option<Duration> {
        let compares_rates = self.attention.load(Relaxed) & COUNTS_RATES != 0;
        compares_rates.then(|| self.settings.load().passive.interval.max(MIN_INTERVAL))
    }

    /// Compares the rates of the interval that ends, and ejects endpoints that deviate.
    pub(in crate::upstream) fn sweep(&self, upstream: &dyn fmt::Display) {
        let now = self.clock.now();
        let current = self.current.load_full();
        let samples: Vec<_> = current.iter().map(|state| state.rates.take()).collect();
        let settings = self.settings.load();
        for (index, cause) in rate_outliers(&settings.passive, &samples) {
            let state = &current[index];
            // An endpoint that is no longer known has left meanwhile.
            let Some(address) = self.members.lock().address_of(state) else { continue };
            let error = FailedPart(samples[index]);
            self.eject(&ObservedEndpoint { upstream, address, state, error: Some(&error) }, cause, now);
        }
        self.members.lock().forget_left(now, current.len());
    }
}

/// How many requests have failed, for the log.
struct FailedPart(RateSample);

impl fmt::Display for FailedPart {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RateSample { requests, failures } = self.0;
        write!(formatter, "{failures} of {requests} requests failed")
    }
}

const MIN_INTERVAL: Duration = Duration::from_millis(100);
