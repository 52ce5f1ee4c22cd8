//! Traces of all requests, as the flags `--trace-…` configure them.

use crate::args::{TraceFormatArg, TraceOptions};
use crate::log_delivery::DEFAULT_LOG_QUEUE;
use crate::otlp_delivery::OtlpSignal;
use crate::otlp_servers::OtlpServers;
use crate::plugin_api::trace::TraceFormat;
use crate::proxy::{HeaderSelection, LateRecording, RequestTracer, TraceSelection};

/// The tracer, whose queue begins at once.
pub(super) fn start(options: &TraceOptions, servers: &OtlpServers<'_>) -> anyhow::Result<RequestTracer> {
    let queue = servers.start("--trace-otlp-endpoint", &options.endpoint, OtlpSignal::Traces, DEFAULT_LOG_QUEUE)?;
    let formats: Vec<_> = options.propagation.iter().copied().filter_map(format).collect();
    let header = options.header.clone().map(|(name, places)| HeaderSelection::new(name, places));
    let selection = TraceSelection {
        rate: options.sampling_rate,
        rules: options.rules.clone(),
        header,
        late: LateRecording::new(options.errors, options.slow),
    };
    Ok(RequestTracer::new(selection, &formats, servers.resource(), queue))
}

fn format(format: TraceFormatArg) -> Option<TraceFormat> {
    Some(match format {
        TraceFormatArg::W3c => TraceFormat::W3c,
        TraceFormatArg::B3 => TraceFormat::B3,
        TraceFormatArg::B3Single => TraceFormat::B3Single,
        TraceFormatArg::Jaeger => TraceFormat::Jaeger,
        TraceFormatArg::Ot => TraceFormat::Ot,
        TraceFormatArg::Datadog => TraceFormat::Datadog,
        TraceFormatArg::Aws => TraceFormat::Aws,
        TraceFormatArg::Gcp => TraceFormat::Gcp,
        TraceFormatArg::Instana => TraceFormat::Instana,
        TraceFormatArg::None => return None,
    })
}
