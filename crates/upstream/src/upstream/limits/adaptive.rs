//! A limit of requests in progress that follows the time to the response heads.
//!
//! A short average of this time is compared with a long one, as in the algorithm Gradient2 of Netflix's library
//! `concurrency-limits`: `limit = 0.8 * limit + 0.2 * (gradient * limit + sqrt(limit))`, where `gradient` is
//! `1.5 * long / short`, between 0.5 and 1. It differs in two points:
//!
//! - The limit changes once in as many responses as it allows requests, which is about one round trip: the effect of a
//!   change is not visible earlier.
//! - The long average does not follow times that this upstream's own requests make longer. Otherwise a permanent
//!   overload would become the normal state, and the limit would grow without end. At the lowest limit it follows
//!   them at once, since the endpoints have become slower for another reason.

use std::time::Duration;

use parking_lot::Mutex;

use crate::upstream::settings::AdaptiveLimit;

/// The state of the limit, which all workers share.
#[derive(Debug)]
pub(in crate::upstream) struct AdaptiveConcurrency(Mutex<Gradient>);

#[derive(Debug)]
struct Gradient {
    settings: AdaptiveLimit,
    limit: f64,
    /// Moving averages of the time to the head, in seconds.
    long: f64,
    short: f64,
    /// For how many changes the limit has been at its lowest value.
    rounds_at_lowest: u32,
    /// The responses since the last change.
    samples: u32,
    /// The sum of their times.
    sum: f64,
}

impl AdaptiveConcurrency {
    pub(in crate::upstream) fn new(settings: AdaptiveLimit) -> Self {
        let limit = FIRST_LIMIT.clamp(lowest(settings), highest(settings));
        AdaptiveConcurrency(Mutex::new(Gradient {
            settings,
            limit,
            long: 0.0,
            short: 0.0,
            rounds_at_lowest: 0,
            samples: 0,
            sum: 0.0,
        }))
    }

    /// Sets the bounds; the limit stays within them.
    pub(in crate::upstream) fn set_bounds(&self, settings: AdaptiveLimit) {
        let gradient = &mut *self.0.lock();
        gradient.settings = settings;
        gradient.limit = gradient.limit.clamp(lowest(settings), highest(settings));
    }

    pub(in crate::upstream) fn limit(&self) -> u32 {
        self.0.lock().limit as u32
    }

    /// Records the time to the head of a response, and how many requests were in progress. Returns the limit if it has
    /// changed. A sample is skipped while another worker records one, so that no worker waits.
    pub(in crate::upstream) fn record(&self, head_time: Duration, in_progress: u32) -> Option<u32> {
        self.0.try_lock()?.record(head_time.as_secs_f64(), in_progress)
    }
}

impl Gradient {
    fn record(&mut self, time: f64, in_progress: u32) -> Option<u32> {
        if self.long == 0.0 {
            (self.long, self.short) = (time, time);
        }
        self.short += (time - self.short) / SHORT_SAMPLES;
        self.samples += 1;
        self.sum += time;
        if f64::from(self.samples) < self.limit {
            return None;
        }
        let (samples, mean) = (f64::from(self.samples), self.sum / f64::from(self.samples));
        (self.samples, self.sum) = (0, 0.0);
        let (lowest, highest) = (lowest(self.settings), highest(self.settings));
        let is_saturated = f64::from(in_progress) >= self.limit / 2.0;
        self.rounds_at_lowest = if self.limit <= lowest { self.rounds_at_lowest.saturating_add(1) } else { 0 };
        if self.rounds_at_lowest > DRAIN_ROUNDS {
            self.long += (mean - self.long) / 2.0;
        } else {
            let weight = (samples / LONG_SAMPLES).min(1.0);
            let change = mean / self.long;
            self.long += (mean - self.long)
                * match is_saturated {
                    false => weight,
                    true if change < 1.0 / NORMAL => weight,
                    true if change <= NORMAL => weight * SATURATED_WEIGHT,
                    true => 0.0,
                };
        }
        // A few slow responses among the last ones are no overload if those of the whole round are as fast as ever.
        let current = self.short.min(mean).max(f64::MIN_POSITIVE);
        let gradient = (TOLERANCE * self.long / current).clamp(0.5, 1.0);
        let before = self.limit as u32;
        let next = (1.0 - SMOOTHING) * self.limit + SMOOTHING * (gradient * self.limit + self.limit.sqrt());
        // A limit that is not used says nothing about what the endpoints can take.
        self.limit = if is_saturated { next } else { self.limit }.clamp(lowest, highest);
        let after = self.limit as u32;
        (after != before).then_some(after)
    }
}

fn lowest(settings: AdaptiveLimit) -> f64 {
    f64::from(settings.min.max(1))
}

fn highest(settings: AdaptiveLimit) -> f64 {
    f64::from(settings.max.max(settings.min).max(1))
}

/// Enough for most services at first; it grows within seconds.
const FIRST_LIMIT: f64 = 20.0;
const LONG_SAMPLES: f64 = 600.0;
const SHORT_SAMPLES: f64 = 10.0;
/// By how much the short average may exceed the long one without an effect.
const TOLERANCE: f64 = 1.5;
/// The weight of the new value of the limit.
const SMOOTHING: f64 = 0.2;
/// How much slower the long average is under load. A growing limit delays requests a bit more with each change, which
/// the average must not follow.
const SATURATED_WEIGHT: f64 = 0.02;
/// After so many changes at the lowest limit, requests from before no longer delay others.
const DRAIN_ROUNDS: u32 = 5;
/// By how much a mean may exceed the long average and change it nevertheless, so that it does not follow only the
/// lower ones of varying times.
const NORMAL: f64 = 1.2;

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    /// Endpoints that process `capacity` requests at a time, and queue all others.
    struct Simulation {
        limit: AdaptiveConcurrency,
        capacity: usize,
        now: f64,
        /// When requests in process end, and when they began.
        ends: BinaryHeap<Reverse<(u64, u64)>>,
        queue: VecDeque<f64>,
        times: Vec<f64>,
        rejected: usize,
    }

    impl Simulation {
        fn new(capacity: usize, settings: AdaptiveLimit) -> Self {
            fastrand::seed(42);
            Simulation {
                limit: AdaptiveConcurrency::new(settings),
                capacity,
                now: 0.0,
                ends: BinaryHeap::new(),
                queue: VecDeque::new(),
                times: Vec::new(),
                rejected: 0,
            }
        }

        /// Sends requests at this rate, each of which takes `service()` seconds to process.
        fn run(&mut self, seconds: f64, rate: f64, mut service: impl FnMut() -> f64) {
            const MICROS: f64 = 1e6;
            let end = self.now + seconds;
            let mut next_request = self.now;
            (self.times, self.rejected) = (Vec::new(), 0);
            while next_request < end {
                let next_end = self.ends.peek().map_or(f64::INFINITY, |end| end.0.0 as f64 / MICROS);
                if next_end <= next_request {
                    self.now = next_end;
                    let Reverse((_, began)) = self.ends.pop().unwrap();
                    let time = self.now - began as f64 / MICROS;
                    self.times.push(time);
                    let in_progress = self.ends.len() + self.queue.len() + 1;
                    self.limit.record(Duration::from_secs_f64(time.max(0.0)), in_progress as u32);
                    if let Some(began) = self.queue.pop_front() {
                        let end = ((self.now + service()) * MICROS) as u64;
                        self.ends.push(Reverse((end, (began * MICROS) as u64)));
                    }
                    continue;
                }
                self.now = next_request;
                next_request += -(1.0 - fastrand::f64()).ln() / rate;
                if self.ends.len() + self.queue.len() >= self.limit.limit() as usize {
                    self.rejected += 1;
                } else if self.ends.len() < self.capacity {
                    let end = ((self.now + service()) * MICROS) as u64;
                    self.ends.push(Reverse((end, (self.now * MICROS) as u64)));
                } else {
                    self.queue.push_back(self.now);
                }
            }
        }

        fn percentile(&mut self, percent: usize) -> f64 {
            self.times.sort_by(f64::total_cmp);
            self.times[self.times.len() * percent / 100]
        }
    }

    const BOUNDS: AdaptiveLimit = AdaptiveLimit { min: 10, max: 1000 };

    /// Times between 80 and 120 ms.
    fn even() -> f64 {
        0.08 + 0.04 * fastrand::f64()
    }

    /// Exponential times of 100 ms on average.
    fn uneven() -> f64 {
        -0.1 * (1.0 - fastrand::f64()).ln()
    }

    #[test]
    fn overload_neither_delays_requests_nor_wastes_capacity() {
        for service in [even, uneven] {
            let mut simulation = Simulation::new(50, BOUNDS);
            simulation.run(20.0, 100.0, service);
            assert!(simulation.rejected <= 100, "{} of 2000 without load", simulation.rejected);
            let idle = simulation.percentile(99);
            simulation.run(20.0, 1000.0, service);
            // Ten minutes of overload do not become the normal state.
            for _ in 0..10 {
                simulation.run(60.0, 1000.0, service);
                let (goodput, slowest) = (simulation.times.len() as f64 / 60.0, simulation.percentile(99));
                let limit = simulation.limit.limit();
                assert!(slowest <= 3.0 * idle, "{slowest} s instead of {idle} s at a limit of {limit}");
                assert!(goodput >= 450.0, "{goodput} of 500 responses a second at a limit of {limit}");
            }
        }
    }

    #[test]
    fn limit_follows_endpoints_that_become_slower_or_faster() {
        let mut simulation = Simulation::new(50, BOUNDS);
        simulation.run(60.0, 1000.0, even);
        for factor in [3.0, 1.0, 0.3] {
            simulation.run(120.0, 1000.0 / factor, || factor * even());
            simulation.run(60.0, 1000.0 / factor, || factor * even());
            let goodput = simulation.times.len() as f64 / 60.0;
            let limit = simulation.limit.limit();
            assert!(goodput >= 0.85 * 500.0 / factor, "{goodput} at {factor} times the time, limit {limit}");
        }
    }

    #[test]
    fn limit_stays_within_its_bounds() {
        let limit = AdaptiveConcurrency::new(BOUNDS);
        for _ in 0..200_000 {
            limit.record(Duration::from_millis(1), 1000);
        }
        assert_eq!(limit.limit(), 1000);
        for step in 0..200_000 {
            limit.record(Duration::from_millis(1 + step / 10), 1000);
        }
        // It falls to the lowest value, and then takes the time of now for the normal one.
        assert!((10..=20).contains(&limit.limit()), "{}", limit.limit());
        limit.set_bounds(AdaptiveLimit { min: 30, max: 20 });
        assert_eq!(limit.limit(), 30, "contradicting bounds");
        limit.record(Duration::ZERO, 0);
        assert_eq!(AdaptiveConcurrency::new(AdaptiveLimit { min: 0, max: 0 }).limit(), 1);
    }

    #[test]
    fn unused_limit_does_not_grow() {
        let limit = AdaptiveConcurrency::new(BOUNDS);
        for _ in 0..10_000 {
            limit.record(Duration::from_millis(10), 3);
        }
        assert_eq!(limit.limit(), 20);
    }
}
