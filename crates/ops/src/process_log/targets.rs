//! Targets of events as users write and read them: in filters and lines, all crates of Portico are one tree of modules.

use std::borrow::Cow;
use std::fmt;

use tracing::subscriber::Interest;
use tracing::{Event, Metadata, Subscriber};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// Returns the target that users see instead of `target`: `portico::proxy::http` instead of
/// `portico_proxy::proxy::http`. Targets of other crates stay as they are.
pub(super) fn visible_target(target: &str) -> Cow<'_, str> {
    match target.strip_prefix("portico_") {
        Some(rest) => {
            let modules = rest.find("::").map_or("", |at| &rest[at..]);
            Cow::Owned(format!("portico{modules}"))
        }
        None => Cow::Borrowed(target),
    }
}

/// A filter or a format that applies to the targets that users see.
#[derive(Clone, Debug)]
pub(super) struct VisibleTargets<T>(pub(super) T);

impl VisibleTargets<Targets> {
    fn enables(&self, metadata: &Metadata<'_>) -> bool {
        self.0.would_enable(&visible_target(metadata.target()), metadata.level())
    }
}

impl<S> Filter<S> for VisibleTargets<Targets> {
    fn enabled(&self, metadata: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        self.enables(metadata)
    }

    /// Is the same for all events of a place in the source, so that a disabled event costs one comparison.
    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enables(metadata) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        <Targets as Filter<S>>::max_level_hint(&self.0)
    }
}

impl<S, N, F> FormatEvent<S, N> for VisibleTargets<F>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'fields> FormatFields<'fields> + 'static,
    F: FormatEvent<S, N>,
{
    /// The inner format must be set to write colors or none, because it does not see which of both `writer` expects.
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let target = event.metadata().target();
        let visible = visible_target(target);
        let mut writer = TargetWriter { writer, target, visible: &visible };
        self.0.format_event(context, Writer::new(&mut writer), event)
    }
}

/// Writes `visible` instead of `target`, which formats write in one piece. Text that only contains the target stays as
/// it is.
struct TargetWriter<'text, 'out> {
    writer: Writer<'out>,
    target: &'text str,
    visible: &'text str,
}

impl fmt::Write for TargetWriter<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.writer.write_str(if text == self.target { self.visible } else { text })
    }
}

#[cfg(test)]
mod tests {
    use tracing::{Level, debug_span, info_span, subscriber};
    use tracing_subscriber::Registry;

    use super::*;

    #[test]
    fn targets_of_the_crates_of_portico_are_those_of_one() {
        for (target, expected) in [
            ("portico_proxy::proxy::http", "portico::proxy::http"),
            ("portico_plugin_api::plugin_api::portico_proxy", "portico::plugin_api::portico_proxy"),
            ("portico_proxy", "portico"),
        ] {
            assert_eq!(visible_target(target), expected, "{target}");
        }
        for target in ["portico::app::run", "portico", "porticos_proxy::proxy", "kube::portico_proxy::x", "h2", ""] {
            assert!(matches!(visible_target(target), Cow::Borrowed(same) if same == target), "{target}");
        }
    }

    #[test]
    fn verdicts_are_cached_and_the_highest_level_is_known() {
        let targets = Targets::new().with_default(Level::WARN).with_target("portico::proxy", Level::INFO);
        let filter: &dyn Filter<Registry> = &VisibleTargets(targets);
        let spans = subscriber::with_default(tracing_subscriber::registry(), || {
            [
                info_span!(target: "portico_proxy::proxy::http", "enabled"),
                info_span!(target: "portico_logins::plugins::jwt", "of another module"),
                debug_span!(target: "portico_proxy::proxy::http", "of a lower level"),
            ]
        });
        let verdicts = spans.map(|span| {
            let interest = filter.callsite_enabled(span.metadata().unwrap());
            (interest.is_always(), interest.is_never())
        });
        assert_eq!(verdicts, [(true, false), (false, true), (false, true)]);
        assert_eq!(filter.max_level_hint(), Some(LevelFilter::INFO));
    }
}
