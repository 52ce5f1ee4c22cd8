//! Examples of traced requests for the buckets of the duration histogram: the last one of each bucket.
//!
//! prometheus-client has no public constructor of exemplars, so that `Metrics` adds them to the samples as text.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use parking_lot::Mutex;

use super::{ProxyStats, RequestLabels, RequestSeries};
use crate::duration_bounds::DURATION_BOUNDS;
use crate::plugin_api::trace::TraceId;

/// The last traced request of each bucket, in one worker.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<[Option<TracedDuration>; DURATION_BOUNDS.len() + 1]>);

#[derive(Clone, Copy, Debug)]
struct TracedDuration {
    trace: TraceId,
    duration: Duration,
    ended_at: SystemTime,
}

impl RequestSeries {
    /// Keeps a request whose trace is recorded as an example for its bucket.
    pub(in crate::proxy) fn add_exemplar(&self, trace: TraceId, duration: Duration) {
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        let bucket = DURATION_BOUNDS.partition_point(|bound| *bound < microseconds);
        // Only a scrape holds the lock; a worker does not wait for it.
        if let Some(mut exemplars) = self.exemplars.get_or_init(Box::default).0.try_lock() {
            exemplars[bucket] = Some(TracedDuration { trace, duration, ended_at: SystemTime::now() });
        }
    }
}

impl ProxyStats {
    /// The exemplars of samples, by the name and labels of the sample as the exposition has them.
    pub fn exemplars(&self) -> HashMap<String, String> {
        let mut latest: HashMap<(Arc<RequestLabels>, usize), TracedDuration> = HashMap::new();
        for stats in &self.workers {
            let series: Vec<_> = stats.series.lock().values().cloned().collect();
            for (series, exemplars) in series.iter().filter_map(|series| Some((series, series.exemplars.get()?))) {
                let kept = *exemplars.0.lock();
                for (bucket, traced) in kept.into_iter().enumerate().filter_map(|(bucket, kept)| Some((bucket, kept?)))
                {
                    let latest = latest.entry((Arc::clone(&series.labels), bucket)).or_insert(traced);
                    if latest.ended_at < traced.ended_at {
                        *latest = traced;
                    }
                }
            }
        }
        latest.into_iter().map(|((labels, bucket), traced)| (sample(&labels, bucket), traced.to_text())).collect()
    }
}

/// The sample of a bucket, without its value.
fn sample(labels: &RequestLabels, bucket: usize) -> String {
    let bound = DURATION_BOUNDS.get(bucket).map_or("+Inf".to_owned(), |bound| format!("{:?}", *bound as f64 / 1e6));
    let mut text = format!("portico_request_duration_seconds_bucket{{le=\"{bound}\"");
    for (name, value) in labels.pairs() {
        text.push_str(&format!(",{name}=\"{}\"", value.replace('\\', "\\\\").replace('"', "\\\"")));
    }
    text.push('}');
    text
}

impl TracedDuration {
    fn to_text(self) -> String {
        let ended_at = self.ended_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (trace, seconds) = (self.trace.long_text(), self.duration.as_secs_f64());
        format!("# {{trace_id=\"{trace}\"}} {seconds:?} {}.{:03}", ended_at.as_secs(), ended_at.subsec_millis())
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::super::exposition::testing::scrape;
    use super::*;

    #[test]
    fn last_traced_request_of_a_bucket_is_its_exemplar() {
        let stats = Arc::new(ProxyStats::new(2, 10, Arc::default()));
        let labels = || RequestLabels { route: "HTTPRoute/ns/a".into(), ..RequestLabels::default() };
        for (worker, trace, milliseconds) in [(0, 1, 1), (1, 2, 1), (1, 3, 20), (0, 4, 60_000)] {
            let series = stats.series(stats.worker(worker), labels());
            series.add(StatusCode::OK, Duration::from_millis(milliseconds), 0, 0);
            series.add_exemplar(TraceId::new(trace).unwrap(), Duration::from_millis(milliseconds));
        }
        let exemplars = stats.exemplars();
        let text = scrape(Arc::clone(&stats));
        let mut found = Vec::new();
        for line in text.lines() {
            let (sample, _) = line.rsplit_once(' ').unwrap_or_default();
            if let Some(exemplar) = exemplars.get(sample) {
                let bound = sample.split('"').nth(1).unwrap();
                found.push(format!("{bound} {}", exemplar.rsplit_once(' ').unwrap().0));
            }
        }
        let trace = |number: u8| format!("# {{trace_id=\"{number:032x}\"}}");
        let expected = [
            format!("0.001 {} 0.001", trace(2)),
            format!("0.025 {} 0.02", trace(3)),
            format!("+Inf {} 60.0", trace(4)),
        ];
        assert_eq!(found, expected, "every exemplar belongs to a sample");
        assert_eq!(exemplars.len(), expected.len());
    }
}
