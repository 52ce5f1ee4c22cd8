//! Objects without a status of Portico, whose owners get events only.

use super::*;

/// Portico writes no status into a Service, so its owner gets events only.
#[tokio::test(start_paused = true)]
async fn services_get_events_but_no_status() {
    let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", "web"));
    let queue = leading_queue();
    let invalid = Diagnostic::error("metadata.annotations[konghq.com/retries]", "\"many\" cannot be read", "write 5");
    let with_problem = Arc::new(Verdict {
        generation: 1,
        diagnostics: vec![invalid.with_topic(Topic::Annotation)],
        ..Verdict::default()
    });
    // Each compile and each change of the object repeats the verdict.
    for version in 1..4 {
        queue.observe(id.clone(), Some(observed(version, 1)));
        queue.set_verdict(id.clone(), Some(with_problem.clone()));
        assert!(queue.job().is_none());
        advance(Duration::from_secs(5)).await;
        match (queue.next_event(), version) {
            (NextEvent::Now { notice, .. }, 1) => {
                assert_eq!(notice.reason, "KongConfigurationTranslationFailed");
                assert!(notice.warning && notice.note.contains("many"), "{}", notice.note);
                queue.event_written(&id, notice, false, EventSource::Problem);
            }
            (NextEvent::Nothing | NextEvent::At(_), 2..) => {}
            (event, _) => panic!("{version}: {event:?}"),
        }
    }
    queue.set_verdict(id.clone(), verdict(1));
    advance(Duration::from_secs(3600)).await;
    let NextEvent::Now { notice, .. } = queue.next_event() else { panic!("the problem was resolved") };
    assert_eq!(notice.reason, "Resolved");
    queue.event_written(&id, notice, false, EventSource::Problem);
    // Objects that the watch has not seen get no events.
    let unseen = ObjectId::new(Kind::Service, ObjectKey::new("ns", "unseen"));
    queue.set_verdict(unseen, Some(with_problem));
    advance(Duration::from_secs(5)).await;
    assert!(!matches!(queue.next_event(), NextEvent::Now { .. }));
}

/// An object of a kind that is not served has no status of Portico, so its owner gets events only.
#[tokio::test(start_paused = true)]
async fn objects_of_unserved_kinds_get_events_but_no_status() {
    let id = ObjectId::new(Kind::XTelemetryPolicy, ObjectKey::new("default", "traces"));
    let queue = leading_queue();
    queue.observe(id.clone(), Some(observed(1, 1)));
    let unserved = Diagnostic::warning("spec.targetRefs", "it is not served", "remove it");
    let diagnostics = vec![unserved.with_topic(Topic::UnservedKind)];
    queue.set_verdict(id.clone(), Some(Arc::new(Verdict { generation: 1, diagnostics, ..Verdict::default() })));
    assert!(queue.job().is_none());
    advance(Duration::from_secs(5)).await;
    let NextEvent::Now { notice, .. } = queue.next_event() else { panic!("no event") };
    assert_eq!(notice.reason, "KindNotServed");
}

fn ejection(cause: &'static str) -> Occurrence {
    Occurrence { warning: true, reason: "EndpointEjected", cause, note: "10.0.0.1:80 is ejected".to_owned() }
}

/// What happens to endpoints is no problem of the configuration: it does not end, and leaves problems as they are.
#[tokio::test(start_paused = true)]
async fn leader_reports_occurrences_of_services() {
    let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", "web"));
    let queue = StatusQueue::new();
    queue.observe(id.clone(), Some(observed(1, 1)));
    queue.report_occurrence(id.clone(), ejection("connect"));
    assert!(matches!(queue.next_event(), NextEvent::Nothing), "another replica leads");
    queue.set_leading(true);
    for _ in 0..3 {
        queue.report_occurrence(id.clone(), ejection("connect"));
    }
    queue.report_occurrence(id.clone(), ejection("active"));
    for _ in 0..2 {
        let NextEvent::Now { notice, source, known, .. } = queue.next_event() else { panic!("no event") };
        assert_eq!((notice.reason, source, known), ("EndpointEjected", EventSource::Occurrence, false));
    }
    assert!(matches!(queue.next_event(), NextEvent::Nothing), "one for each cause");
    queue.report_occurrence(ObjectId::new(Kind::Service, ObjectKey::new("ns", "unseen")), ejection("connect"));
    assert!(matches!(queue.next_event(), NextEvent::Nothing), "the Service is not in the cluster");
}

#[tokio::test(start_paused = true)]
async fn occurrences_share_the_rate_of_events() {
    let queue = leading_queue();
    for number in 0..100 {
        let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", &number.to_string()));
        queue.observe(id.clone(), Some(observed(1, 1)));
        queue.report_occurrence(id, ejection("connect"));
    }
    let mut count = 0;
    let at = loop {
        match queue.next_event() {
            NextEvent::Now { .. } => count += 1,
            NextEvent::At(at) => break at,
            NextEvent::Nothing => panic!("occurrences wait"),
        }
    };
    assert_eq!(count, 25);
    advance(at - Instant::now()).await;
    assert!(matches!(queue.next_event(), NextEvent::Now { .. }));
}

fn affected(policy: &str) -> Option<Arc<Verdict>> {
    let affected_by = Some(format!("Affected by BackendPolicy ns/{policy}"));
    Some(Arc::new(Verdict { generation: 1, affected_by, ..Verdict::default() }))
}

/// Of a Service with a policy, one normal event says so. It is no problem, so its end is no event.
#[tokio::test(start_paused = true)]
async fn services_with_policies_get_one_event() {
    let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", "web"));
    let queue = leading_queue();
    queue.observe(id.clone(), Some(observed(1, 1)));
    for (verdict, expected) in [
        (affected("a"), Some("Affected by BackendPolicy ns/a.")),
        (affected("a"), None),
        (affected("b"), Some("Affected by BackendPolicy ns/b.")),
        (verdict(1), None),
        (affected("b"), Some("Affected by BackendPolicy ns/b.")),
    ] {
        queue.set_verdict(id.clone(), verdict);
        advance(Duration::from_secs(5)).await;
        let event = match queue.next_event() {
            NextEvent::Now { notice, source, .. } => {
                assert_eq!(
                    (notice.warning, notice.reason, source),
                    (false, "BackendPolicyAffected", EventSource::Fact)
                );
                queue.event_written(&id, notice.clone(), false, source);
                Some(notice.note)
            }
            NextEvent::At(_) | NextEvent::Nothing => None,
        };
        assert_eq!(event.as_deref(), expected);
        assert!(!matches!(queue.next_event(), NextEvent::Now { .. }));
    }
}

/// After a start, thousands of Services may be affected.
#[tokio::test(start_paused = true)]
async fn facts_do_not_delay_problems() {
    let queue = leading_queue();
    for number in 0..1_000 {
        let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", &number.to_string()));
        queue.observe(id.clone(), Some(observed(1, 1)));
        queue.set_verdict(id, affected("a"));
    }
    advance(Duration::from_secs(5)).await;
    let mut facts = 0;
    while let NextEvent::Now { id, notice, source, .. } = queue.next_event() {
        assert_eq!(source, EventSource::Fact);
        queue.event_written(&id, notice, false, source);
        facts += 1;
    }
    assert_eq!(facts, 5, "they are written slowly");
    let id = ObjectId::new(Kind::Service, ObjectKey::new("ns", "0"));
    let invalid = Diagnostic::error("metadata.annotations[konghq.com/retries]", "\"many\" cannot be read", "write 5");
    let diagnostics = vec![invalid.with_topic(Topic::Annotation)];
    queue.set_verdict(id, Some(Arc::new(Verdict { generation: 1, diagnostics, ..Verdict::default() })));
    advance(Duration::from_secs(1)).await;
    let NextEvent::Now { notice, source, .. } = queue.next_event() else { panic!("the problem is not reported") };
    assert_eq!((notice.warning, source), (true, EventSource::Problem));
}
