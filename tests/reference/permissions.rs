//! What Portico may do in a cluster, and a reason for each line.

use std::fmt::Write;

use portico::k8s::permissions::{Rule, rules_at_home, rules_everywhere};

use crate::cell;

const INTRODUCTION: &str = "# Permissions

Everything that Portico asks of the API server, and what for. The roles that are installed grant exactly this: a test compares them, and all that runs on a cluster in the tests runs with them.
What is missing is not fatal. Portico names the rule that it lacks in its log and serves what it may read. This page is made of the code.
";

const SECRETS: &str = "
## Secrets

RBAC knows no permission for metadata alone: whoever may `list` Secrets may read them. Portico asks for `PartialObjectMetadata` in its lists and watches, so that the content of other Secrets
does not reach it, and reads one by `get` when something of its own refers to it; many credentials of consumers in one namespace it lists by their label. Where that is still too much, `--watch-namespaces` with a
Role in each of these namespaces in place of the ClusterRole keeps every other namespace out of reach.

ConfigMaps are treated alike: authorities of Services may stand in them. Nothing is written but statuses, events, the Lease, and the Services and EndpointSlices of Gateways.
";

pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (heading, rules) in [
        ("In all namespaces, or those that are watched", rules_everywhere()),
        ("In the namespace that it runs in", rules_at_home()),
    ] {
        write!(page, "\n## {heading}\n\n| group | resources | verbs | what for |\n| --- | --- | --- | --- |\n")
            .unwrap();
        for Rule { group, resources, verbs, why } in rules {
            let group = if group.is_empty() { "core" } else { group };
            writeln!(page, "| {group} | {} | {} | {} |", resources.join(", "), verbs.join(", "), cell(why)).unwrap();
        }
    }
    page + SECRETS
}
