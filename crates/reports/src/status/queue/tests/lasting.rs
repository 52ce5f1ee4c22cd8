//! As long as something is wrong with an object, a condition reports it, or an event that the API server has not
//! forgotten yet.

use std::collections::BTreeMap;

use super::*;
use crate::api::kind::StatusLayout;

/// How long an API server keeps an event.
const EVENT_TTL: Duration = Duration::from_secs(3600);

/// The topics whose diagnostics are in no condition, each with the reason of its event.
const TOPICS: [(Topic, &str); 6] = [
    (Topic::Plugin, "KongConfigurationTranslationFailed"),
    (Topic::Annotation, "KongConfigurationTranslationFailed"),
    (Topic::Conflict, "HostConflict"),
    (Topic::MissingClass, "ClassNotFound"),
    (Topic::MissingParent, "GatewayNotFound"),
    (Topic::UnservedKind, "KindNotServed"),
];

/// Two hours of one object with this verdict: the times of the events, by reason.
async fn events_of_two_hours(kind: Kind, verdict: Verdict) -> BTreeMap<&'static str, Vec<Duration>> {
    let namespace = if kind.namespaced() { "ns" } else { "" };
    let id = ObjectId::new(kind, ObjectKey::new(namespace, "x"));
    let queue = leading_queue();
    queue.set_sole_controller(true);
    queue.observe(id.clone(), Some(observed(1, 1)));
    queue.set_verdict(id.clone(), Some(Arc::new(verdict)));
    if let Some(job) = queue.job() {
        queue.complete_write(&job, 2);
        queue.observe(id.clone(), Some(observed(2, 1)));
    }
    let begin = Instant::now();
    let mut events: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    while begin.elapsed() < 2 * EVENT_TTL {
        match queue.next_event() {
            NextEvent::Now { id, notice, known, source, .. } => {
                events.entry(notice.reason).or_default().push(begin.elapsed());
                queue.event_written(&id, notice, known, source);
            }
            NextEvent::At(at) => advance(at.saturating_duration_since(Instant::now())).await,
            NextEvent::Nothing => break,
        }
        assert!(queue.job().is_none(), "{kind}: the status is written once");
    }
    events
}

/// `kubectl describe` said nothing about objects that had been broken for more than an hour.
#[tokio::test(start_paused = true)]
async fn events_without_a_condition_are_never_forgotten_while_the_problem_lasts() {
    for kind in Kind::ALL.iter().copied().filter(|kind| has_events(*kind)) {
        for (topic, reason) in TOPICS {
            let problem = Diagnostic::warning("spec", "it is wrong", "correct it").with_topic(topic);
            let verdict = Verdict { generation: 1, diagnostics: vec![problem], ..Verdict::default() };
            let events = events_of_two_hours(kind, verdict).await;
            let times = &events[reason];
            assert!(times[0] <= Duration::from_secs(2), "{kind} {topic:?}: {times:?}");
            let gaps = times.windows(2).map(|pair| pair[1] - pair[0]).chain([2 * EVENT_TTL - times[times.len() - 1]]);
            let gaps: Vec<Duration> = gaps.collect();
            assert!(gaps.iter().all(|gap| *gap < EVENT_TTL), "{kind} {topic:?}: {times:?}");
            assert_eq!((events.len(), times.len()), (1, 3), "{kind} {topic:?}: no event is written more often");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn problems_in_conditions_have_one_event() {
    for kind in Kind::ALL.iter().copied().filter(|kind| has_events(*kind)) {
        let problem = Diagnostic::error("spec", "it is wrong", "correct it");
        let conditions = vec![Condition::new(Code::ObjectInvalid, vec![problem])];
        let verdict = Verdict { generation: 1, conditions, ..Verdict::default() };
        let events = events_of_two_hours(kind, verdict).await;
        let times = &events["KongConfigurationTranslationFailed"];
        // The status of a policy has conditions only in its entries for ancestors, of which this one has none.
        let is_in_status = !matches!(
            kind.status_layout(),
            StatusLayout::Addresses | StatusLayout::Ancestors | StatusLayout::NotWritten
        );
        assert_eq!(times.len(), if is_in_status { 1 } else { 3 }, "{kind}: {times:?}");
    }
}
