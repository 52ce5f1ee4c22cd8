//! What the leader does, and what the other replicas do.

use super::*;

#[tokio::test(start_paused = true)]
async fn only_the_leader_has_due_writes() {
    let queue = StatusQueue::new();
    for name in ["a", "b"] {
        queue.observe(route(name), Some(observed(1, 1)));
        queue.set_verdict(route(name), verdict(1));
    }
    assert!(matches!(queue.next(100), NextWrite::Nothing));
    queue.set_leading(true);
    let (first, second) = (queue.job().unwrap(), queue.job().unwrap());
    queue.set_leading(false);
    queue.set_leading(true);
    // Writes in flight were dropped; outcomes that arrive late are ignored.
    assert_eq!([queue.job().unwrap().id, queue.job().unwrap().id], [first.id, second.id]);
    assert!(queue.job().is_none());
}

/// The status has the results of the leader only.
#[tokio::test(start_paused = true)]
async fn replicas_report_where_they_cannot_listen() {
    for (leading, expected) in [(false, "ReplicaNotListening"), (true, "Invalid")] {
        let queue = StatusQueue::new();
        queue.set_replica("Pod p on node n");
        queue.set_leading(leading);
        queue.observe(gateway(), Some(observed(1, 1)));
        let in_use = Diagnostic::error("spec.listeners[0].port", "port 80 is in use", "stop that process")
            .with_topic(Topic::Listening);
        let conditions = vec![Condition::new(Code::GatewayNotProgrammed, vec![in_use])];
        queue.set_verdict(gateway(), Some(Arc::new(Verdict { generation: 1, conditions, ..Verdict::default() })));
        advance(Duration::from_secs(5)).await;
        let NextEvent::Now { notice, id, .. } = queue.next_event() else { panic!("no event") };
        assert_eq!((id, notice.reason), (gateway(), expected));
        assert_eq!(notice.note.contains("on Pod p on node n"), !leading, "{}", notice.note);
        queue.event_written(&gateway(), notice, false, EventSource::Problem);
        assert!(!matches!(queue.next_event(), NextEvent::Now { .. }));
    }
}
