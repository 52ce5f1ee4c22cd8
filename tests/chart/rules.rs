//! RBAC rules with their comments, and their division into cluster-wide and namespaced roles.

use std::collections::BTreeSet;

use portico::api::Kind;
use portico::k8s::permissions::Permission;
use serde_json::Value;

/// One rule and the comment above it.
#[derive(Clone, Debug)]
pub(crate) struct Rule {
    reason: String,
    groups: Vec<String>,
    resources: Vec<String>,
    names: Vec<String>,
    verbs: Vec<String>,
}

/// Rules for `rbac.namespaced`.
pub(crate) struct SplitRules {
    /// Rules for cluster-scoped kinds.
    pub(crate) cluster: Vec<Rule>,
    pub(crate) namespaced: Vec<Rule>,
    /// Rules of `namespaced` that are also needed in the namespace `default`, which contains the events about
    /// cluster-scoped objects.
    pub(crate) events: Vec<Rule>,
}

/// Parses the rules of the first role in a manifest.
pub(crate) fn parse(manifest: &str) -> Vec<Rule> {
    let role = manifest.split("\n---").next().expect("the manifest contains a role");
    let (_, rules) = role.split_once("\nrules:\n").expect("the role has rules");
    let mut parsed = Vec::new();
    let mut reason = String::new();
    let mut text = String::new();
    // The additional line looks like the start of another rule, so the loop also completes the last rule.
    for line in rules.lines().chain(["- end"]) {
        if (line.starts_with('#') || line.starts_with("- ")) && !text.is_empty() {
            parsed.push(rule(std::mem::take(&mut reason), &std::mem::take(&mut text)));
        }
        let target = if line.starts_with('#') { &mut reason } else { &mut text };
        target.push_str(line);
        target.push('\n');
    }
    parsed
}

fn rule(reason: String, text: &str) -> Rule {
    let rules: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let words = |field: &str| -> Vec<String> {
        let words = rules[0][field].as_array().into_iter().flatten();
        words.map(|word| word.as_str().expect("a word").to_owned()).collect()
    };
    let (groups, resources) = (words("apiGroups"), words("resources"));
    assert_eq!(groups.len(), 1, "{text}: one group for each rule");
    Rule { reason, groups, resources, names: words("resourceNames"), verbs: words("verbs") }
}

/// Divides the rules by the scope of their resources.
pub(crate) fn split(rules: &[Rule]) -> SplitRules {
    // `namespaced: false` selects the cluster-scoped resources only.
    let with_scope = |namespaced: bool| -> Vec<Rule> {
        let matching = rules
            .iter()
            .map(|rule| rule.with_resources(|resource| is_namespaced(&rule.groups[0], resource) == namespaced));
        matching.filter(|rule| !rule.resources.is_empty()).collect()
    };
    let namespaced = with_scope(true);
    let events = namespaced.iter().filter(|rule| rule.groups == ["events.k8s.io"]).cloned().collect();
    SplitRules { cluster: with_scope(false), namespaced, events }
}

fn is_namespaced(group: &str, resource: &str) -> bool {
    let plural = resource.split('/').next().unwrap_or_default();
    let kind = Kind::ALL.iter().find(|kind| kind.group() == group && kind.plural() == plural);
    match (kind, group, plural) {
        (Some(kind), ..) => kind.namespaced(),
        (None, "events.k8s.io", "events") => true,
        (None, "apiextensions.k8s.io", "customresourcedefinitions") => false,
        _ => panic!("{plural}.{group}: the scope is unknown; add it here"),
    }
}

/// Formats the rules as a YAML list.
pub(crate) fn to_yaml(rules: &[Rule]) -> String {
    let list = |words: &[String]| words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(", ");
    let texts = rules.iter().map(|rule| {
        let names = match rule.names.is_empty() {
            true => String::new(),
            false => format!("  resourceNames: [{}]\n", list(&rule.names)),
        };
        format!(
            "{}- apiGroups: [{}]\n  resources: [{}]\n{names}  verbs: [{}]\n",
            rule.reason,
            list(&rule.groups),
            list(&rule.resources),
            list(&rule.verbs)
        )
    });
    texts.collect()
}

fn quoted(word: &str) -> String {
    if word.is_empty() { "\"\"".to_owned() } else { word.to_owned() }
}

pub(crate) fn permission_name(permission: &Permission) -> String {
    format!("{} {} {}", permission.verb, permission.resource, permission.group)
}

impl Rule {
    /// The rule with some of its resources.
    fn with_resources(&self, is_wanted: impl Fn(&str) -> bool) -> Rule {
        let mut rule = self.clone();
        rule.resources.retain(|resource| is_wanted(resource));
        rule
    }

    pub(crate) fn is_of_leases(&self) -> bool {
        self.groups == ["coordination.k8s.io"]
    }

    /// In the format of [`permission_name`].
    pub(crate) fn permissions(&self) -> BTreeSet<String> {
        let mut all = BTreeSet::new();
        for (resource, verb) in
            self.resources.iter().flat_map(|resource| self.verbs.iter().map(move |verb| (resource, verb)))
        {
            all.insert(format!("{verb} {resource} {}", self.groups[0]));
        }
        all
    }
}
