//! What prometheus plugins count, behind our own families, while there is such a plugin.

use std::sync::Arc;

use crate::metrics::Exposition;
use crate::plugin::State;
use crate::plugins::prometheus::{self, Connections, Facts, Form};
use crate::version;

pub(super) struct KongMetrics {
    /// Where the plugins keep what they count.
    pub(super) state: State,
    /// The name of this process among its replicas.
    pub(super) node: Arc<str>,
}

impl KongMetrics {
    /// `requests` and `connections` are those of the whole process.
    pub(super) fn append_to(
        &self,
        page: String,
        exposition: Exposition,
        requests: u64,
        connections: Connections,
    ) -> String {
        let Some(series) = prometheus::series(&self.state) else { return page };
        let facts = Facts {
            node: self.node.to_string(),
            version: version::VERSION.to_owned(),
            requests,
            connections,
            targets: Vec::new(),
        };
        match exposition {
            Exposition::Text => page + &series.text(&facts, Form::Text),
            // There the end is marked.
            Exposition::OpenMetrics => {
                let page = page.strip_suffix(END).unwrap_or(&page);
                [page, &series.text(&facts, Form::OpenMetrics), END].concat()
            }
        }
    }
}

const END: &str = "# EOF\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_are_there_while_there_is_a_plugin() {
        let state = State::default();
        let metrics = KongMetrics { state: state.clone(), node: "one".into() };
        let append = |page: &str, form| metrics.append_to(page.to_owned(), form, 3, Connections::default());
        let page = "a 1\n# EOF\n";
        assert_eq!(append(page, Exposition::OpenMetrics), page);
        let plugin = prometheus::hold_series(&state);
        let open = append(page, Exposition::OpenMetrics);
        let between = open.strip_prefix("a 1\n").and_then(|rest| rest.strip_suffix("\n# EOF\n")).unwrap();
        assert!(between.contains("kong_node_info{node_id=\"one\",version=") && !between.contains("EOF"), "{open}");
        let text = append("a 1\n", Exposition::Text);
        assert!(text.starts_with("a 1\n# HELP kong_") && !text.contains("EOF"), "{text}");
        drop(plugin);
        assert_eq!(append(page, Exposition::Text), page);
    }
}
