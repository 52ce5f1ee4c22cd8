//! A page of the guide as its blocks of code, each with where it stands and what is said about running it.
//!
//! ````text
//! <!-- on a cluster -->                    the next block is run by e2e/tests/guide.rs, on a cluster
//! <!-- not run: it goes on for ever -->    the next block is left out, and this is why
//! <!-- page on a cluster -->               either of both, for all of this page but whole objects
//! <!-- page not run: … -->
//! ```yaml                                  objects, or a part of one
//! # manifests/shop.yaml                    this block is that file from here on
//! ```console                               commands behind `$ `, and below each what it prints;
//!                                          `…` stands for any lines, or for any part of a line
//! ```sh                                    commands, each of which has to succeed
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
    /// Of its first line.
    pub(crate) line: usize,
    pub(crate) ground: Ground,
}

/// Where a block is run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ground {
    /// In a network of its own, without a cluster.
    Here,
    Cluster,
    /// With the reason.
    Nowhere(String),
}

/// Every page that people read.
pub(crate) fn all(root: &Path) -> Vec<Page> {
    let mut paths: Vec<String> =
        ["README.md", "SECURITY.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "CHANGELOG.md"].map(str::to_owned).to_vec();
    for folder in ["docs", "examples", "charts"] {
        below(root, folder, "md", &mut paths);
    }
    paths.sort();
    paths.iter().map(|path| Page::read(root, path)).collect()
}

/// Adds the files with this extension, by their paths from the root.
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
        let mut whole = Ground::Here;
        let mut mark = None;
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if let Some(ground) = comment(line).and_then(|comment| ground(comment.strip_prefix("page ")?)) {
                whole = ground;
            } else if let Some(ground) = comment(line).and_then(ground) {
                mark = Some(ground);
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                let indent = line.len() - line.trim_start().len();
                let fence: String = line.trim_start().chars().take_while(|c| *c == '`').collect();
                let code = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != fence);
                let code: String = code.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
                let language = language.trim_start_matches('`').to_owned();
                let mut block = Block { language, text: code, line: index + 2, ground: Ground::Here };
                if block.is_command() || block.is_part() {
                    block.ground = whole.clone();
                }
                block.ground = mark.take().unwrap_or(block.ground);
                page.blocks.push(block);
            } else if !line.trim().is_empty() && mark.is_some() {
                panic!("{path}:{}: a mark stands directly above the block that it is about", index + 1);
            }
        }
        page
    }
}

impl Block {
    pub(crate) fn is_command(&self) -> bool {
        ["console", "sh"].contains(&&*self.language)
    }

    /// Values of a chart and the like, and parts of objects.
    pub(crate) fn is_part(&self) -> bool {
        self.language == "yaml" && !self.text.lines().any(|line| line.starts_with("apiVersion:"))
    }

    /// The file that it says to be.
    pub(crate) fn file(&self) -> Option<&str> {
        let first = self.text.lines().next()?.strip_prefix("# ")?;
        (self.language == "yaml" && first.ends_with(".yaml") && !first.contains(' ')).then_some(first)
    }

    /// Commands of a `console` block, each with what it prints.
    pub(crate) fn commands(&self) -> Vec<(String, String)> {
        let mut commands: Vec<(String, String)> = Vec::new();
        for line in self.text.lines() {
            match (line.strip_prefix("$ "), commands.last_mut()) {
                (Some(command), _) => commands.push((command.to_owned(), String::new())),
                // A command goes on after a backslash, as in a shell.
                (None, Some((command, _))) if command.ends_with('\\') => {
                    *command = format!("{command}\n{}", line.strip_prefix("> ").unwrap_or(line));
                }
                (None, Some((_, shown))) => *shown += &format!("{line}\n"),
                (None, None) => panic!("line {}: a console block begins with a command behind `$ `", self.line),
            }
        }
        commands
    }

    /// The objects of a `yaml` block, parts of one in an object around it; or what is wrong with the block.
    pub(crate) fn objects(&self) -> Result<Vec<Value>, String> {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&self.text).map_err(|error| format!("it is no YAML: {error}"))?;
        let whole = documents.into_iter().map(whole).collect::<Result<_, String>>();
        whole.map_err(|key| format!("it begins with {key:?}, and of no object is known that it does; mark it"))
    }
}

/// A part of an object in an object around it; its first key says of which.
fn whole(part: Value) -> Result<Value, String> {
    if part.get("apiVersion").is_some() && part.get("kind").is_some() {
        return Ok(part);
    }
    let gateway_api = "gateway.networking.k8s.io/v1";
    let first = part.as_object().and_then(|object| object.keys().next()).cloned().unwrap_or_default();
    let metadata = json!({"name": "shown"});
    let mut whole = match first.as_str() {
        "listeners" => json!({"apiVersion": gateway_api, "kind": "Gateway", "metadata": metadata,
            "spec": {"gatewayClassName": "portico", "listeners": part["listeners"]}}),
        "rules" => json!({"apiVersion": gateway_api, "kind": "HTTPRoute", "metadata": metadata,
            "spec": {"rules": part["rules"]}}),
        "plugin" => json!({"apiVersion": "configuration.konghq.com/v1", "kind": "KongPlugin", "metadata": metadata}),
        _ => return Err(first),
    };
    if first == "plugin" {
        for (name, value) in part.as_object().expect("it has a first key") {
            whole[name] = value.clone();
        }
    }
    Ok(whole)
}

fn comment(line: &str) -> Option<&str> {
    line.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")
}

fn ground(mark: &str) -> Option<Ground> {
    match mark {
        "on a cluster" => Some(Ground::Cluster),
        _ => mark.strip_prefix("not run: ").map(|reason| Ground::Nowhere(reason.to_owned())),
    }
}

/// Whether that is what is shown: line by line, where `…` on a line of its own stands for any lines and within a line for
/// any part of it.
pub(crate) fn is_shown(answer: &str, shown: &str) -> bool {
    fn lines(answer: &[&str], shown: &[&str]) -> bool {
        match shown.split_first() {
            None => answer.is_empty(),
            Some((first, rest)) if first.trim() == "…" => {
                (0..=answer.len()).any(|skipped| lines(&answer[skipped..], rest))
            }
            Some((first, rest)) => answer
                .split_first()
                .is_some_and(|(line, after)| is_line(line.trim_end(), first.trim_end()) && lines(after, rest)),
        }
    }
    lines(&answer.lines().collect::<Vec<_>>(), &shown.lines().collect::<Vec<_>>())
}

fn is_line(line: &str, shown: &str) -> bool {
    let Some((start, rest)) = shown.split_once('…') else { return line == shown };
    let Some(after) = line.strip_prefix(start) else { return false };
    let cuts = after.char_indices().map(|(at, _)| at).chain([after.len()]);
    cuts.into_iter().any(|at| is_line(&after[at..], rest))
}
