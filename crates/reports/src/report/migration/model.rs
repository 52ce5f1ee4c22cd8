//! What a migration report says, before it is written as text or JSON.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::gateway_api::GatewayApiReport;
use super::rows::{ConfigRow, Difference, FlagRow, FoundAnnotation, FoundProblem, FoundSnippet};
use super::verdict::{MigrationVerdict, VerdictCounts};

/// What becomes of an Ingress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigratedIngress {
    /// Namespace and name.
    pub object: String,
    /// The class that it names.
    pub class: Option<String>,
    /// Without those for all hosts.
    pub hosts: Vec<String>,
    pub verdict: MigrationVerdict,
    pub annotations: Vec<FoundAnnotation>,
    pub snippets: Vec<FoundSnippet>,
    pub differences: Vec<Difference>,
    /// What is wrong with other fields than annotations.
    pub problems: Vec<FoundProblem>,
    /// The objects that it refers to and that were not read, so that the verdict does not depend on them.
    pub not_in_input: BTreeSet<String>,
}

impl MigratedIngress {
    /// Sets the verdict to the worst one of all parts.
    pub fn with_verdict(mut self) -> Self {
        let of_annotations = self.annotations.iter().map(|found| found.verdict);
        let of_snippets = self.snippets.iter().map(|found| found.verdict);
        let of_problems = self.problems.iter().map(|found| found.verdict);
        let of_differences = self.differences.iter().map(|_| MigrationVerdict::Differs);
        self.verdict =
            of_annotations.chain(of_snippets).chain(of_problems).chain(of_differences).max().unwrap_or_default();
        self
    }

    /// Whether something is left out that restricts requests.
    pub fn leaves_out_guard(&self) -> bool {
        self.annotations.iter().any(|found| found.guard)
            || self.snippets.iter().any(|found| found.guard)
            || self.problems.iter().any(|found| found.guard)
    }
}

/// The whole report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MigrationReport {
    pub ingresses: Vec<MigratedIngress>,
    /// The flags of the other controller.
    pub flags: Vec<FlagRow>,
    /// The object with the settings of the other controller, if one was read.
    pub config_map_name: Option<String>,
    pub config_map: Vec<ConfigRow>,
    /// What was assumed because the input does not have it, and what is to do: sentences without a full stop.
    pub notes: Vec<String>,
    /// The names of admission webhooks of the other controller.
    pub webhooks: BTreeSet<String>,
    /// Ingresses of other classes, which have no verdict.
    pub of_other_classes: usize,
    /// Ingresses without a class, which have no verdict either: namespace and name.
    pub without_class: Vec<String>,
    /// The part about manifests of the Gateway API, if they are written.
    pub gateway_api: Option<GatewayApiReport>,
}

/// The numbers of a report.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MigrationSummary {
    pub total: usize,
    #[serde(flatten)]
    pub verdicts: VerdictCounts,
    /// Annotations that the other gateway does not read.
    pub unknown: usize,
    /// Annotations without an effect on responses.
    pub noop: usize,
    /// How many Ingresses have an annotation with each verdict.
    pub by_annotation: BTreeMap<String, VerdictCounts>,
    /// How many settings have each verdict.
    pub config_map: VerdictCounts,
    /// Settings that the other gateway does not read.
    pub unknown_keys: usize,
}

impl MigrationReport {
    pub fn summary(&self) -> MigrationSummary {
        let mut summary = MigrationSummary { total: self.ingresses.len(), ..MigrationSummary::default() };
        for ingress in &self.ingresses {
            summary.verdicts.add(ingress.verdict);
            for found in &ingress.annotations {
                summary.unknown += usize::from(found.is_unknown);
                summary.noop += usize::from(found.is_without_effect);
                summary.by_annotation.entry(found.name.clone()).or_default().add(found.verdict);
            }
        }
        for row in &self.config_map {
            summary.config_map.add(row.verdict);
            summary.unknown_keys += usize::from(row.is_unknown);
        }
        summary
    }

    /// The worst verdict of all Ingresses and settings.
    pub fn worst(&self) -> MigrationVerdict {
        let of_ingresses = self.ingresses.iter().map(|ingress| ingress.verdict);
        of_ingresses.chain(self.config_map.iter().map(|row| row.verdict)).max().unwrap_or_default()
    }

    /// Whether something is left out that restricts requests.
    pub fn leaves_out_guard(&self) -> bool {
        self.ingresses.iter().any(MigratedIngress::leaves_out_guard) || self.config_map.iter().any(|row| row.guard)
    }
}
