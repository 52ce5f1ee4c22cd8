//! The labels of all metrics that say which controller has exported them.

use std::sync::Arc;

/// The labels that say which controller a series is of.
#[derive(Clone, Debug)]
pub(in crate::app) struct ControllerLabels {
    pub(in crate::app) class: String,
    pub(in crate::app) namespace: String,
    pub(in crate::app) pod: Arc<str>,
}

impl ControllerLabels {
    /// These labels, and then those of a series.
    pub(super) fn with<'l>(&'l self, own: &[(&'l str, &'l str)]) -> Vec<(&'l str, &'l str)> {
        let mut labels = vec![
            ("controller_class", &*self.class),
            ("controller_namespace", &*self.namespace),
            ("controller_pod", &*self.pod),
        ];
        labels.extend_from_slice(own);
        labels
    }
}
