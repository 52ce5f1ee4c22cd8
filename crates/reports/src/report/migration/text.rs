//! A migration report as text and as Markdown: the same tables and lines, in two forms.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use comfy_table::presets::NOTHING;
use comfy_table::{ColumnConstraint, ContentArrangement, Table, Width};

use super::gateway_api::GatewayApiReport;
use super::model::{MigratedIngress, MigrationReport, MigrationSummary};
use super::rows::{ConfigRow, FoundAnnotation};
use super::verdict::{MigrationVerdict, VerdictCounts};
use crate::report::plain::escape_controls;
use crate::report::summary::count;

/// Tables for a terminal: what needs attention first, and long lists shortened.
pub fn text(report: &MigrationReport) -> String {
    let mut out = String::new();
    for section in sections(report) {
        if !section.title.is_empty() {
            out += &format!("{}:\n", section.title);
        }
        let mut table = Table::new();
        table.load_style(NOTHING).set_header(section.heading);
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(WIDTH);
        for row in &section.rows {
            table.add_row(row.iter().map(|cell| escape_controls(cell)));
        }
        let widest = |index: usize| {
            let cells = section.rows.iter().filter_map(move |row| row.get(index));
            cells.flat_map(|cell| cell.split(' ')).map(|word| word.chars().count()).max().unwrap_or_default()
        };
        for (index, column) in table.column_iter_mut().enumerate() {
            column.set_padding(PADDING);
            if section.whole_words.contains(&index) {
                let width = u16::try_from(widest(index)).unwrap_or(MAX_WORD).min(MAX_WORD) + PADDING.1;
                column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
            }
        }
        out += &format!("{}\n\n", table.trim_fmt());
    }
    for line in remarks(report) {
        out += &format!("{}\n", escape_controls(&line));
    }
    out + &summary_line(report)
}

/// The same as Markdown.
pub fn markdown(report: &MigrationReport) -> String {
    let mut out = "# Migration from ingress-nginx\n".to_owned();
    for section in sections(report) {
        let title = if section.title.is_empty() { "Ingresses" } else { &section.title };
        let heading = section.heading.map(str::to_lowercase).join(" | ");
        out += &format!("\n## {}\n\n| {heading} |\n|", in_markdown(title));
        out += &" --- |".repeat(section.heading.len());
        out.push('\n');
        for row in section.rows {
            let cells: Vec<String> = row.iter().map(|cell| in_markdown(cell)).collect();
            out += &format!("| {} |\n", cells.join(" | "));
        }
    }
    out += "\n## Summary\n\n";
    for line in remarks(report) {
        out += &format!("- {}\n", in_markdown(&line));
    }
    out + &format!("- {}\n", in_markdown(summary_line(report).trim_end()))
}

/// `41 Ingresses: 37 same, 3 differ, 1 left out; 0 unknown annotations`.
pub fn summary_line(report: &MigrationReport) -> String {
    let summary = report.summary();
    let verdicts = summary.verdicts;
    let noun = if summary.total == 1 { "1 Ingress".to_owned() } else { format!("{} Ingresses", summary.total) };
    let invalid = if verdicts.invalid > 0 { format!(", {} invalid", verdicts.invalid) } else { String::new() };
    let differ = if verdicts.differs == 1 { "differs" } else { "differ" };
    let mut line = format!(
        "{noun}: {} same, {} {differ}, {} left out{invalid}; {}",
        verdicts.same,
        verdicts.differs,
        verdicts.left_out,
        count(summary.unknown as u64, "unknown annotation"),
    );
    if !report.config_map.is_empty() {
        line += &format!("; {}", of_keys(&summary));
    }
    for webhook in &report.webhooks {
        line += &format!("; webhook {} is still installed", escape_controls(webhook));
    }
    line + "\n"
}

/// `5 keys of the ConfigMap: 4 same, 1 differs`, with the verdicts that there are.
fn of_keys(summary: &MigrationSummary) -> String {
    let VerdictCounts { same, differs, left_out, invalid } = summary.config_map;
    let noun = count((same + differs + left_out + invalid) as u64, "key");
    let differ = if differs == 1 { "differs" } else { "differ" };
    let parts = [(same, "same"), (differs, differ), (left_out, "left out"), (invalid, "invalid")];
    let parts = parts.iter().filter(|(number, _)| *number > 0).map(|(number, verdict)| format!("{number} {verdict}"));
    let unknown = match summary.unknown_keys {
        0 => String::new(),
        number => format!(" ({number} unknown)"),
    };
    format!("{noun} of the ConfigMap: {}{unknown}", parts.collect::<Vec<_>>().join(", "))
}

/// A table.
struct Section {
    /// Empty for the first one.
    title: String,
    heading: [&'static str; 4],
    rows: Vec<[String; 4]>,
    /// The columns whose words are not broken.
    whole_words: &'static [usize],
}

/// The tables that have rows.
fn sections(report: &MigrationReport) -> Vec<Section> {
    let flags = report.flags.iter().map(|row| {
        let replacement = row.replacement.clone().unwrap_or_else(|| "none".to_owned());
        [row.flag.clone(), shortened(&row.value, MAX_VALUE), replacement, row.note.clone()]
    });
    let is_shown = |row: &&ConfigRow| row.verdict != MigrationVerdict::Same || row.is_unknown;
    let settings = report.config_map.iter().filter(is_shown).map(|row| {
        let why = with_remedy(&row.effect, &row.remedy);
        [row.key.clone(), shortened(&row.value, MAX_VALUE), row.verdict.name().to_owned(), why]
    });
    let differences = report.ingresses.iter().flat_map(|ingress| {
        let of_ingress = ingress.differences.iter();
        of_ingress.map(|difference| {
            [ingress.object.clone(), difference.request.clone(), difference.before.clone(), difference.after.clone()]
        })
    });
    let config_map = report.config_map_name.as_deref().unwrap_or_default();
    let manifests = report.gateway_api.as_ref();
    let sections = [
        Section {
            title: String::new(),
            heading: ["INGRESS", "HOSTS", "VERDICT", "WHY"],
            rows: ingress_rows(&report.ingresses),
            whole_words: &[],
        },
        Section {
            title: "Differences".to_owned(),
            heading: ["INGRESS", "REQUEST", "BEFORE", "AFTER"],
            rows: limited(differences.collect(), "differences"),
            whole_words: &[],
        },
        Section {
            title: format!("ConfigMap {}", escape_controls(config_map)),
            heading: ["KEY", "VALUE", "VERDICT", "WHY"],
            rows: settings.collect(),
            whole_words: &[0],
        },
        Section {
            title: "Flags".to_owned(),
            heading: ["FLAG", "VALUE", "IN PORTICO", "NOTE"],
            rows: flags.collect(),
            whole_words: &[0, 2],
        },
        Section {
            title: "Manifests of the Gateway API".to_owned(),
            heading: ["INGRESS", "HOST", "RESULT", "WHY"],
            rows: manifests.map(GatewayApiReport::row_cells).unwrap_or_default(),
            whole_words: &[],
        },
        Section {
            title: "Differences of these manifests".to_owned(),
            heading: ["SETTING", "REQUEST", "BEFORE", "AFTER"],
            rows: manifests.map(GatewayApiReport::difference_cells).unwrap_or_default(),
            whole_words: &[],
        },
    ];
    sections.into_iter().filter(|section| !section.rows.is_empty()).collect()
}

/// What needs attention first, and only the number of what does not if it is much.
fn ingress_rows(ingresses: &[MigratedIngress]) -> Vec<[String; 4]> {
    let mut sorted: Vec<&MigratedIngress> = ingresses.iter().collect();
    sorted.sort_by(|left, right| right.verdict.cmp(&left.verdict).then_with(|| left.object.cmp(&right.object)));
    let same = sorted.iter().filter(|ingress| ingress.verdict == MigrationVerdict::Same).count();
    if same > MAX_SAME {
        sorted.truncate(sorted.len() - same + MAX_SAME);
    }
    let mut rows: Vec<_> = sorted
        .iter()
        .map(|ingress| [ingress.object.clone(), hosts(ingress), ingress.verdict.name().to_owned(), why(ingress)])
        .collect();
    if same > MAX_SAME {
        let more = format!("and {} more; JSON lists all", same - MAX_SAME);
        rows.push(["…".to_owned(), String::new(), MigrationVerdict::Same.name().to_owned(), more]);
    }
    rows
}

/// The first rows, and a last one for the others.
fn limited(mut rows: Vec<[String; 4]>, noun: &str) -> Vec<[String; 4]> {
    if rows.len() > MAX_DIFFERENCES {
        let more = format!("and {} more {noun}; JSON lists all", rows.len() - MAX_DIFFERENCES);
        rows.truncate(MAX_DIFFERENCES);
        rows.push(["…".to_owned(), more, String::new(), String::new()]);
    }
    rows
}

fn hosts(ingress: &MigratedIngress) -> String {
    match &ingress.hosts[..] {
        [] => "*".to_owned(),
        [only] => only.clone(),
        [first, others @ ..] => format!("{first} (+{})", others.len()),
    }
}

/// The reasons of a verdict, the most severe first and with its remedy.
fn why(ingress: &MigratedIngress) -> String {
    let mut reasons = reasons(ingress);
    // The sort is stable, so that annotations keep their order.
    reasons.sort_by_key(|reason| (Reverse(reason.verdict), !reason.guard));
    let texts = reasons.iter().enumerate().map(|(index, reason)| match index {
        // The first of several remedies; JSON has all.
        0 => with_remedy(&reason.text, reason.remedy.split(';').next().unwrap_or_default()),
        _ => reason.text.clone(),
    });
    let mut texts: Vec<String> = texts.take(MAX_REASONS).collect();
    if reasons.len() > MAX_REASONS {
        texts.push(format!("and {} more", reasons.len() - MAX_REASONS));
    }
    texts.join("; ")
}

/// Why a verdict is not `Same`.
struct VerdictReason<'a> {
    verdict: MigrationVerdict,
    guard: bool,
    text: String,
    remedy: &'a str,
}

fn reasons(ingress: &MigratedIngress) -> Vec<VerdictReason<'_>> {
    // The rows of a snippet say more than its annotation.
    let has_rows = |name: &str| ingress.snippets.iter().any(|found| found.annotation == name);
    let of_annotations = ingress.annotations.iter().filter(|found| !has_rows(&found.name)).map(|found| VerdictReason {
        verdict: found.verdict,
        guard: found.guard,
        text: format!("{}: {}", found.name, found.effect),
        remedy: &found.remedy,
    });
    let of_snippets = ingress.snippets.iter().map(|found| {
        let line = found.line.map(|line| format!(" line {line}")).unwrap_or_default();
        let directive = if found.directive.is_empty() { String::new() } else { format!(" {}", found.directive) };
        let mut text = format!("{}{line}:{directive} {}", found.annotation, found.effect);
        if found.guard && !text.contains(CLOSED) {
            write!(text, ", so requests get {CLOSED}").expect("writing to a string cannot fail");
        }
        VerdictReason { verdict: found.verdict, guard: found.guard, text, remedy: &found.remedy }
    });
    let of_problems = ingress.problems.iter().map(|found| {
        let field = if found.field.is_empty() { String::new() } else { format!("{}: ", found.field) };
        let text = format!("{field}{}", found.effect);
        VerdictReason { verdict: found.verdict, guard: found.guard, text, remedy: &found.remedy }
    });
    let all = of_annotations.chain(of_snippets).chain(of_problems);
    let mut reasons: Vec<VerdictReason<'_>> = all.filter(|reason| reason.verdict != MigrationVerdict::Same).collect();
    let names: BTreeSet<&str> = ingress.differences.iter().map(|difference| difference.name).collect();
    if !names.is_empty() {
        let text = format!("{}: see Differences", names.into_iter().collect::<Vec<_>>().join(", "));
        reasons.push(VerdictReason { verdict: MigrationVerdict::Differs, guard: false, text, remedy: "" });
    }
    reasons
}

/// What an Ingress responds with in place of a guard that is left out.
const CLOSED: &str = "status 503";

fn with_remedy(effect: &str, remedy: &str) -> String {
    if remedy.is_empty() { effect.to_owned() } else { format!("{effect} → {remedy}") }
}

/// Sentences below the tables.
fn remarks(report: &MigrationReport) -> Vec<String> {
    let mut remarks = report.notes.clone();
    if !report.without_class.is_empty() {
        let names = shortened_list(&report.without_class);
        remarks.push(format!(
            "{} without a class, which ingress-nginx serves only with --watch-ingress-without-class: {names}; set \
             ingressClassName for Portico",
            of_ingresses(report.without_class.len()),
        ));
    }
    if report.of_other_classes > 0 {
        let verb = if report.of_other_classes == 1 { "has" } else { "have" };
        remarks.push(format!("{} of other classes {verb} no verdict", of_ingresses(report.of_other_classes)));
    }
    let missing: BTreeSet<&str> =
        report.ingresses.iter().flat_map(|ingress| &ingress.not_in_input).map(String::as_str).collect();
    if !missing.is_empty() {
        let names: Vec<String> = missing.into_iter().map(str::to_owned).collect();
        remarks.push(format!("Not in the input, so not part of the verdicts: {}", shortened_list(&names)));
    }
    remarks.extend(unknown_annotations(&report.ingresses));
    if !report.webhooks.is_empty() {
        remarks.push(
            "Remove the ValidatingWebhookConfiguration with ingress-nginx: with failurePolicy Fail and without its \
             Service, the API server rejects every change of an Ingress"
                .to_owned(),
        );
    }
    remarks
}

/// A line for each annotation that the other gateway does not read, with the Ingresses that have it.
fn unknown_annotations(ingresses: &[MigratedIngress]) -> Vec<String> {
    let mut by_name: BTreeMap<&str, (&FoundAnnotation, Vec<String>)> = BTreeMap::new();
    for ingress in ingresses {
        for found in ingress.annotations.iter().filter(|found| found.is_unknown) {
            by_name.entry(&found.name).or_insert((found, Vec::new())).1.push(ingress.object.clone());
        }
    }
    let more = by_name.len().saturating_sub(MAX_UNKNOWN);
    let shown = by_name.iter().take(MAX_UNKNOWN);
    let mut lines: Vec<String> = shown
        .map(|(name, (found, objects))| {
            let text = format!("Annotation {name} of {}: {}", shortened_list(objects), found.effect);
            with_remedy(&text, &found.remedy)
        })
        .collect();
    if more > 0 {
        lines.push(format!("and {more} more unknown annotations; JSON lists all"));
    }
    lines
}

fn of_ingresses(number: usize) -> String {
    if number == 1 { "1 Ingress".to_owned() } else { format!("{number} Ingresses") }
}

fn shortened_list(names: &[String]) -> String {
    let more = names.len().saturating_sub(MAX_NAMES);
    let shown = names[..names.len() - more].join(", ");
    if more == 0 { shown } else { format!("{shown} and {more} more") }
}

/// The first line of a value, and not more than this number of characters of it.
fn shortened(value: &str, most: usize) -> String {
    let line = value.trim().lines().next().unwrap_or_default();
    let short: String = line.chars().take(most).collect();
    if short.len() == value.trim().len() { short } else { format!("{short}…") }
}

/// Text that Markdown shows as it is.
fn in_markdown(text: &str) -> String {
    escape_controls(text).chars().fold(String::new(), |mut escaped, character| {
        if "|\\`*_<>[]#".contains(character) {
            escaped.push('\\');
        }
        escaped.push(character);
        escaped
    })
}

/// The columns of a table, which most terminals have.
const WIDTH: u16 = 120;
const PADDING: (u16, u16) = (0, 2);
/// Maximum width of a column because of one word.
const MAX_WORD: u16 = 40;
/// Maximum number of Ingresses with the verdict `Same` in a text.
const MAX_SAME: usize = 20;
const MAX_DIFFERENCES: usize = 40;
/// Maximum number of reasons for one Ingress.
const MAX_REASONS: usize = 3;
const MAX_NAMES: usize = 6;
const MAX_UNKNOWN: usize = 12;
const MAX_VALUE: usize = 40;

#[cfg(test)]
mod tests {
    use super::super::rows::{Difference, FlagRow};
    use super::*;

    fn ingress(object: &str, verdict: MigrationVerdict) -> MigratedIngress {
        MigratedIngress {
            object: object.to_owned(),
            hosts: vec!["a.example".to_owned(), "b.example".to_owned()],
            verdict,
            ..MigratedIngress::default()
        }
    }

    fn left_out_annotation(name: &str) -> FoundAnnotation {
        FoundAnnotation {
            name: name.to_owned(),
            verdict: MigrationVerdict::LeftOut,
            effect: "it has no effect".to_owned(),
            remedy: "remove it".to_owned(),
            ..FoundAnnotation::default()
        }
    }

    #[test]
    fn what_needs_attention_comes_first() {
        let mut left_out = ingress("shop/z", MigrationVerdict::LeftOut);
        left_out.annotations.push(left_out_annotation("mirror-target"));
        let report = MigrationReport {
            ingresses: vec![ingress("shop/a", MigrationVerdict::Same), left_out],
            webhooks: ["ingress-nginx-admission".to_owned()].into(),
            ..MigrationReport::default()
        };
        let lines: Vec<String> = text(&report).lines().map(str::to_owned).collect();
        assert!(lines[1].starts_with("shop/z"), "{lines:#?}");
        assert!(lines[1].contains("mirror-target: it has no effect → remove it"), "{lines:#?}");
        assert!(lines[2].starts_with("shop/a") && lines[2].contains("a.example (+1)"), "{lines:#?}");
        let last = "2 Ingresses: 1 same, 0 differ, 1 left out; 0 unknown annotations; webhook ingress-nginx-admission \
                    is still installed";
        assert_eq!(lines.last().map(String::as_str), Some(last));
    }

    #[test]
    fn long_lists_are_counted() {
        let many = (0..50).map(|number| ingress(&format!("shop/{number:02}"), MigrationVerdict::Same));
        let report = MigrationReport { ingresses: many.collect(), ..MigrationReport::default() };
        let text = text(&report);
        assert!(text.contains("and 30 more"), "{text}");
        assert!(text.lines().count() < 30, "{text}");
        let mut left_out = ingress("shop/a", MigrationVerdict::LeftOut);
        left_out.annotations = (0..5).map(|number| left_out_annotation(&format!("a{number}"))).collect();
        assert_eq!(
            why(&left_out),
            "a0: it has no effect → remove it; a1: it has no effect; a2: it has no effect; and 2 more"
        );
    }

    #[test]
    fn differences_have_a_table() {
        let mut differing = ingress("shop/a", MigrationVerdict::Differs);
        let difference = |number| Difference {
            name: "canary",
            request: format!("GET /{number}"),
            before: "200".to_owned(),
            after: "503".to_owned(),
        };
        differing.differences = (0..50).map(difference).collect();
        assert_eq!(why(&differing), "canary: see Differences");
        let text = text(&MigrationReport { ingresses: vec![differing], ..MigrationReport::default() });
        assert!(text.contains("GET /39") && !text.contains("GET /40"), "{text}");
        assert!(text.contains("and 10 more differences"), "{text}");
    }

    #[test]
    fn unknown_annotations_are_named() {
        let unknown = |name: &str| FoundAnnotation {
            name: name.to_owned(),
            effect: "there is no such annotation".to_owned(),
            remedy: "remove it".to_owned(),
            is_unknown: true,
            ..FoundAnnotation::default()
        };
        let mut ingresses = vec![ingress("a/a", MigrationVerdict::Same), ingress("b/b", MigrationVerdict::Same)];
        ingresses[0].annotations = vec![unknown("rate-limit"), unknown("ssl-protocols")];
        ingresses[1].annotations = vec![unknown("rate-limit")];
        let lines = unknown_annotations(&ingresses);
        assert_eq!(lines[0], "Annotation rate-limit of a/a, b/b: there is no such annotation → remove it");
        assert_eq!(lines.len(), 2);
        ingresses[0].annotations = (0..20).map(|number| unknown(&format!("a{number}"))).collect();
        let lines = unknown_annotations(&ingresses[..1]);
        assert_eq!(lines.last().map(String::as_str), Some("and 8 more unknown annotations; JSON lists all"));
    }

    #[test]
    fn flags_are_not_broken() {
        let flag = |flag: &str, replacement: &str| FlagRow {
            flag: flag.to_owned(),
            value: "ingress-nginx/a-name-of-some-length-as-charts-make".to_owned(),
            replacement: Some(replacement.to_owned()),
            note: "some words about what differs in Portico, which are longer than one line of this column".to_owned(),
        };
        let flags = vec![
            flag("--report-node-internal-ip-address", "none"),
            flag("--default-ssl-certificate", "--ingress-default-certificate a/b"),
        ];
        let text = text(&MigrationReport { flags, ..MigrationReport::default() });
        for word in ["--report-node-internal-ip-address", "--ingress-default-certificate"] {
            assert!(text.contains(word), "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= usize::from(WIDTH)), "{text}");
    }

    #[test]
    fn keys_of_the_config_map_are_counted() {
        let row = |key: &str, verdict, is_unknown| ConfigRow {
            key: key.to_owned(),
            value: "on".to_owned(),
            verdict,
            guard: false,
            effect: "it has no effect".to_owned(),
            remedy: String::new(),
            is_unknown,
        };
        let config_map = vec![
            row("hsts", MigrationVerdict::Same, false),
            row("use-gzip", MigrationVerdict::Differs, false),
            row("use-gzipp", MigrationVerdict::Same, true),
        ];
        let report = MigrationReport { config_map, ..MigrationReport::default() };
        let line = summary_line(&report);
        let keys = "; 3 keys of the ConfigMap: 2 same, 1 differs (1 unknown)\n";
        assert_eq!(line, format!("0 Ingresses: 0 same, 0 differ, 0 left out; 0 unknown annotations{keys}"));
        let text = text(&report);
        assert!(text.contains("use-gzipp") && !text.contains("hsts"), "{text}");
    }

    #[test]
    fn markdown_escapes_what_it_would_interpret() {
        let report = MigrationReport {
            ingresses: vec![ingress("shop/a|b", MigrationVerdict::Same)],
            notes: vec!["see *that*".to_owned()],
            ..MigrationReport::default()
        };
        let markdown = markdown(&report);
        assert!(markdown.contains("| shop/a\\|b | a.example (+1) | Same |  |"), "{markdown}");
        assert!(markdown.contains("- see \\*that\\*"), "{markdown}");
    }
}
