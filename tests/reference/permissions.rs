//! Permissions that Portico needs in a cluster, with a reason for each.

use std::fmt::Write;

use portico::k8s::permissions::{PermissionRule, own_namespace_rules, watched_namespace_rules};

use crate::reference::cell;

const INTRODUCTION: &str = "# Permissions

All permissions that Portico uses on the API server, with their purposes. The installed roles grant exactly these: a
test compares them, and all tests on a cluster run with them. A missing permission is not fatal: Portico logs the
missing rule and serves the objects that it may read. This page is generated from the code.
";

const SECRETS: &str = "
## Secrets

RBAC has no permission for metadata only: a role that may `list` Secrets may read them. Portico requests
`PartialObjectMetadata` in its lists and watches, so that it does not receive the content of other Secrets, and
fetches a Secret by `get` when a configured object refers to it. Many credentials of consumers in one namespace are
listed by their label instead. If this is too much, `--watch-namespaces` with a Role in each of these namespaces
instead of the ClusterRole prevents access to all other namespaces.

ConfigMaps are handled the same way, because they may contain certificate authorities for Services. Portico writes
only statuses, events, the Lease, the Secret `portico-keys`, and the Services of Gateways and XBackends, with the
EndpointSlices of Gateways.
";

pub(crate) fn page() -> String {
    let mut page = INTRODUCTION.to_owned();
    for (heading, rules) in [
        ("In all namespaces, or the watched ones", watched_namespace_rules()),
        ("In the namespace of Portico", own_namespace_rules()),
    ] {
        write!(page, "\n## {heading}\n\n| group | resources | verbs | purpose |\n| --- | --- | --- | --- |\n").unwrap();
        for PermissionRule { group, resources, verbs, reason } in rules {
            let group = if group.is_empty() { "core" } else { group };
            writeln!(page, "| {group} | {} | {} | {} |", resources.join(", "), verbs.join(", "), cell(reason)).unwrap();
        }
    }
    page + SECRETS
}
