//! Reports to the operator: tables and `curl` lines at startup, then the effect of each edit. With JSON logs the same
//! is reported as events.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::control::{ApplySummary, Control, VerdictChanges};
use super::problem_counts::ProblemCounts;
use crate::api::ObjectId;
use crate::diagnostic::{Diagnostic, Severity, WAITING};
use crate::manifests::{ManifestDiagnostic, ManifestUpdate, Manifests};
use crate::process_log;
use crate::report::{self, InputCounts, ReportedDiagnostic, RouteRow, escape_controls};
use crate::snapshot::Snapshot;
use crate::snapshot::dump::{ActionDump, ListenerDump, MatchDump, RouteTableRow};
use crate::verdict::{Verdict, Verdicts};

/// Writes to stderr; stdout belongs to the access log.
#[derive(Debug)]
pub(super) struct Announcer {
    format: AnnouncementFormat,
    color: bool,
    /// Problems of files that were already reported, so that the reports of other edits do not repeat them.
    reported: Vec<ManifestDiagnostic>,
    /// Of the verdicts that are reported.
    problem_counts: ProblemCounts,
    /// By kind, the number of ignored objects that was already reported.
    ignored: BTreeMap<String, usize>,
}

/// How the reports are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AnnouncementFormat {
    /// Tables and source excerpts, for editing files at a terminal.
    Tables,
    /// One event per item, for log collectors.
    Events,
}

/// One applied change.
#[derive(Debug)]
pub(super) struct AppliedEdit {
    pub(super) applied: ApplySummary,
    /// Revision of the snapshot that contains the change.
    pub(super) revision: u64,
    /// Time from the first event of the change until it was served.
    pub(super) took: Duration,
}

impl AppliedEdit {
    /// Logs one line per change: its objects, the revision, the duration and the changed verdicts. Changes of endpoints
    /// only are logged at debug level.
    fn log(&self, changes: &str) {
        let AppliedEdit {
            applied: ApplySummary { named_objects: named, relevant_objects: relevant, swapped, .. },
            revision,
            took,
        } = self;
        if *relevant == 0 && !swapped && changes.is_empty() {
            return;
        }
        let mut objects = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if *relevant > named.len() {
            objects += &format!(" and {} more", relevant - named.len());
        }
        let took_ms = (took.as_secs_f64() * 1e6).round() / 1e3;
        let verdicts = in_one_line(changes);
        if *swapped || !changes.is_empty() {
            info!(objects, revision, took_ms, verdicts, "Changed");
        } else {
            debug!(objects, revision, took_ms, "Changed nothing but endpoints");
        }
    }
}

/// Joins the first changes into one line.
fn in_one_line(changes: &str) -> String {
    let mut joined = changes.lines().take(MAX_LOGGED_VERDICTS).collect::<Vec<_>>().join("; ");
    let more = changes.lines().count().saturating_sub(MAX_LOGGED_VERDICTS);
    if more > 0 {
        joined += &format!("; and {more} more");
    }
    joined
}

/// The number of verdicts in one line of the log; `/debug/verdicts` lists all.
const MAX_LOGGED_VERDICTS: usize = 20;

/// The number of rows up to which a table is printed completely; a longer one is left out, counted or cut.
const MAX_TABLE_ROWS: usize = 60;
/// The number of problems that are printed; `portico check` prints all.
const MAX_PRINTED_PROBLEMS: usize = 20;
/// The number of example requests.
const MAX_CURL_LINES: usize = 8;

impl Announcer {
    pub(super) fn new(format: AnnouncementFormat, color: bool) -> Self {
        Announcer {
            format,
            color,
            reported: Vec::new(),
            problem_counts: ProblemCounts::default(),
            ignored: BTreeMap::new(),
        }
    }

    /// Reports that nothing is served before all files can be read, and why they cannot be.
    pub(super) fn report_unread(&mut self, control: &Control, manifests: &Manifests, update: &ManifestUpdate) {
        if self.reported == update.diagnostics {
            return;
        }
        self.reported = update.diagnostics.clone();
        let diagnostics = diagnostics(update.diagnostics.iter(), [].into_iter(), manifests);
        let files: BTreeSet<_> = update.unread.iter().map(|found| found.position.file.display().to_string()).collect();
        let files = files.into_iter().collect::<Vec<_>>().join(", ");
        if self.format == AnnouncementFormat::Events {
            log(&diagnostics);
            warn!(files, "Serving nothing before all files can be read: correct or remove these");
            return;
        }
        let left_out = &control.left_out_objects();
        let counts = InputCounts { files: update.files, objects: update.objects, ignored: &update.ignored, left_out };
        write_stderr(&format!(
            "\nProblems\n{}\n\n{}Nothing is served before all files can be read: correct or remove {}\n",
            problems_section(&diagnostics, self.color).trim_end(),
            report::summary(counts, &diagnostics),
            escape_controls(&files),
        ));
    }

    /// Reports the whole configuration, once at startup.
    pub(super) fn report_start(
        &mut self,
        control: &Control,
        manifests: &Manifests,
        update: &ManifestUpdate,
        snapshot: &Snapshot,
    ) {
        let verdicts = &self.relevant_verdicts(control.verdicts(), control);
        self.problem_counts.update(&Verdicts::new(), verdicts);
        let diagnostics = diagnostics(update.diagnostics.iter(), verdicts.iter(), manifests);
        let left_out = &control.left_out_objects();
        let counts = InputCounts { files: update.files, objects: update.objects, ignored: &update.ignored, left_out };
        let summary = report::summary(counts, &diagnostics);
        self.reported = update.diagnostics.clone();
        self.ignored = update.ignored.clone();
        if self.format == AnnouncementFormat::Events {
            log(&diagnostics);
            let objects = control.store.everything().len();
            match update.files {
                0 => info!(objects, diagnostics = diagnostics.len(), "Serving"),
                _ => info!(summary = summary.trim_end(), "Serving"),
            }
            if update.files == 0 && !left_out.is_empty() {
                info!(left_out = report::left_out_objects(left_out), "Serving without the objects of other classes");
            }
            return;
        }
        let mut text = String::new();
        let mut section = |title: &str, body: &str| {
            if !body.is_empty() {
                text += &format!("\n{title}\n{}\n", body.trim_end());
            }
        };
        if (1..=MAX_TABLE_ROWS).contains(&verdicts.len()) {
            section("Objects", &report::verdicts(verdicts));
        }
        let rows = snapshot.rows();
        if (1..=MAX_TABLE_ROWS).contains(&rows.len()) {
            let rows: Vec<_> = rows.iter().map(route_row).collect();
            section("Routes", &report::routes(&rows));
        } else if !rows.is_empty() {
            section("Routes", &format!("{} routes; see /debug/snapshot of the admin listener\n", rows.len()));
        }
        section("Try it", &curl_lines(snapshot));
        section("Problems", &problems_section(&diagnostics, self.color));
        text += &format!("\n{summary}");
        write_stderr(&text);
    }

    /// Reports an edit: objects, changed conditions, new problems and the number of resolved problems.
    pub(super) fn report_edit(
        &mut self,
        edit: &AppliedEdit,
        verdict_changes: &VerdictChanges,
        control: &Control,
        manifests: &Manifests,
        update: &ManifestUpdate,
    ) {
        let took = edit.took;
        let (before, after) = (
            &self.relevant_verdicts(&verdict_changes.before, control),
            &self.relevant_verdicts(&verdict_changes.after, control),
        );
        // An object may have become irrelevant with the change, so all of `before` counts.
        self.problem_counts.update(&verdict_changes.before, after);
        let changes = report::changes(before, after);
        let new_rejections: Vec<_> =
            update.diagnostics.iter().filter(|diagnostic| !self.reported.contains(diagnostic)).collect();
        let resolved = self.reported.iter().filter(|diagnostic| !update.diagnostics.contains(diagnostic)).count()
            + resolved_count(before, after);
        let diagnostics = diagnostics(new_rejections.into_iter(), after.iter(), manifests);
        let more_ignored = update.ignored.iter().any(|(kind, number)| self.ignored.get(kind) < Some(number));
        if self.format == AnnouncementFormat::Events {
            edit.log(&changes);
        }
        if changes.is_empty() && diagnostics.is_empty() && resolved == 0 && !more_ignored {
            return;
        }
        self.reported = update.diagnostics.clone();
        self.ignored = update.ignored.clone();
        if self.format == AnnouncementFormat::Events {
            log(&new_problems(diagnostics, before));
            if resolved > 0 {
                info!(resolved, left = self.remaining_problems(), "Resolved");
            }
            return;
        }
        let mut text = if changes.is_empty() {
            "\nNothing changed\n".to_owned()
        } else {
            format!("\nChanged, live after {}\n{}", milliseconds(took), first_rows(&changes))
        };
        if more_ignored {
            text += &format!("Ignored: {}\n", report::ignored_kinds(&update.ignored));
        }
        text += &problems_section(&diagnostics, self.color);
        if diagnostics.is_empty() && resolved > 0 {
            text += &resolved_line(resolved, self.remaining_problems());
        }
        write_stderr(&text);
    }

    /// Reports verdicts that changed without an edit, for example because a port became free.
    pub(super) fn report_verdicts(&mut self, changed: &VerdictChanges, control: &Control, manifests: &Manifests) {
        let (before, after) =
            (&self.relevant_verdicts(&changed.before, control), &self.relevant_verdicts(&changed.after, control));
        self.problem_counts.update(&changed.before, after);
        let changes = report::changes(before, after);
        if changes.is_empty() {
            return;
        }
        let diagnostics = diagnostics([].into_iter(), after.iter(), manifests);
        if self.format == AnnouncementFormat::Events {
            log(&new_problems(diagnostics, before));
            info!(verdicts = in_one_line(&changes), "Changed");
            return;
        }
        let resolved = resolved_count(before, after);
        let resolved_note = if diagnostics.is_empty() && resolved > 0 {
            resolved_line(resolved, self.remaining_problems())
        } else {
            String::new()
        };
        write_stderr(&format!(
            "\nChanged\n{}{}{resolved_note}",
            first_rows(&changes),
            problems_section(&diagnostics, self.color)
        ));
    }

    /// The verdicts to report. The log omits irrelevant objects; a terminal shows all, since the files belong to the
    /// user. Neither has rejected objects, whose errors are reported with the file or by the watch.
    fn relevant_verdicts(&self, verdicts: &Verdicts, control: &Control) -> Verdicts {
        let relevant =
            verdicts.iter().filter(|(id, _)| self.format != AnnouncementFormat::Events || control.is_relevant(id));
        let read = relevant.filter(|(_, verdict)| !report::is_rejected(verdict));
        read.map(|(id, verdict)| (id.clone(), verdict.clone())).collect()
    }

    /// Number of current problems in files and verdicts.
    fn remaining_problems(&self) -> usize {
        self.reported.len() + self.problem_counts.total()
    }
}

/// The first problems, and the number of the others.
fn problems_section(diagnostics: &[ReportedDiagnostic], color: bool) -> String {
    let shown = &diagnostics[..diagnostics.len().min(MAX_PRINTED_PROBLEMS)];
    let mut text = report::terminal(shown, color);
    if diagnostics.len() > shown.len() {
        let more = report::count((diagnostics.len() - shown.len()) as u64, "more problem");
        text += &format!("and {more}; `portico check` shows all\n\n");
    }
    text
}

/// The first changes, and the number of the others.
fn first_rows(changes: &str) -> String {
    let mut text: String = changes.split_inclusive('\n').take(MAX_TABLE_ROWS).collect();
    let more = changes.lines().count().saturating_sub(MAX_TABLE_ROWS);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

/// Number of problems that no longer exist.
fn resolved_count(before: &Verdicts, after: &Verdicts) -> usize {
    let resolved = before.iter().map(|(id, verdict)| {
        let now = after.get(id).map(|verdict| report::from_verdict(id, verdict)).unwrap_or_default();
        report::from_verdict(id, verdict).into_iter().filter(|problem| !now.contains(problem)).count()
    });
    resolved.sum()
}

fn resolved_line(resolved: usize, left: usize) -> String {
    match left {
        0 => "All problems are resolved\n".to_owned(),
        left => format!("{} resolved, {left} left\n", report::count(resolved as u64, "problem")),
    }
}

fn diagnostics<'a>(
    rejections: impl Iterator<Item = &'a ManifestDiagnostic>,
    verdicts: impl Iterator<Item = (&'a ObjectId, &'a Arc<Verdict>)>,
    manifests: &Manifests,
) -> Vec<ReportedDiagnostic> {
    let mut diagnostics: Vec<_> = rejections.map(report::from_manifest).collect();
    diagnostics.extend(verdicts.flat_map(|(id, verdict)| report::from_verdict(id, verdict)));
    report::add_positions(&mut diagnostics, |fields| manifests.positions(fields));
    report::sort(&mut diagnostics);
    diagnostics
}

/// The problems that the verdicts before the change did not have: another route of a Gateway changes its verdict, but
/// not what is wrong with the Gateway.
fn new_problems(mut diagnostics: Vec<ReportedDiagnostic>, before: &Verdicts) -> Vec<ReportedDiagnostic> {
    let known: Vec<_> = before.iter().flat_map(|(id, verdict)| report::from_verdict(id, verdict)).collect();
    let known: HashSet<_> = known.iter().map(|known| (&known.id, &known.diagnostic)).collect();
    diagnostics.retain(|found| found.id.is_none() || !known.contains(&(&found.id, &found.diagnostic)));
    diagnostics
}

/// Logs one event per problem.
fn log(diagnostics: &[ReportedDiagnostic]) {
    for diagnostic in diagnostics {
        let place = diagnostic.position.as_ref().map(ToString::to_string).unwrap_or_default();
        let object = diagnostic.object.as_deref().unwrap_or_default();
        let reason = diagnostic.reason();
        let Diagnostic { field, message, remedy, severity, .. } = &diagnostic.diagnostic;
        match severity {
            _ if diagnostic.diagnostic.reason == WAITING => info!(place, object, field, reason, remedy, "{message}"),
            Severity::Error => error!(place, object, field, reason, remedy, "{message}"),
            Severity::Warning => warn!(place, object, field, reason, remedy, "{message}"),
        }
    }
}

fn route_row(row: &RouteTableRow) -> RouteRow {
    RouteRow {
        host: row.host.clone(),
        path: row.matches.clone(),
        route: format!("{} {}", row.route.replacen('/', " ", 1), row.rule),
        backends: if row.backends.is_empty() { row.action.clone() } else { row.backends.clone() },
        address: row.address.to_string(),
    }
}

/// A `curl` command line for each of the first routes.
fn curl_lines(snapshot: &Snapshot) -> String {
    let mut lines = String::new();
    let mut shown = BTreeSet::new();
    for bind in snapshot.dump_binds() {
        for listener in &bind.listeners {
            for host in &listener.hosts {
                for entry in &host.matches {
                    let Some(line) = curl_line(bind.address.socket, listener, &host.host, entry) else { continue };
                    if shown.len() < MAX_CURL_LINES && shown.insert(entry.route.clone()) {
                        lines += &format!("  {line}\n");
                    }
                }
            }
        }
    }
    lines
}

/// A `curl` command line for a match. `None` if no example is certain to match, as for regular expressions, and if the
/// route responds with an error.
fn curl_line(address: SocketAddr, listener: &ListenerDump, host: &str, entry: &MatchDump) -> Option<String> {
    // Kong's routes accept one of several values, or a pattern.
    if entry.headers.iter().any(|header| header.contains(" | ") || header.contains(": ~*")) {
        return None;
    }
    let path = ["PathPrefix ", "Prefix ", "Exact "].iter().find_map(|kind| entry.path.strip_prefix(kind))?;
    let succeeds = match &entry.action {
        ActionDump::Redirect(_) => true,
        ActionDump::Forward(backends) => backends.iter().all(|backend| backend.fail.is_none()),
        ActionDump::Fail(_) => false,
    };
    let lacks_certificate = listener.certificates.as_ref().is_some_and(Vec::is_empty);
    if !succeeds || lacks_certificate {
        return None;
    }
    let mut line = "curl".to_owned();
    // One of several methods is enough for an example, as is one of several hosts below.
    let method = entry.method.as_deref().and_then(|methods| methods.split(" | ").next());
    if let Some(method) = method.filter(|method| *method != "GET") {
        line += &format!(" -X {method}");
    }
    let host = host.split(", ").next().unwrap_or_default();
    // The host of the route, or that of the listener if the route matches any host.
    let name = match (host, &*listener.hostname) {
        ("*", "*") => None,
        ("*", listener) => Some(listener),
        (host, _) => Some(host),
    };
    let name = name.map(|name| name.replacen('*', "any", 1));
    let is_https = listener.certificates.is_some();
    if let Some(name) = name.as_ref().filter(|_| !is_https) {
        line += &format!(" -H 'Host: {name}'");
    }
    // A header or query parameter with a pattern (`NAME ~ PATTERN`) has no certain example.
    for header in &entry.headers {
        line += &format!(" -H {}", shell_quote(header.split_once(": ").map(|_| header.as_str())?));
    }
    let mut query = String::new();
    for parameter in &entry.query {
        query += if query.is_empty() { "?" } else { "&" };
        query += parameter.split_once('=').map(|_| parameter.as_str())?;
    }
    let ip = if address.ip().is_unspecified() { loopback_of(address.ip()) } else { address.ip() };
    let address = SocketAddr::new(ip, address.port());
    let url = match &name {
        _ if !is_https => format!("http://{address}{path}{query}"),
        Some(name) => format!("https://{name}:{}{path}{query}", address.port()),
        None => format!("https://{address}{path}{query}"),
    };
    if is_https {
        // Local certificates are rarely trusted by curl, and the handshake needs the host name for SNI.
        line += " -k";
        line += &name.map(|_| format!(" --connect-to '::{address}'")).unwrap_or_default();
    }
    let needs_no_quotes = url.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/:.-_~[]".contains(&byte));
    Some(format!("{line} {}", if needs_no_quotes { url } else { shell_quote(&url) }))
}

fn loopback_of(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) }
}

/// Quotes a word for a POSIX shell.
fn shell_quote(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn write_stderr(text: &str) {
    process_log::write_stderr(text);
}
