//! Tables in the style of kubectl: columns separated by spaces, headings in capitals, no lines.

use comfy_table::presets::NOTHING;
use comfy_table::{ContentArrangement, Table};

use super::diagnostic::{ReportedDiagnostic, from_verdict};
use super::plain::escape_controls;
use super::summary::count;
use crate::diagnostic::{Diagnostic, Topic};
use crate::verdict::{Code, Condition, PARAMETERS_VALID, PublishedAddress, Verdict, Verdicts};

/// The table of all objects with their verdicts.
pub fn verdicts(verdicts: &Verdicts) -> String {
    let rows = verdicts.iter().map(|(id, verdict)| {
        let word = VerdictWord::from_verdict(verdict).text();
        [id.kind.to_string(), id.key.to_string(), word.to_owned(), detail(verdict, &from_verdict(id, verdict))]
    });
    table(["KIND", "NAMESPACE/NAME", "VERDICT", "DETAIL"], rows)
}

/// One match of a route.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct RouteRow {
    pub host: String,
    /// Path and other conditions: `/shop/* GET`.
    pub path: String,
    /// `HTTPRoute default/web`.
    pub route: String,
    pub backends: String,
    /// The address of the listener: `127.0.0.1:8080`.
    pub address: String,
}

/// The table of all matches, in the given order.
pub fn routes(rows: &[RouteRow]) -> String {
    let rows =
        rows.iter().map(|row| [&row.host, &row.path, &row.route, &row.backends, &row.address].map(String::clone));
    table(["HOST", "MATCH", "ROUTE", "BACKENDS", "ADDRESS"], rows)
}

/// A verdict in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VerdictWord {
    /// Read, but without conditions of its own: problems are reported on the objects that refer to it.
    Read,
    /// Without conditions of its own, but with remarks.
    ReadWithRemarks,
    Accepted,
    /// Accepted, with remarks.
    AcceptedWithRemarks,
    /// Valid, but not referenced.
    Pending,
    /// Some listeners, parents or rules are accepted and some are not, or a plugin or a parameter is not in effect.
    Partly,
    Refused,
}

impl VerdictWord {
    pub(super) fn from_verdict(verdict: &Verdict) -> Self {
        let is_fine = |conditions: &[Condition]| !conditions.iter().any(|condition| condition.code.is_error());
        let parts = verdict.listeners.iter().map(|listener| &listener.conditions);
        let parts = parts.chain(verdict.parents.iter().map(|parent| &parent.conditions));
        let parts = parts.chain(verdict.ancestors.iter().map(|ancestor| &ancestor.conditions));
        let parts: Vec<bool> = parts.map(|conditions| is_fine(conditions)).collect();
        let fine_count = parts.iter().filter(|part_is_fine| **part_is_fine).count();
        let serves_some = verdict
            .parents
            .iter()
            .any(|parent| !parent.conditions.iter().any(|condition| takes_out_of_service(condition.code)));
        let has_remarks = || {
            !verdict.diagnostics.is_empty()
                || verdict.all_conditions().any(|(_, condition)| !condition.diagnostics.is_empty())
        };
        match (is_fine(&verdict.conditions), fine_count == parts.len()) {
            _ if verdict.all_conditions().next().is_none() && has_remarks() => VerdictWord::ReadWithRemarks,
            _ if verdict.all_conditions().next().is_none() => VerdictWord::Read,
            (true, true) if verdict.conditions.iter().any(|condition| condition.code == Code::ObjectPending) => {
                VerdictWord::Pending
            }
            (true, true) if verdict.about(Topic::Plugin).next().is_some() => VerdictWord::Partly,
            (true, true) if has_remarks() => VerdictWord::AcceptedWithRemarks,
            (true, true) => VerdictWord::Accepted,
            _ if fine_count > 0 || serves_some || ignores_parameters_only(&verdict.conditions) => VerdictWord::Partly,
            _ => VerdictWord::Refused,
        }
    }

    pub(super) fn text(self) -> &'static str {
        match self {
            VerdictWord::Read => "Read",
            VerdictWord::ReadWithRemarks => "Read*",
            VerdictWord::Accepted => "Accepted",
            VerdictWord::AcceptedWithRemarks => "Accepted*",
            VerdictWord::Pending => "Pending",
            VerdictWord::Partly => "Partly",
            VerdictWord::Refused => "Refused",
        }
    }
}

/// Whether the only error is that parameters have mistakes, which leaves everything else in service.
fn ignores_parameters_only(conditions: &[Condition]) -> bool {
    let errors: Vec<Code> = conditions.iter().map(|condition| condition.code).filter(|code| code.is_error()).collect();
    !errors.is_empty() && errors.iter().all(|code| code.condition() == PARAMETERS_VALID)
}

/// Whether a condition takes the whole route out of service. Other conditions leave its valid rules in service.
fn takes_out_of_service(code: Code) -> bool {
    code.is_error() && !["PartiallyInvalid", "ResolvedRefs"].contains(&code.condition())
}

/// The most severe diagnostic, or what the object serves.
fn detail(verdict: &Verdict, diagnostics: &[ReportedDiagnostic]) -> String {
    if let Some(worst) = diagnostics.iter().min_by_key(|reported| reported.diagnostic.severity) {
        let Diagnostic { field, message, .. } = &worst.diagnostic;
        let field = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let more = if diagnostics.len() > 1 { format!(" (+{} more)", diagnostics.len() - 1) } else { String::new() };
        return format!("{}: {field}{message}{more}", worst.reason());
    }
    let mut parts = Vec::new();
    if !verdict.addresses.is_empty() {
        parts.push(verdict.addresses.join(" "));
    }
    if let Some(published) = verdict.load_balancer.as_ref().filter(|published| !published.is_empty()) {
        let names =
            published.iter().map(|(PublishedAddress::Ip(name) | PublishedAddress::Hostname(name))| name.as_str());
        parts.push(names.collect::<Vec<_>>().join(" "));
    }
    if !verdict.ancestors.is_empty() {
        let names = verdict.ancestors.iter().map(|ancestor| ancestor.reference.to_string());
        parts.push(names.collect::<Vec<_>>().join(", "));
    }
    if !verdict.listeners.is_empty() {
        let routes = verdict.listeners.iter().map(|listener| u64::from(listener.attached_routes)).sum();
        parts.push(format!("{}, {}", count(verdict.listeners.len() as u64, "listener"), count(routes, "route")));
    }
    if !verdict.parents.is_empty() {
        let names = verdict.parents.iter().map(|parent| match &parent.parent.section_name {
            Some(section) => format!("{}/{section}", parent.parent.name),
            None => parent.parent.name.clone(),
        });
        parts.push(names.collect::<Vec<_>>().join(" "));
    }
    parts.join(", ")
}

/// The table of what a conversion leaves out or does differently, and of what is wrong with its objects, in lines that
/// fit on a terminal.
pub fn findings(diagnostics: &[ReportedDiagnostic]) -> String {
    if diagnostics.is_empty() {
        return String::new();
    }
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["LINE", "RESULT", "FIELD", "REASON", "REMEDY"]);
    table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
    for reported in diagnostics {
        let ReportedDiagnostic { diagnostic, position, object, .. } = reported;
        let line = position.as_ref().filter(|position| position.line > 0).map(|position| position.line.to_string());
        let result = match (diagnostic.is_error(), reported.is_left_out()) {
            (true, true) => "left out",
            (true, false) => "invalid",
            (false, _) => "differs",
        };
        let field = match object {
            Some(object) if diagnostic.field.is_empty() => object.clone(),
            Some(object) => format!("{object}: {}", diagnostic.field),
            None => diagnostic.field.clone(),
        };
        let cells = [&line.unwrap_or_default(), result, &field, &diagnostic.message, &diagnostic.remedy];
        table.add_row(cells.map(escape_controls));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n\n"
}

/// A table of these rows.
pub(crate) fn table<const COLUMNS: usize>(
    heading: [&str; COLUMNS],
    rows: impl Iterator<Item = [String; COLUMNS]>,
) -> String {
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(heading);
    for row in rows {
        table.add_row(row.map(|cell| escape_controls(&cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    table.trim_fmt() + "\n"
}

/// The columns of the table of findings, which most terminals have.
const WIDTH: u16 = 120;

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::api::gateway::ParentReference;
    use crate::api::{Kind, ObjectId, ObjectKey};
    use crate::diagnostic::Reason;
    use crate::manifests::LEFT_OUT;
    use crate::verdict::{AncestorReference, AncestorVerdict, ListenerVerdict, ParentVerdict};

    fn condition(code: Code, problems: &[&str]) -> Condition {
        let problems = problems.iter().map(|message| Diagnostic::error("spec.x", *message, "correct it")).collect();
        Condition::new(code, problems)
    }

    fn parent(name: &str, section: Option<&str>, condition: Condition) -> ParentVerdict {
        let parent = ParentReference {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: None,
            name: name.to_owned(),
            section_name: section.map(str::to_owned),
            port: None,
        };
        ParentVerdict { controller: "portico".into(), index: Some(0), parent, conditions: vec![condition] }
    }

    #[test]
    fn findings_fit_on_a_terminal() {
        let mut left_out = ReportedDiagnostic {
            diagnostic: Diagnostic::error("", "this call is not understood: ".repeat(9), "write it \u{1b}[0m"),
            position: None,
            object: None,
            id: None,
            condition: None,
            meanwhile: None,
        };
        assert!(findings(std::slice::from_ref(&left_out)).contains("invalid"));
        left_out.diagnostic = left_out.diagnostic.with_reason(Reason::Named(LEFT_OUT));
        let table = findings(std::slice::from_ref(&left_out));
        assert!(table.starts_with("LINE  RESULT") && table.lines().all(|line| line.len() <= 120), "{table}");
        assert!(table.lines().count() > 4 && table.contains("left out") && !table.contains('\u{1b}'), "{table}");
        left_out.diagnostic = Diagnostic::warning("services[0].url", "short", "x");
        assert!(findings(&[left_out]).contains("differs  services[0].url"));
        assert_eq!(findings(&[]), "");
    }

    #[test]
    fn verdicts_are_a_table() {
        let (good, bad) = (Code::ClassAccepted, Code::ClassInvalidParameters);
        let listener = ListenerVerdict {
            name: "http".to_owned(),
            port: 80,
            attached_routes: 2,
            supported_kinds: Vec::new(),
            sockets: Vec::new(),
            conditions: vec![condition(good, &[])],
        };
        let all = [
            (
                Kind::GatewayClass,
                ObjectKey::cluster("portico"),
                Verdict { conditions: vec![condition(good, &[])], ..Verdict::default() },
            ),
            (
                Kind::GatewayClass,
                ObjectKey::cluster("other"),
                Verdict { conditions: vec![condition(bad, &["no such thing", "nor this"])], ..Verdict::default() },
            ),
            (
                Kind::GatewayClass,
                ObjectKey::cluster("remark"),
                Verdict {
                    conditions: vec![condition(good, &[]), condition(Code::ClassParametersPartlyInvalid, &["no rule"])],
                    ..Verdict::default()
                },
            ),
            (
                Kind::Gateway,
                ObjectKey::new("default", "web"),
                Verdict { addresses: vec!["127.0.0.1".to_owned()], listeners: vec![listener], ..Verdict::default() },
            ),
            (
                Kind::HttpRoute,
                ObjectKey::new("default", "a"),
                Verdict {
                    parents: vec![
                        parent("web", Some("http"), condition(good, &[])),
                        parent("web2", None, condition(good, &[])),
                    ],
                    ..Verdict::default()
                },
            ),
            (
                Kind::HttpRoute,
                ObjectKey::new("default", "b"),
                Verdict {
                    parents: vec![
                        parent("web", None, condition(good, &[])),
                        parent("no", None, condition(bad, &["no \u{1b}[0m"])),
                    ],
                    ..Verdict::default()
                },
            ),
            (
                Kind::HttpRoute,
                ObjectKey::new("default", "d"),
                Verdict {
                    parents: vec![parent("web", None, condition(Code::RouteBackendNotFound, &["no Service"]))],
                    ..Verdict::default()
                },
            ),
            (
                Kind::HttpRoute,
                ObjectKey::new("default", "e"),
                Verdict {
                    parents: vec![parent("web", None, condition(good, &[]))],
                    diagnostics: vec![
                        Diagnostic::error("spec", "plugin p cannot be used", "x").with_topic(Topic::Plugin),
                    ],
                    ..Verdict::default()
                },
            ),
            (
                Kind::KongPlugin,
                ObjectKey::new("default", "f"),
                Verdict { conditions: vec![condition(Code::ObjectInvalid, &["no such field"])], ..Verdict::default() },
            ),
            (
                Kind::KongPlugin,
                ObjectKey::new("default", "g"),
                Verdict {
                    conditions: vec![condition(Code::ObjectPending, &["nothing uses it"])],
                    ..Verdict::default()
                },
            ),
            (
                Kind::Ingress,
                ObjectKey::new("default", "h"),
                Verdict {
                    conditions: vec![condition(Code::ObjectProgrammed, &[])],
                    load_balancer: Some(vec![PublishedAddress::Ip("192.0.2.1".to_owned())]),
                    ..Verdict::default()
                },
            ),
            (
                Kind::KongUpstreamPolicy,
                ObjectKey::new("default", "i"),
                Verdict {
                    ancestors: vec![AncestorVerdict {
                        reference: AncestorReference::Referrer(Kind::Service, "shop".into()),
                        controller: None,
                        conditions: vec![condition(Code::ObjectProgrammed, &[])],
                    }],
                    ..Verdict::default()
                },
            ),
            (
                Kind::Service,
                ObjectKey::new("default", "c"),
                Verdict { diagnostics: vec![Diagnostic::warning("spec", "odd", "x")], ..Verdict::default() },
            ),
        ];
        let all: Verdicts =
            all.into_iter().map(|(kind, key, verdict)| (ObjectId::new(kind, key), Arc::new(verdict))).collect();
        let expected = "\
KIND                 NAMESPACE/NAME   VERDICT    DETAIL
GatewayClass         other            Refused    InvalidParameters: spec.x: no such thing (+1 more)
GatewayClass         portico          Accepted
GatewayClass         remark           Partly     PartiallyInvalid: spec.x: no rule
Gateway              default/web      Accepted   127.0.0.1, 1 listener, 2 routes
HTTPRoute            default/a        Accepted   web/http web2
HTTPRoute            default/b        Partly     InvalidParameters: spec.x: no \\u{1b}[0m
HTTPRoute            default/d        Partly     BackendNotFound: spec.x: no Service
HTTPRoute            default/e        Partly     PluginNotInEffect: spec: plugin p cannot be used
Ingress              default/h        Accepted   192.0.2.1
KongPlugin           default/f        Refused    Invalid: spec.x: no such field
KongPlugin           default/g        Pending    Pending: spec.x: nothing uses it
KongUpstreamPolicy   default/i        Accepted   Service shop
Service              default/c        Read*      Remark: spec: odd
";
        assert_eq!(verdicts(&all), expected);
    }

    #[test]
    fn routes_are_a_table() {
        let row = RouteRow {
            host: "*.example.com".to_owned(),
            path: "/shop/* GET".to_owned(),
            route: "HTTPRoute default/web".to_owned(),
            backends: "shop:80 (90%), new:80 (10%)".to_owned(),
            address: "127.0.0.1:8080".to_owned(),
        };
        let expected = "\
HOST            MATCH         ROUTE                   BACKENDS                      ADDRESS
*.example.com   /shop/* GET   HTTPRoute default/web   shop:80 (90%), new:80 (10%)   127.0.0.1:8080
";
        assert_eq!(routes(&[row]), expected);
        assert_eq!(routes(&[]), "HOST   MATCH   ROUTE   BACKENDS   ADDRESS\n");
    }
}
