//! Parses a page of the documentation into code blocks and the marks about running them.
//!
//! ````text
//! <!-- on a cluster -->                    the next block is run by e2e/tests/guide.rs on a cluster
//! <!-- not run: it never ends -->          the next block is skipped for this reason
//! <!-- page on a cluster -->               either mark, for the whole page except complete objects
//! <!-- page not run: … -->
//! ```yaml                                  objects, or a part of an object
//! # manifests/shop.yaml                    this block is saved as that file
//! ```console                               commands after `$ `, each followed by its output;
//!                                          `…` matches any lines, or any part of a line
//! ```sh                                    commands that all have to succeed
//! ````

use std::fs;
use std::path::Path;

use serde_json::{Value, json};

pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// Number of the first line of the text, below the fence.
    pub(crate) line: usize,
    pub(crate) runs_on: RunsOn,
}

/// Where a block is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RunsOn {
    /// In a network namespace, without a cluster.
    Network,
    Cluster,
    /// Not run, with the reason.
    NotRun(String),
}

/// All pages of the documentation.
pub(crate) fn all(root: &Path) -> Vec<Page> {
    let mut paths: Vec<String> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(str::to_owned).to_vec();
    for folder in ["docs", "examples", "charts"] {
        below(root, folder, "md", &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| Page::read(root, path)).collect()
}

/// Collects the files with this extension, as paths relative to the root.
pub(crate) fn below(root: &Path, folder: &str, extension: &str, paths: &mut Vec<String>) {
    for entry in fs::read_dir(root.join(folder)).unwrap() {
        let entry = entry.unwrap();
        let path = format!("{folder}/{}", entry.file_name().to_str().expect("names in the checkout are UTF-8"));
        if entry.path().is_dir() {
            below(root, &path, extension, paths);
        } else if entry.path().extension().is_some_and(|found| found == extension) {
            paths.push(path);
        }
    }
}

impl Page {
    pub(crate) fn read(root: &Path, path: &str) -> Page {
        Page::parse(path, &fs::read_to_string(root.join(path)).unwrap())
    }

    pub(crate) fn parse(path: &str, text: &str) -> Page {
        let mut page = Page { path: path.to_owned(), blocks: Vec::new() };
        let mut page_runs_on = RunsOn::Network;
        let mut marked_runs_on = None;
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if let Some(runs_on) = comment(line).and_then(|comment| parse_mark(comment.strip_prefix("page ")?)) {
                page_runs_on = runs_on;
            } else if let Some(runs_on) = comment(line).and_then(parse_mark) {
                marked_runs_on = Some(runs_on);
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                let indent = line.len() - line.trim_start().len();
                let fence: String = line.trim_start().chars().take_while(|c| *c == '`').collect();
                let code = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != fence);
                let code: String = code.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
                let language = language.trim_start_matches('`').to_owned();
                let mut block = Block { language, text: code, line: index + 2, runs_on: RunsOn::Network };
                if block.is_command() || block.is_part() {
                    block.runs_on = page_runs_on.clone();
                }
                block.runs_on = marked_runs_on.take().unwrap_or(block.runs_on);
                page.blocks.push(block);
            } else if !line.trim().is_empty() && marked_runs_on.is_some() {
                panic!("{path}:{}: a mark must be directly above its block", index + 1);
            }
        }
        page
    }
}

impl Block {
    pub(crate) fn is_command(&self) -> bool {
        ["console", "sh"].contains(&&*self.language)
    }

    /// Whether the YAML is no complete object: a part of an object, or something else, such as values of a chart.
    pub(crate) fn is_part(&self) -> bool {
        self.language == "yaml" && !self.text.lines().any(|line| line.starts_with("apiVersion:"))
    }

    /// The file name in its first line.
    pub(crate) fn file(&self) -> Option<&str> {
        let first = self.text.lines().next()?.strip_prefix("# ")?;
        (self.language == "yaml" && first.ends_with(".yaml") && !first.contains(' ')).then_some(first)
    }

    /// Commands of a `console` block with their output.
    pub(crate) fn commands(&self) -> Vec<(String, String)> {
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                // A backslash continues a command in the next line, as in a shell.
                (None, Some((command, _))) if command.ends_with('\\') => {
                    *command = format!("{command}\n{}", line.strip_prefix("> ").unwrap_or(line));
                }
                (None, Some((_, shown))) => *shown += &format!("{line}\n"),
                (None, None) => panic!("line {}: a console block starts with a command after `$ `", self.line),
            }
        }
        commands
    }

    /// The objects of a `yaml` block, with parts completed to objects, or the error in the block.
    pub(crate) fn objects(&self) -> Result<Vec<Value>, String> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&self.text).map_err(|error| format!("not YAML: {error}"))?;
        let objects = documents.into_iter().map(completed).collect::<Result<_, String>>();
        objects.map_err(|key| {
            format!(
                "the block starts with {key:?}, but only parts that start with `listeners`, `rules` or `plugin` can be \
                 completed to an object; mark the block with `<!-- not run: REASON -->`"
            )
        })
    }
}

/// The object of which the YAML is a part, according to its first key. The error is an unknown first key.
fn completed(part: Value) -> Result<Value, String> {
    if part.get("apiVersion").is_some() && part.get("kind").is_some() {
        return Ok(part);
    }
    let gateway_api = "gateway.networking.k8s.io/v1";
    let first_key = part.as_object().and_then(|part| part.keys().next()).cloned().unwrap_or_default();
    let metadata = json!({"name": "shown"});
    let mut object = match first_key.as_str() {
        "listeners" => json!({"apiVersion": gateway_api, "kind": "Gateway", "metadata": metadata,
            "spec": {"gatewayClassName": "portico", "listeners": part["listeners"]}}),
        "rules" => json!({"apiVersion": gateway_api, "kind": "HTTPRoute", "metadata": metadata,
            "spec": {"rules": part["rules"]}}),
        "plugin" => json!({"apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": metadata}),
        _ => return Err(first_key),
    };
    if first_key == "plugin" {
        for (name, value) in part.as_object().expect("the part has a first key") {
            object[name] = value.clone();
        }
    }
    Ok(object)
}

fn comment(line: &str) -> Option<&str> {
    line.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")
}

fn parse_mark(mark: &str) -> Option<RunsOn> {
    match mark {
        "on a cluster" => Some(RunsOn::Cluster),
        _ => mark.strip_prefix("not run: ").map(|reason| RunsOn::NotRun(reason.to_owned())),
    }
}

/// Whether the output matches the shown text, where a line `…` matches any lines and `…` in a line any text.
pub(crate) fn is_shown(response: &str, shown: &str) -> bool {
    fn lines_match(response: &[&str], shown: &[&str]) -> bool {
        match shown.split_first() {
            None => response.is_empty(),
            Some((first, rest)) if first.trim() == "…" => {
                (0..=response.len()).any(|skipped| lines_match(&response[skipped..], rest))
            }
            Some((first, rest)) => response.split_first().is_some_and(|(line, after)| {
                line_matches(line.trim_end(), first.trim_end()) && lines_match(after, rest)
            }),
        }
    }
    lines_match(&response.lines().collect::<Vec<_>>(), &shown.lines().collect::<Vec<_>>())
}

/// Whether the line equals the shown one, in which `…` matches any text.
fn line_matches(line: &str, shown: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return line == shown };
    let Some(after) = line.strip_prefix(start) else { return false };
    let ends_of_any_text = after.char_indices().map(|(at, _)| at).chain([after.len()]);
    ends_of_any_text.into_iter().any(|at| line_matches(&after[at..], rest))
}
