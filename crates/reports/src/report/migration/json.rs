//! A migration report as JSON.

use std::collections::BTreeSet;

use serde::Serialize;

use super::gateway_api::GatewayApiReport;
use super::model::{MigratedIngress, MigrationReport, MigrationSummary};
use super::rows::{ConfigRow, FlagRow};

/// One object; its `schema` changes when a field changes its meaning.
pub fn json(report: &MigrationReport) -> String {
    let document = MigrationDocument {
        schema: SCHEMA,
        ingresses: &report.ingresses,
        flags: &report.flags,
        config_map: &report.config_map,
        notes: &report.notes,
        webhooks: &report.webhooks,
        without_class: &report.without_class,
        of_other_classes: report.of_other_classes,
        gateway_api: report.gateway_api.as_ref(),
        summary: report.summary(),
    };
    serde_json::to_string_pretty(&document).expect("strings and numbers are JSON") + "\n"
}

const SCHEMA: &str = "portico.dev/migration/v1";

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct MigrationDocument<'a> {
    schema: &'static str,
    ingresses: &'a [MigratedIngress],
    flags: &'a [FlagRow],
    config_map: &'a [ConfigRow],
    notes: &'a [String],
    webhooks: &'a BTreeSet<String>,
    without_class: &'a [String],
    of_other_classes: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_api: Option<&'a GatewayApiReport>,
    summary: MigrationSummary,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::super::rows::FoundAnnotation;
    use super::super::verdict::MigrationVerdict;
    use super::*;

    #[test]
    fn json_has_every_part() {
        let found = |name: &str, verdict, is_unknown| FoundAnnotation {
            name: name.to_owned(),
            verdict,
            is_unknown,
            ..FoundAnnotation::default()
        };
        let annotations = vec![
            found("mirror-target", MigrationVerdict::LeftOut, false),
            found("rewrite-taget", MigrationVerdict::Same, true),
        ];
        let ingress = MigratedIngress { object: "shop/web".to_owned(), annotations, ..MigratedIngress::default() };
        let report = MigrationReport { ingresses: vec![ingress.with_verdict()], ..MigrationReport::default() };
        let value: Value = serde_json::from_str(&json(&report)).unwrap();
        assert_eq!(value["schema"], "portico.dev/migration/v1");
        assert_eq!(value["ingresses"][0]["verdict"], "LeftOut");
        assert_eq!(value["ingresses"][0]["annotations"][0]["guard"], false);
        assert!(value["ingresses"][0]["annotations"][0].get("isUnknown").is_none());
        let summary = &value["summary"];
        assert_eq!((&summary["total"], &summary["leftOut"], &summary["unknown"]), (&1.into(), &1.into(), &1.into()));
        assert_eq!(summary["byAnnotation"]["mirror-target"]["leftOut"], 1);
        for part in ["flags", "configMap", "notes", "webhooks", "withoutClass"] {
            assert!(value[part].is_array(), "{part}");
        }
    }
}
