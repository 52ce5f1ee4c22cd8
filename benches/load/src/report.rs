//! Results of a run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};

#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Correct responses.
    pub good: u64,
    /// Requests without a complete response.
    pub failed: u64,
    /// Complete but wrong responses.
    pub wrong: u64,
    /// Body bytes of correct responses.
    pub bytes: u64,
    pub elapsed: Duration,
    /// TLS handshakes.
    pub handshakes: u64,
    /// TLS handshakes that resumed a session.
    pub resumed: u64,
    /// Latencies of correct responses, from the due time to the last byte.
    latencies: Vec<Duration>,
    /// How often each error occurred, for the first distinct errors.
    errors: BTreeMap<String, u64>,
}

impl Report {
    pub(crate) fn record_good(&mut self, latency: Duration, bytes: usize) {
        self.good += 1;
        self.bytes += bytes as u64;
        self.latencies.push(latency);
    }

    pub(crate) fn record_failed(&mut self, error: String) {
        self.failed += 1;
        self.record_error(error);
    }

    pub(crate) fn record_wrong(&mut self, error: String) {
        self.wrong += 1;
        self.record_error(error);
    }

    pub(crate) fn record_handshake(&mut self, resumed: bool) {
        self.handshakes += 1;
        self.resumed += u64::from(resumed);
    }

    fn record_error(&mut self, error: String) {
        if self.errors.len() < MAX_DISTINCT_ERRORS || self.errors.contains_key(&error) {
            *self.errors.entry(error).or_default() += 1;
        }
    }

    /// Must be called before percentiles are read.
    pub(crate) fn finish(&mut self) {
        self.latencies.sort_unstable();
    }

    /// Whether there are responses, and all are correct.
    pub fn is_clean(&self) -> bool {
        self.failed == 0 && self.wrong == 0 && self.good > 0
    }

    /// Correct responses per second.
    pub fn per_second(&self) -> f64 {
        self.good as f64 / self.elapsed.as_secs_f64()
    }

    /// The latency that this share of the correct responses did not exceed.
    pub fn percentile(&self, share: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        self.latencies.get((last as f64 * share).round() as usize).copied().unwrap_or_default()
    }

    pub fn to_json(&self) -> Value {
        let micros = |share| self.percentile(share).as_micros() as u64;
        json!({
            "good": self.good,
            "failed": self.failed,
            "wrong": self.wrong,
            "seconds": self.elapsed.as_secs_f64(),
            "per_second": self.per_second(),
            "body_bytes": self.bytes,
            "tls_handshakes": self.handshakes,
            "tls_resumed": self.resumed,
            "latency_us": {
                "p50": micros(0.5), "p90": micros(0.9), "p99": micros(0.99), "p999": micros(0.999), "max": micros(1.0),
            },
            "errors": self.errors,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |share| self.percentile(share).as_secs_f64() * 1000.0;
        writeln!(
            f,
            "good      {:>10}   {:.0} per second for {:.1} s",
            self.good,
            self.per_second(),
            self.elapsed.as_secs_f64()
        )?;
        writeln!(f, "failed    {:>10}", self.failed)?;
        writeln!(f, "wrong     {:>10}", self.wrong)?;
        writeln!(
            f,
            "latency   p50 {:.2} ms   p90 {:.2}   p99 {:.2}   p99.9 {:.2}   max {:.2}",
            ms(0.5),
            ms(0.9),
            ms(0.99),
            ms(0.999),
            ms(1.0)
        )?;
        if self.handshakes > 0 {
            writeln!(f, "TLS       {:>10} handshakes, {} of them resumed", self.handshakes, self.resumed)?;
        }
        for (error, times) in &self.errors {
            writeln!(f, "{times:>8} × {error}")?;
        }
        Ok(())
    }
}

/// Maximum number of distinct errors; most errors are alike, and the first ones matter most.
const MAX_DISTINCT_ERRORS: usize = 20;
