//! A page of the guide as its blocks of code, each with where it stands and what is said about running it.
//!
//! ````text
//! <!-- not run: it takes a cluster -->     the next block is left out, and this is why
//! <!-- page not run: it takes a cluster -->     so is all of this page but for whole objects
//! ```yaml                                  objects, or a part of one
//! # manifests/shop.yaml                    this block is that file from here on
//! ```console                               commands behind `$ `, and below each what it prints;
//!                                          `…` stands for any lines, or for any part of a line
//! ```sh                                    commands, which have to succeed
//! ````

use std::fs;

use crate::harness::program::root;

pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) struct Block {
    pub(crate) language: String,
    pub(crate) text: String,
    /// Of its first line.
    pub(crate) line: usize,
    /// Why it is not run.
    pub(crate) left_out: Option<String>,
}

impl Page {
    pub(crate) fn read(path: &str) -> Page {
        Page::parse(path, &fs::read_to_string(root().join(path)).unwrap())
    }

    pub(crate) fn parse(path: &str, text: &str) -> Page {
        let mut page = Page { path: path.to_owned(), blocks: Vec::new() };
        let mut whole = None;
        let mut mark = None;
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            if let Some(reason) = comment(line, "page not run: ") {
                whole = Some(reason.to_owned());
            } else if let Some(reason) = comment(line, "not run: ") {
                mark = Some(reason.to_owned());
            } else if let Some(language) = line.trim_start().strip_prefix("```") {
                let indent = line.len() - line.trim_start().len();
                let fence: String = line.trim_start().chars().take_while(|c| *c == '`').collect();
                let code = lines.by_ref().map(|(_, line)| line).take_while(|line| line.trim() != fence);
                let code: String = code.map(|line| format!("{}\n", line.get(indent..).unwrap_or_default())).collect();
                let language = language.trim_start_matches('`').to_owned();
                // Values of a chart and the like are parts of nothing that could be checked.
                let is_part = language == "yaml" && !code.lines().any(|line| line.starts_with("apiVersion:"));
                let is_run = COMMANDS.contains(&&*language) || is_part;
                let left_out = mark.take().or_else(|| whole.clone().filter(|_| is_run));
                page.blocks.push(Block { language, text: code, line: index + 2, left_out });
            } else if !line.trim().is_empty() && mark.is_some() {
                panic!("{path}:{}: a mark stands directly above the block that it is about", index + 1);
            }
        }
        page
    }

    /// Whether there is something to type.
    pub(crate) fn has_commands(&self) -> bool {
        self.blocks.iter().any(|block| block.is_command() && block.left_out.is_none())
    }
}

impl Block {
    pub(crate) fn is_command(&self) -> bool {
        COMMANDS.contains(&&*self.language)
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
}

const COMMANDS: [&str; 2] = ["console", "sh"];

fn comment<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.trim().strip_prefix("<!-- ")?.strip_suffix(" -->")?.strip_prefix(start)
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
