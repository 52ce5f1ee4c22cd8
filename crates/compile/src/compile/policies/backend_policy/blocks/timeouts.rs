//! `spec.timeouts`.

use std::time::Duration;

use super::block_reader::BlockReader;
use crate::api::portico::BackendTimeoutsSpec;
use crate::diagnostic::Diagnostic;
use crate::upstream::settings::RequestTimeouts;

pub(super) fn translate(spec: &BackendTimeoutsSpec, block: &mut BlockReader<'_>) -> RequestTimeouts {
    let mut longest = |field: &str, text: &Option<String>| block.duration(field, text.as_ref(), ["0s", "9999h"]);
    let request = longest("request", &spec.request);
    let backend_request = longest("backendRequest", &spec.backend_request);
    let stream_idle = longest("streamIdle", &spec.stream_idle);
    let max_duration = longest("maxDuration", &spec.max_duration);
    RequestTimeouts {
        connect: block.duration("connect", spec.connect.as_ref(), ["1ms", "1h"]),
        idle: block.duration("idle", spec.idle.as_ref(), ["0s", "24h"]),
        request,
        backend_request,
        stream_idle,
        max_duration,
    }
}

/// Warnings about timeouts that never expire, because one that contains them expires first.
pub(in crate::compile::policies::backend_policy) fn notes(timeouts: &RequestTimeouts) -> Vec<Diagnostic> {
    let RequestTimeouts { connect, idle: _, request, backend_request, stream_idle, max_duration } = *timeouts;
    let limits = |timeout: Option<Duration>| timeout.filter(|timeout| !timeout.is_zero());
    let mut notes = Vec::new();
    for ((inner, inner_timeout), (outer, outer_timeout)) in [
        (("connect", connect), ("backendRequest", backend_request)),
        (("connect", connect), ("request", request)),
        (("backendRequest", backend_request), ("request", request)),
        (("streamIdle", stream_idle), ("request", request)),
        (("request", request), ("maxDuration", max_duration)),
    ] {
        if let (Some(inner_timeout), Some(outer_timeout)) = (limits(inner_timeout), limits(outer_timeout))
            && inner_timeout > outer_timeout
        {
            let message = format!("it is longer than {outer}, which expires first");
            let remedy = format!("shorten {inner}, or lengthen {outer}");
            notes.push(Diagnostic::warning(format!("spec.timeouts.{inner}"), message, remedy));
        }
    }
    notes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_that_never_expire_are_reported() {
        let seconds = |seconds| Some(Duration::from_secs(seconds));
        let timeouts = RequestTimeouts {
            connect: seconds(5),
            request: seconds(10),
            backend_request: seconds(20),
            max_duration: seconds(0),
            ..RequestTimeouts::default()
        };
        let texts: Vec<String> = notes(&timeouts).iter().map(Diagnostic::to_string).collect();
        let expected = "spec.timeouts.backendRequest: it is longer than request, which expires first; shorten \
                        backendRequest, or lengthen request";
        assert_eq!(texts, [expected]);
        assert!(notes(&RequestTimeouts { request: seconds(0), ..timeouts }).is_empty(), "0s is no timeout");
    }
}
