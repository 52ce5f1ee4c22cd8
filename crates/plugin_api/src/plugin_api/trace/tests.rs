//! Tests of formats with the examples of their specifications and with broken fields, and of sampling.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::context::{AttemptParent, ParentContext, RequestTrace, SpanId, TraceId};
use super::extract::extract;
use super::format::{InjectedFormat, TraceFormat};
use super::propagation::Propagation;
use super::sampling::{Sampling, SamplingStrategy};

fn headers(text: &str) -> HeaderMap {
    let lines = text.split('|').filter(|line| !line.is_empty());
    let pairs = lines.map(|line| line.split_once(": ").unwrap());
    pairs
        .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value.to_owned()).unwrap()))
        .collect()
}

fn propagation(inject: &[InjectedFormat]) -> Propagation {
    Propagation {
        extract: TraceFormat::ALL_READ.into(),
        clear: Box::new([]),
        inject: inject.into(),
        default_format: TraceFormat::W3c,
    }
}

/// The context as `format trace span sampled`.
fn extracted(text: &str) -> Option<String> {
    let context = propagation(&[]).extract(&headers(text))?;
    let ParentContext { format, trace, span, is_sampled, .. } = context;
    let trace = trace.map_or_else(|| "-".to_owned(), |trace| trace.to_string());
    let span = span.map_or_else(|| "-".to_owned(), |span| span.to_string());
    let sampled = is_sampled.map_or("-", |sampled| if sampled { "1" } else { "0" });
    Some(format!("{} {trace} {span} {sampled}", format.name()))
}

// docs/kong-compatibility.md, 4.38
#[test]
fn contexts_of_all_formats_are_read() {
    let cases = [
        // W3C Trace Context, sections 3.2.4 and 4.
        (
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "w3c 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 1",
        ),
        (
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00",
            "w3c 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 0",
        ),
        (
            "traceparent: cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-what-the-future",
            "w3c 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 1",
        ),
        // b3-propagation.
        (
            "X-B3-TraceId: 80f198ee56343ba864fe8b2a57d3eff7|X-B3-ParentSpanId: 05e3ac9a4f6e3b90|\
             X-B3-SpanId: e457b5a2e4d86bd1|X-B3-Sampled: 1",
            "b3 80f198ee56343ba864fe8b2a57d3eff7 e457b5a2e4d86bd1 1",
        ),
        ("X-B3-TraceId: 64fe8b2a57d3eff7|X-B3-SpanId: e457b5a2e4d86bd1", "b3 64fe8b2a57d3eff7 e457b5a2e4d86bd1 -"),
        (
            "X-B3-TraceId: 64fe8b2a57d3eff7|X-B3-SpanId: e457b5a2e4d86bd1|X-B3-Flags: 1",
            "b3 64fe8b2a57d3eff7 e457b5a2e4d86bd1 1",
        ),
        ("X-B3-Sampled: 0", "b3 - - 0"),
        (
            "b3: 80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90",
            "b3-single 80f198ee56343ba864fe8b2a57d3eff7 e457b5a2e4d86bd1 1",
        ),
        ("b3: 0", "b3-single - - 0"),
        ("uber-trace-id: 3bd792aaf9d7c1e0:1a2b:0:1", "jaeger 3bd792aaf9d7c1e0 0000000000001a2b 1"),
        ("uber-trace-id: abcdef%3A1%3A0%3A0", "jaeger 0000000000abcdef 0000000000000001 0"),
        (
            "ot-tracer-traceid: 0af7651916cd43dd|ot-tracer-spanid: b7ad6b7169203331|ot-tracer-sampled: true",
            "ot 0af7651916cd43dd b7ad6b7169203331 1",
        ),
        (
            "x-datadog-trace-id: 1234567890|x-datadog-parent-id: 987654321|x-datadog-sampling-priority: -1",
            "datadog 00000000499602d2 000000003ade68b1 0",
        ),
        (
            "x-datadog-trace-id: 1|x-datadog-parent-id: 2|x-datadog-tags: _dd.p.dm=-1,_dd.p.tid=640cfd8d00000000",
            "datadog 640cfd8d000000000000000000000001 0000000000000002 -",
        ),
        (
            "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1",
            "aws 5759e988bd862e3fe1be46a994272793 53995c3f42cd8ad8 1",
        ),
        (
            "X-Amzn-Trace-Id: Self=1-67891234-12456789abcdef012345678;Root=1-67891233-abcdef012345678912345678",
            "aws 67891233abcdef012345678912345678 - -",
        ),
        (
            "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/1;o=1",
            "gcp 105445aa7843bc8bf206b12000100000 0000000000000001 1",
        ),
        (
            "X-INSTANA-T: ffc22dc6d1f8cd9e|X-INSTANA-S: 2fb7b6a1c5c8ae66|X-INSTANA-L: 1,correlationType=web",
            "instana ffc22dc6d1f8cd9e 2fb7b6a1c5c8ae66 1",
        ),
        ("X-INSTANA-L: 0", "instana - - 0"),
        // The first format of the list counts.
        (
            "X-B3-Sampled: 0|traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "w3c 4bf92f3577b34da6a3ce929d0e0e4736 00f067aa0ba902b7 1",
        ),
    ];
    for (text, expected) in cases {
        assert_eq!(extracted(text).as_deref(), Some(expected), "{text}");
    }
}

#[test]
fn broken_and_contradictory_contexts_count_as_absent() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let cases = [
        String::new(),
        format!("traceparent: {PARENT}|traceparent: {PARENT}"),
        format!("traceparent: {PARENT}-00"),
        format!("traceparent: {PARENT}0"),
        format!("traceparent: {}", PARENT.to_uppercase()),
        format!("traceparent: ff{}", &PARENT[2..]),
        format!("traceparent: cc{}.", &PARENT[2..]),
        "traceparent: 00-00000000000000000000000000000000-00f067aa0ba902b7-01".to_owned(),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01".to_owned(),
        "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e473-600f067aa0ba902b7-01".to_owned(),
        "traceparent: 00-+bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01".to_owned(),
        "X-B3-TraceId: 64fe8b2a57d3eff7".to_owned(),
        "X-B3-TraceId: 64fe8b2a57d3eff7|X-B3-SpanId: e457b5a2e4d86bd1|X-B3-Sampled: yes".to_owned(),
        "X-B3-TraceId: 64fe8b2a57d3eff7|X-B3-SpanId: e457b5a2e4d86bd1|X-B3-Sampled: 0|X-B3-Flags: 1".to_owned(),
        "X-B3-TraceId: 64fe8b2a57d3eff7|X-B3-SpanId: e457b5a2e4d86bd1|X-B3-ParentSpanId: 1".to_owned(),
        "X-B3-TraceId: 0000000000000000|X-B3-SpanId: e457b5a2e4d86bd1".to_owned(),
        "b3: 64fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90-1".to_owned(),
        "b3: 64fe8b2a57d3eff7|b3: 1".to_owned(),
        "uber-trace-id: 0:1:0:1".to_owned(),
        "uber-trace-id: 1:1:0".to_owned(),
        "uber-trace-id: 1:12345678901234567:0:1".to_owned(),
        "uber-trace-id: -1:1:0:1".to_owned(),
        "ot-tracer-traceid: 0af7651916cd43dd".to_owned(),
        "x-datadog-trace-id: 0".to_owned(),
        "x-datadog-trace-id: 99999999999999999999".to_owned(),
        "x-datadog-trace-id: +1".to_owned(),
        "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a99427279".to_owned(),
        "X-Amzn-Trace-Id: Root=1-5759e988-bd862e3fe1be46a994272793;Root=1-5759e988-bd862e3fe1be46a994272793".to_owned(),
        "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/0;o=1".to_owned(),
        "X-Cloud-Trace-Context: 105445aa7843bc8bf206b12000100000/1;o=9".to_owned(),
        "X-INSTANA-T: ffc22dc6d1f8cd9e".to_owned(),
        format!("b3: {}", "1".repeat(10_000)),
    ];
    for text in cases {
        assert_eq!(extracted(&text), None, "{text}");
    }
}

/// A deterministic walk through damaged values: nothing panics, and what is accepted can be written and read again.
#[test]
fn damaged_contexts_are_ignored_or_survive_a_round_trip() {
    let samples = [
        ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
        ("b3", "80f198ee56343ba864fe8b2a57d3eff7-e457b5a2e4d86bd1-1-05e3ac9a4f6e3b90"),
        ("uber-trace-id", "3bd792aaf9d7c1e0:1a2b:0:1"),
        ("x-amzn-trace-id", "Root=1-5759e988-bd862e3fe1be46a994272793;Parent=53995c3f42cd8ad8;Sampled=1"),
        ("x-cloud-trace-context", "105445aa7843bc8bf206b12000100000/1;o=1"),
    ];
    let mut random = fastrand::Rng::with_seed(7);
    let all = propagation(&[InjectedFormat::Preserve]);
    for (name, sample) in samples {
        for _ in 0..2000 {
            let mut bytes = sample.as_bytes().to_vec();
            for _ in 0..random.usize(0..3) {
                let place = random.usize(0..bytes.len());
                match random.u8(0..3) {
                    0 => bytes[place] = random.u8(0x20..0x7f),
                    1 => bytes.insert(place, random.u8(0x20..=0xff).max(0x80)),
                    _ => bytes.truncate(place.max(1)),
                }
            }
            let Ok(value) = HeaderValue::from_bytes(&bytes) else { continue };
            let mut fields = HeaderMap::new();
            fields.insert(HeaderName::from_static(name), value);
            let Some(parent) = all.extract(&fields) else { continue };
            let context = RequestTrace::new(Some(parent), parent.is_sampled.unwrap_or(false), false);
            all.inject(&context, &mut fields);
            let again = all.extract(&fields).unwrap();
            assert_eq!((again.trace, again.span), (Some(context.trace), Some(context.upstream_span)), "{bytes:?}");
            assert_eq!(again.is_sampled, Some(context.is_sampled), "{bytes:?}");
        }
    }
}

fn context(format: Option<TraceFormat>, trace: TraceId) -> RequestTrace {
    RequestTrace {
        trace,
        parent: SpanId::new(1),
        server_span: SpanId::new(2).unwrap(),
        upstream_span: SpanId::new(0xabc).unwrap(),
        is_sampled: true,
        parent_is_sampled: None,
        format,
    }
}

fn injected(inject: &[InjectedFormat], context: &RequestTrace, before: &str) -> String {
    let mut fields = headers(before);
    propagation(inject).inject(context, &mut fields);
    let mut lines: Vec<String> =
        fields.iter().map(|(name, value)| format!("{name}: {}", value.to_str().unwrap())).collect();
    lines.sort();
    lines.join("|")
}

#[test]
fn contexts_of_all_formats_are_written() {
    let long = TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap();
    let short = TraceId::short(0x1234).unwrap();
    let cases = [
        (TraceFormat::W3c, long, "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-01"),
        (TraceFormat::W3c, short, "traceparent: 00-00000000000000000000000000001234-0000000000000abc-01"),
        (
            TraceFormat::B3,
            short,
            "x-b3-parentspanid: 0000000000000002|x-b3-sampled: 1|x-b3-spanid: 0000000000000abc|\
             x-b3-traceid: 0000000000001234",
        ),
        (TraceFormat::B3Single, long, "b3: 4bf92f3577b34da6a3ce929d0e0e4736-0000000000000abc-1-0000000000000002"),
        (TraceFormat::Jaeger, short, "uber-trace-id: 0000000000001234:0000000000000abc:0000000000000002:01"),
        (
            TraceFormat::Ot,
            short,
            "ot-tracer-sampled: 1|ot-tracer-spanid: 0000000000000abc|ot-tracer-traceid: 0000000000001234",
        ),
        (
            TraceFormat::Datadog,
            short,
            "x-datadog-parent-id: 2748|x-datadog-sampling-priority: 1|x-datadog-trace-id: 4660",
        ),
        (
            TraceFormat::Datadog,
            long,
            "x-datadog-parent-id: 2748|x-datadog-sampling-priority: 1|x-datadog-tags: _dd.p.tid=4bf92f3577b34da6|\
             x-datadog-trace-id: 11803532876627986230",
        ),
        (
            TraceFormat::Aws,
            long,
            "x-amzn-trace-id: Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=0000000000000abc;Sampled=1",
        ),
        (TraceFormat::Gcp, long, "x-cloud-trace-context: 4bf92f3577b34da6a3ce929d0e0e4736/2748;o=1"),
        (TraceFormat::Instana, short, "x-instana-l: 1|x-instana-s: 0000000000000abc|x-instana-t: 0000000000001234"),
    ];
    for (format, trace, expected) in cases {
        assert_eq!(injected(&[InjectedFormat::Format(format)], &context(None, trace), ""), expected, "{format:?}");
        // `preserve` writes the format of the request.
        let of_request = context(Some(format), trace);
        assert_eq!(injected(&[InjectedFormat::Preserve], &of_request, ""), expected, "{format:?}");
    }
}

#[test]
fn states_of_the_same_trace_are_kept_and_all_others_removed() {
    let trace = TraceId::new(1).unwrap();
    let parent = "traceparent: 00-00000000000000000000000000000001-0000000000000abc-01";
    let kept = "tracestate: rojo=00f067aa0ba902b7,congo=t61rcWkgMzE";
    let too_many = format!("tracestate: {}", vec!["a=b"; 33].join(","));
    let baggage = "baggage: userId=alice";
    let cases = [
        (Some(TraceFormat::W3c), kept, format!("{parent}|{kept}")),
        (Some(TraceFormat::W3c), too_many.as_str(), parent.to_owned()),
        (Some(TraceFormat::W3c), "tracestate: broken", parent.to_owned()),
        (Some(TraceFormat::B3), kept, parent.to_owned()),
        (None, kept, parent.to_owned()),
        (None, baggage, format!("{baggage}|{parent}")),
    ];
    for (format, before, expected) in cases {
        let written = injected(&[InjectedFormat::Format(TraceFormat::W3c)], &context(format, trace), before);
        assert_eq!(written, expected, "{format:?} {before}");
    }
    let tags = "x-datadog-tags: _dd.p.dm=-1,_dd.p.tid=0000000000000009";
    let written = injected(&[InjectedFormat::Preserve], &context(Some(TraceFormat::Datadog), trace), tags);
    assert!(written.contains("x-datadog-tags: _dd.p.dm=-1|"), "{written}");
}

/// What an earlier tracer has written is changed, and the context of another trace is not.
#[test]
fn contexts_that_are_written_become_recorded_in_all_formats() {
    let trace = TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap();
    let recorded = context(None, trace);
    let unrecorded = RequestTrace { is_sampled: false, ..recorded };
    let formats = TraceFormat::ALL_READ.into_iter().filter(|format| *format != TraceFormat::B3);
    for format in formats.chain([TraceFormat::B3, TraceFormat::B3Single]) {
        let formats = propagation(&[InjectedFormat::Format(format)]);
        let (mut fields, mut expected) = (HeaderMap::new(), HeaderMap::new());
        formats.inject(&unrecorded, &mut fields);
        formats.inject(&recorded, &mut expected);
        assert_ne!(fields, expected, "{format:?}");
        Propagation::mark_recorded(&recorded, &mut fields);
        assert_eq!(fields, expected, "{format:?}");
        let other = RequestTrace { trace: TraceId::new(7).unwrap(), ..recorded };
        formats.inject(&unrecorded, &mut fields);
        let before = fields.clone();
        Propagation::mark_recorded(&other, &mut fields);
        assert_eq!(fields, before, "{format:?}");
    }
}

/// An endpoint may read another format than Portico does.
#[test]
fn no_format_keeps_the_span_and_the_decision_of_the_client() {
    let trace = TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap();
    let unrecorded = |format| RequestTrace { is_sampled: false, ..context(format, trace) };
    let all: Vec<TraceFormat> = TraceFormat::ALL_READ.into_iter().chain([TraceFormat::B3Single]).collect();
    for of_request in &all {
        // Of a client that records its span.
        let mut sent = HeaderMap::new();
        let of_client = RequestTrace { upstream_span: SpanId::new(0xdef).unwrap(), ..context(None, trace) };
        for format in &all {
            propagation(&[InjectedFormat::Format(*format)]).inject(&of_client, &mut sent);
        }
        let mut fields = sent.clone();
        propagation(&[InjectedFormat::Preserve]).inject(&unrecorded(Some(*of_request)), &mut fields);
        for format in &all {
            let changed = format.fields().iter().any(|name| fields.get(name) != sent.get(name));
            let mut own = fields.clone();
            let others: Vec<&HeaderName> =
                all.iter().filter(|other| *other != format).flat_map(|it| it.fields()).collect();
            others.into_iter().for_each(|name| drop(own.remove(name)));
            let found = extract(*format, &own).unwrap();
            assert!(changed && found.span == SpanId::new(0xabc), "{of_request:?}, {format:?}: {fields:?}");
            assert_eq!(found.is_sampled, Some(false), "{of_request:?}, {format:?}: {fields:?}");
        }
        let rules = propagation(&[InjectedFormat::Preserve]);
        let declared: Vec<&HeaderName> = rules.changed_fields().collect();
        assert!(fields.keys().all(|name| declared.contains(&name)), "{declared:?}");
        Propagation::mark_recorded(&context(Some(*of_request), trace), &mut fields);
        assert!(!fields.values().any(|value| value == "0"), "{fields:?}");
    }
    // What is not read is not Portico's.
    let rules = Propagation::preserving(&[TraceFormat::W3c]);
    let mut fields = headers("b3: 1|x-b3-sampled: 1");
    rules.inject(&unrecorded(None), &mut fields);
    assert_eq!((fields["b3"].to_str().unwrap(), fields["x-b3-sampled"].to_str().unwrap()), ("1", "1"));
    // Nor is anything without formats.
    let mut fields = headers("b3: 1|traceparent: x");
    Propagation { inject: Box::new([]), ..propagation(&[]) }.inject(&unrecorded(None), &mut fields);
    assert_eq!(fields, headers("b3: 1|traceparent: x"));
}

#[test]
fn flag_of_b3_for_debugging_stays_if_the_client_is_respected() {
    let trace = TraceId::short(0x1234).unwrap();
    let single = "0000000000001234-0000000000000abc-d-0000000000000002";
    let fields = "x-b3-flags: 1|x-b3-parentspanid: 0000000000000002|x-b3-spanid: 0000000000000abc|\
                  x-b3-traceid: 0000000000001234";
    for (format, before, expected) in [
        (TraceFormat::B3Single, "b3: 0000000000001234-0000000000000def-d".to_owned(), format!("b3: {single}")),
        (TraceFormat::B3Single, "b3: d".to_owned(), format!("b3: {single}")),
        (TraceFormat::B3, "x-b3-flags: 1|x-b3-sampled: 1".to_owned(), fields.to_owned()),
    ] {
        let respected = RequestTrace { parent_is_sampled: Some(true), ..context(Some(format), trace) };
        assert_eq!(injected(&[InjectedFormat::Preserve], &respected, &before), expected, "{before}");
        for trace in
            [RequestTrace { parent_is_sampled: None, ..respected }, RequestTrace { is_sampled: false, ..respected }]
        {
            let written = injected(&[InjectedFormat::Preserve], &trace, &before);
            assert!(!written.contains("-d-") && !written.contains("flags"), "{written}");
        }
    }
}

#[test]
fn fields_are_cleared_before_contexts_are_written() {
    let rules = Propagation {
        clear: Box::new([HeaderName::from_static("b3"), HeaderName::from_static("traceparent")]),
        ..propagation(&[InjectedFormat::Format(TraceFormat::W3c)])
    };
    let mut fields = headers("b3: 1|traceparent: x|a: b");
    rules.inject(&context(None, TraceId::new(1).unwrap()), &mut fields);
    let mut names: Vec<&str> = fields.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "traceparent"]);
    let rules = Propagation { extract: Box::new([]), ..rules };
    let changed: Vec<&str> = rules.changed_fields().map(HeaderName::as_str).collect();
    assert_eq!(changed, ["b3", "traceparent", "traceparent", "tracestate"]);
}

#[test]
fn clients_cannot_force_records_beyond_the_rate() {
    let cases = [
        (SamplingStrategy::ParentDrop, Some(false), 1.0, 0.0, false),
        (SamplingStrategy::ParentDrop, Some(true), 0.1, 0.5, false),
        (SamplingStrategy::ParentDrop, Some(true), 0.1, 0.05, true),
        (SamplingStrategy::ParentDrop, None, 0.1, 0.05, true),
        (SamplingStrategy::Parent, Some(true), 0.0, 0.5, true),
        (SamplingStrategy::Parent, Some(false), 1.0, 0.0, false),
        (SamplingStrategy::Parent, None, 0.0, 0.0, false),
        (SamplingStrategy::Parent, None, 1.0, 0.999, true),
    ];
    for (strategy, parent, rate, draw, expected) in cases {
        let decision = Sampling { rate, strategy }.decide_by(parent, || draw);
        assert_eq!(decision, expected, "{strategy:?} {parent:?} {rate} {draw}");
    }
}

#[test]
fn traces_continue_those_of_clients() {
    let trace = TraceId::short(5).unwrap();
    let parent = ParentContext { format: TraceFormat::B3, trace: Some(trace), span: SpanId::new(6), is_sampled: None };
    let context = RequestTrace::new(Some(parent), true, false);
    assert_eq!((context.trace, context.parent, context.format), (trace, SpanId::new(6), Some(TraceFormat::B3)));
    assert_ne!(Some(context.server_span), context.parent, "a client that sends a request twice has two spans");
    let decision = ParentContext { trace: None, span: None, is_sampled: Some(false), ..parent };
    let context = RequestTrace::new(Some(decision), false, true);
    assert!(context.parent.is_none() && context.trace.is_short() && context.trace.high() == 0);
    assert_ne!(RequestTrace::new(None, true, false).trace, RequestTrace::new(None, true, false).trace);
}

#[test]
fn each_attempt_has_a_span_that_its_endpoint_gets() {
    let context = context(None, TraceId::new(0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736).unwrap());
    let formats = [
        TraceFormat::W3c,
        TraceFormat::B3,
        TraceFormat::B3Single,
        TraceFormat::Jaeger,
        TraceFormat::Ot,
        TraceFormat::Datadog,
        TraceFormat::Aws,
        TraceFormat::Gcp,
        TraceFormat::Instana,
    ];
    for format in formats {
        let mut fields = HeaderMap::new();
        let formats = propagation(&[InjectedFormat::Format(format)]);
        formats.inject(&context, &mut fields);
        fields.insert("x-other", HeaderValue::from_str(&context.upstream_span.to_string()).unwrap());
        let mut parent = AttemptParent::of(&context).unwrap();
        let first = fields.clone();
        parent.write(&mut fields);
        assert_eq!(fields, first, "{format:?}");
        for number in [1, 2, 31] {
            parent.begin(number);
            parent.write(&mut fields);
            let mut expected = first.clone();
            let attempt = RequestTrace { upstream_span: context.upstream_span.of_attempt(number), ..context };
            formats.inject(&attempt, &mut expected);
            assert_eq!(fields, expected, "{format:?}");
            assert_ne!(fields, first, "{format:?}");
        }
    }
    let mut spans: Vec<u64> = (0..32).map(|number| context.upstream_span.of_attempt(number).value()).collect();
    spans.sort_unstable();
    spans.dedup();
    assert_eq!(spans.len(), 32);
    assert_eq!(AttemptParent::of(&RequestTrace { is_sampled: false, ..context }), None);
}
