//! What a person at the terminal reads: tables and `curl` lines at the start, then what each edit changed. Where the log is
//! JSON a program reads it, and gets the same as events.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use tracing::{debug, error, info, warn};

use super::control::{Applied, Control, News};
use crate::api::ObjectId;
use crate::compile::verdict::{Verdict, Verdicts};
use crate::manifests::{Manifests, Refusal, Severity, Update};
use crate::report::{self, Counts, Diagnostic, RouteRow};
use crate::snapshot::Snapshot;
use crate::snapshot::dump::{ActionDump, ListenerDump, MatchDump, Row};
use crate::telemetry;

/// Writes to stderr, so that the access log has stdout for itself.
#[derive(Debug)]
pub(super) struct Announcer {
    form: Form,
    color: bool,
    /// Refusals that were told, so that an edit elsewhere does not repeat them.
    told: Vec<Refusal>,
    /// Objects that were told to be of no use to us.
    ignored: BTreeMap<String, usize>,
}

/// How it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Tables and carets, for somebody who edits files at a terminal.
    Tables,
    /// One event each, for programs and for whoever reads the log of a Pod.
    Events,
}

/// One change on its way to what is served.
#[derive(Debug)]
pub(super) struct Edit {
    pub(super) applied: Applied,
    /// Of the snapshot that is served now.
    pub(super) revision: u64,
    /// From the first sign of it until it was served.
    pub(super) took: Duration,
}

impl Edit {
    /// One line for each change: of which objects, into which revision, how long it took, and which verdicts changed. Where it is
    /// only endpoints that come and go, whoever wants to know asks for it.
    fn log(&self, changes: &str) {
        let Edit { applied: Applied { named, concerned, swapped, .. }, revision, took } = self;
        if *concerned == 0 && !swapped && changes.is_empty() {
            return;
        }
        let mut objects = named.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        if *concerned > named.len() {
            objects += &format!(" and {} more", concerned - named.len());
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

/// Lines of changes as a part of one.
fn in_one_line(changes: &str) -> String {
    let mut joined = changes.lines().take(MOST_VERDICTS).collect::<Vec<_>>().join("; ");
    let more = changes.lines().count().saturating_sub(MOST_VERDICTS);
    if more > 0 {
        joined += &format!("; and {more} more");
    }
    joined
}

/// Verdicts in one line of the log. `/debug/verdicts` has all.
const MOST_VERDICTS: usize = 20;

/// More routes than fit on a few screens are counted, not listed.
const MOST_ROWS: usize = 60;
/// Problems that are told in full. Whoever has more corrects these first, or asks `portico check` for all.
const MOST_PROBLEMS: usize = 20;
/// `curl` lines to paste; a few show how, more would be noise.
const MOST_CURL_LINES: usize = 8;

impl Announcer {
    pub(super) fn new(form: Form, color: bool) -> Self {
        Announcer { form, color, told: Vec::new(), ignored: BTreeMap::new() }
    }

    /// Everything there is, once at the start.
    pub(super) fn start(&mut self, control: &Control, manifests: &Manifests, update: &Update, snapshot: &Snapshot) {
        let verdicts = &self.worth_telling(control.verdicts(), control);
        let diagnostics = diagnostics(update.refusals.iter(), verdicts.iter(), manifests);
        let counts = Counts { files: update.files, objects: update.objects, ignored: &update.ignored };
        let summary = report::summary(counts, &diagnostics);
        self.told = update.refusals.clone();
        self.ignored = update.ignored.clone();
        if self.form == Form::Events {
            log(&diagnostics);
            let objects = control.store.everything().len();
            match update.files {
                0 => info!(objects, problems = diagnostics.len(), "Serving"),
                _ => info!(summary = summary.trim_end(), "Serving"),
            }
            return;
        }
        let mut text = String::new();
        let mut section = |title: &str, body: &str| {
            if !body.is_empty() {
                text += &format!("\n{title}\n{}\n", body.trim_end());
            }
        };
        if (1..=MOST_ROWS).contains(&verdicts.len()) {
            section("Objects", &report::verdicts(verdicts));
        }
        let rows = snapshot.rows();
        if (1..=MOST_ROWS).contains(&rows.len()) {
            let rows: Vec<_> = rows.iter().map(route_row).collect();
            section("Routes", &report::routes(&rows));
        } else if !rows.is_empty() {
            section(
                "Routes",
                &format!("{} ways a request can go; see /debug/snapshot of the admin listener\n", rows.len()),
            );
        }
        section("Try it", &curl_lines(snapshot));
        section("Problems", &problems(&diagnostics, self.color));
        text += &format!("\n{summary}");
        write(&text);
    }

    /// What an edit changed: objects, conditions that flipped, problems that are new, and that old ones are gone.
    pub(super) fn edit(&mut self, edit: &Edit, news: &News, control: &Control, manifests: &Manifests, update: &Update) {
        let took = edit.took;
        let (before, after) = (&self.worth_telling(&news.before, control), &self.worth_telling(&news.after, control));
        let changes = report::changes(before, after);
        let new: Vec<_> = update.refusals.iter().filter(|refusal| !self.told.contains(refusal)).collect();
        let mended =
            self.told.iter().filter(|refusal| !update.refusals.contains(refusal)).count() + mended(before, after);
        let diagnostics = diagnostics(new.into_iter(), after.iter(), manifests);
        let more_ignored = update.ignored.iter().any(|(kind, number)| self.ignored.get(kind) < Some(number));
        if self.form == Form::Events {
            edit.log(&changes);
        }
        if changes.is_empty() && diagnostics.is_empty() && mended == 0 && !more_ignored {
            return;
        }
        self.told = update.refusals.clone();
        self.ignored = update.ignored.clone();
        if self.form == Form::Events {
            log(&diagnostics);
            if mended > 0 {
                info!(mended, left = self.left(control), "Mended");
            }
            return;
        }
        let mut text = if changes.is_empty() {
            "\nNothing changed\n".to_owned()
        } else {
            format!("\nChanged, live after {}\n{}", milliseconds(took), first_rows(&changes))
        };
        if more_ignored {
            text += &format!("Not read: {}\n", report::not_read(&update.ignored));
        }
        text += &problems(&diagnostics, self.color);
        if diagnostics.is_empty() && mended > 0 {
            text += &relief(mended, self.left(control));
        }
        write(&text);
    }

    /// Verdicts that changed without an edit: a port became free, or was taken.
    pub(super) fn verdicts(&mut self, news: &News, control: &Control, manifests: &Manifests) {
        let (before, after) = (&self.worth_telling(&news.before, control), &self.worth_telling(&news.after, control));
        let changes = report::changes(before, after);
        if changes.is_empty() {
            return;
        }
        let diagnostics = diagnostics([].into_iter(), after.iter(), manifests);
        if self.form == Form::Events {
            log(&diagnostics);
            info!(verdicts = in_one_line(&changes), "Changed");
            return;
        }
        let mended = mended(before, after);
        let relief =
            if diagnostics.is_empty() && mended > 0 { relief(mended, self.left(control)) } else { String::new() };
        write(&format!("\nChanged\n{}{}{relief}", first_rows(&changes), problems(&diagnostics, self.color)));
    }

    /// In a log there is nothing about what concerns nobody here. At a terminal the objects are those of one's own files.
    fn worth_telling(&self, verdicts: &Verdicts, control: &Control) -> Verdicts {
        let told = verdicts.iter().filter(|(id, _)| self.form != Form::Events || control.concerns(id));
        told.map(|(id, verdict)| (id.clone(), verdict.clone())).collect()
    }

    /// Problems that there are now, in files and verdicts.
    fn left(&self, control: &Control) -> usize {
        let verdicts = self.worth_telling(control.verdicts(), control);
        let verdicts = verdicts.iter().map(|(id, verdict)| report::of_verdict(id, verdict).len());
        self.told.len() + verdicts.sum::<usize>()
    }
}

/// As many problems as somebody reads.
fn problems(diagnostics: &[Diagnostic], color: bool) -> String {
    let shown = &diagnostics[..diagnostics.len().min(MOST_PROBLEMS)];
    let mut text = report::terminal(shown, color);
    if diagnostics.len() > shown.len() {
        let more = report::count((diagnostics.len() - shown.len()) as u64, "more problem");
        text += &format!("and {more}; `portico check` shows all\n\n");
    }
    text
}

/// As many changes as somebody reads.
fn first_rows(changes: &str) -> String {
    let mut text: String = changes.split_inclusive('\n').take(MOST_ROWS).collect();
    let more = changes.lines().count().saturating_sub(MOST_ROWS);
    if more > 0 {
        text += &format!("and {more} more\n");
    }
    text
}

/// Problems of verdicts that are no more.
fn mended(before: &Verdicts, after: &Verdicts) -> usize {
    let gone = before.iter().map(|(id, verdict)| {
        let now = after.get(id).map(|verdict| report::of_verdict(id, verdict)).unwrap_or_default();
        report::of_verdict(id, verdict).into_iter().filter(|problem| !now.contains(problem)).count()
    });
    gone.sum()
}

fn relief(mended: usize, left: usize) -> String {
    match left {
        0 => "Everything is fine again\n".to_owned(),
        left => format!("{} mended, {left} left\n", report::count(mended as u64, "problem")),
    }
}

fn diagnostics<'a>(
    refusals: impl Iterator<Item = &'a Refusal>,
    verdicts: impl Iterator<Item = (&'a ObjectId, &'a Arc<Verdict>)>,
    manifests: &Manifests,
) -> Vec<Diagnostic> {
    let mut diagnostics: Vec<_> = refusals.map(report::of_refusal).collect();
    diagnostics.extend(verdicts.flat_map(|(id, verdict)| report::of_verdict(id, verdict)));
    report::locate(&mut diagnostics, |fields| manifests.places(fields));
    report::explain_missing(&mut diagnostics);
    report::sort(&mut diagnostics);
    diagnostics
}

/// One event per problem, for programs.
fn log(diagnostics: &[Diagnostic]) {
    for diagnostic in diagnostics {
        let place = diagnostic.place.as_ref().map(ToString::to_string).unwrap_or_default();
        let object = diagnostic.object.as_deref().unwrap_or_default();
        let Diagnostic { field, reason, message, remedy, .. } = diagnostic;
        match diagnostic.severity {
            Severity::Error => error!(place, object, field, reason, remedy, "{message}"),
            Severity::Warning => warn!(place, object, field, reason, remedy, "{message}"),
        }
    }
}

fn route_row(row: &Row) -> RouteRow {
    RouteRow {
        host: row.host.clone(),
        path: row.matches.clone(),
        route: format!("{} {}", row.route.replacen('/', " ", 1), row.rule),
        backends: if row.backends.is_empty() { row.action.clone() } else { row.backends.clone() },
        address: row.address.to_string(),
    }
}

/// A line per route that can be pasted into a shell and is answered by that route.
fn curl_lines(snapshot: &Snapshot) -> String {
    let mut lines = String::new();
    let mut shown = BTreeSet::new();
    for bind in snapshot.dump().binds {
        for listener in &bind.listeners {
            for host in &listener.hosts {
                for entry in &host.matches {
                    let Some(line) = curl_line(bind.address, listener, &host.host, entry) else { continue };
                    if shown.len() < MOST_CURL_LINES && shown.insert(entry.route.clone()) {
                        lines += &format!("  {line}\n");
                    }
                }
            }
        }
    }
    lines
}

/// None for what no single line is sure to reach, as regular expressions, and for what answers errors.
fn curl_line(address: SocketAddr, listener: &ListenerDump, host: &str, entry: &MatchDump) -> Option<String> {
    if entry.headers.iter().any(|header| header.contains(" | ") || header.contains(": ~*")) {
        return None;
    }
    let path = ["PathPrefix ", "Prefix ", "Exact "].iter().find_map(|kind| entry.path.strip_prefix(kind))?;
    let works = match &entry.action {
        ActionDump::Redirect(_) => true,
        ActionDump::Forward(backends) => backends.iter().all(|backend| backend.fail.is_none()),
        ActionDump::Fail(_) => false,
    };
    let refused = listener.certificates.as_ref().is_some_and(Vec::is_empty);
    if !works || refused {
        return None;
    }
    let mut line = "curl".to_owned();
    // Of several methods or hosts one is enough.
    let method = entry.method.as_deref().and_then(|methods| methods.split(" | ").next());
    if let Some(method) = method.filter(|method| *method != "GET") {
        line += &format!(" -X {method}");
    }
    let host = host.split(", ").next().unwrap_or_default();
    // The narrower of the two hosts is the one that both take.
    let name = match (host, &*listener.hostname) {
        ("*", "*") => None,
        ("*", listener) => Some(listener),
        (host, _) => Some(host),
    };
    let name = name.map(|name| name.replacen('*', "any", 1));
    let secure = listener.certificates.is_some();
    if let Some(name) = name.as_ref().filter(|_| !secure) {
        line += &format!(" -H 'Host: {name}'");
    }
    for header in &entry.headers {
        line += &format!(" -H {}", quoted(header.split_once(": ").map(|_| header.as_str())?));
    }
    let mut query = String::new();
    for parameter in &entry.query {
        query += if query.is_empty() { "?" } else { "&" };
        query += parameter.split_once('=').map(|_| parameter.as_str())?;
    }
    let ip = if address.ip().is_unspecified() { loopback_of(address.ip()) } else { address.ip() };
    let address = SocketAddr::new(ip, address.port());
    let url = match &name {
        _ if !secure => format!("http://{address}{path}{query}"),
        Some(name) => format!("https://{name}:{}{path}{query}", address.port()),
        None => format!("https://{address}{path}{query}"),
    };
    if secure {
        // Whoever tries out seldom has a certificate that curl trusts, and the name has to be in the handshake.
        line += " -k";
        line += &name.map(|_| format!(" --connect-to '::{address}'")).unwrap_or_default();
    }
    let plain = url.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/:.-_~[]".contains(&byte));
    Some(format!("{line} {}", if plain { url } else { quoted(&url) }))
}

fn loopback_of(address: IpAddr) -> IpAddr {
    if address.is_ipv4() { IpAddr::from([127, 0, 0, 1]) } else { IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]) }
}

/// For a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

fn milliseconds(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1000.0)
}

fn write(text: &str) {
    telemetry::tell(text);
}
