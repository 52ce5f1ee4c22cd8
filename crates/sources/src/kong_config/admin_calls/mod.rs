//! Scripts of `curl` calls to the Admin API of Kong, translated like a declarative file with the same entities.
//!
//! ```text
//!   script ─ shell.rs ─▶ commands ─ curl.rs, form.rs ─▶ calls ─ entities.rs ─▶ entities ─ as of a file ─▶ objects
//! ```
//!
//! Nothing is run, and nothing is guessed: what is not understood is left out, and reported with its line.

mod curl;
mod entities;
mod field_types;
mod form;
mod shell;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::credentials::CredentialContext;
use super::fields::FileFindings;
use super::settings::TranslationSettings;
use super::vaults;
use crate::diagnostic::{Diagnostic, Reason};
use crate::manifests::{FilePosition, LEFT_OUT, ManifestDiagnostic, ObjectSource, TranslatedFile};
use entities::{ScriptEntities, ScriptLines};
use shell::{Command, Link, Piece, Word};

/// What a script refers to.
#[derive(Clone, Copy)]
pub struct ScriptContext<'a> {
    /// The value of an environment variable.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// The content of a file that a call sends.
    pub file: &'a dyn Fn(&str) -> Option<String>,
    /// The JSON schema of the configuration of a plugin.
    pub plugin_schema: &'a dyn Fn(&str) -> Option<Value>,
}

/// Translates a script.
pub fn translate_admin_calls(
    file: &Path,
    script: &str,
    settings: &TranslationSettings,
    context: ScriptContext<'_>,
) -> TranslatedFile {
    let mut reading = ScriptReading::new(context);
    match shell::parse(script) {
        Ok(commands) => reading.read(&commands),
        Err((line, message)) => {
            let problem = Diagnostic::of_file("NotShell", message, "correct the script");
            let position = FilePosition::without_excerpt(Arc::from(file), line, 1);
            return TranslatedFile {
                objects: None,
                diagnostics: vec![ManifestDiagnostic::for_file(position, problem)],
            };
        }
    }
    let (model, lines) = reading.entities.into_file();
    let findings = FileFindings::default();
    vaults::check_references(&model, &findings);
    let credentials = CredentialContext { hashed_passwords: false, read_at: None };
    let mut objects = super::translate_entities(model, settings, &credentials, &findings);
    for object in &mut objects {
        if let ObjectSource::Entity(entity) = &object.source {
            object.source = ObjectSource::Line(lines.line(entity));
        }
    }
    let (rejections, notes) = findings.into_parts();
    let file: Arc<Path> = Arc::from(file);
    let mut diagnostics: Vec<ManifestDiagnostic> = Vec::new();
    for (line, problem) in reading.problems {
        let position = FilePosition::without_excerpt(Arc::clone(&file), line, 1);
        diagnostics.push(ManifestDiagnostic::for_file(position, problem));
    }
    let is_rejected = !rejections.is_empty();
    diagnostics.extend(located(&file, &lines, if is_rejected { rejections } else { notes }));
    TranslatedFile { objects: (!is_rejected).then_some(objects), diagnostics }
}

fn located(
    file: &Arc<Path>,
    lines: &ScriptLines,
    diagnostics: Vec<Diagnostic>,
) -> impl Iterator<Item = ManifestDiagnostic> {
    diagnostics.into_iter().map(|diagnostic| {
        let position = match lines.line(&diagnostic.field) {
            0 => FilePosition::whole_file(Arc::clone(file)),
            line => FilePosition::without_excerpt(Arc::clone(file), line, 1),
        };
        ManifestDiagnostic::for_file(position, diagnostic)
    })
}

/// The state of the script after some of its commands.
struct ScriptReading<'a> {
    context: ScriptContext<'a>,
    /// `Err`: the line whose value is not known.
    variables: HashMap<String, Result<String, u32>>,
    entities: ScriptEntities,
    problems: Vec<(u32, Diagnostic)>,
    /// Whether the current folder may have changed.
    is_elsewhere: bool,
}

impl<'a> ScriptReading<'a> {
    fn new(context: ScriptContext<'a>) -> Self {
        ScriptReading {
            context,
            variables: HashMap::new(),
            entities: ScriptEntities::default(),
            problems: Vec::new(),
            is_elsewhere: false,
        }
    }

    fn read(&mut self, commands: &[Command]) {
        let mut rest = commands.iter().enumerate().peekable();
        // What ends each compound command that is open, none of which is read.
        let mut open: Vec<&'static str> = Vec::new();
        while let Some((position, command)) = rest.next() {
            if !open.is_empty() {
                skip(command, &mut open);
                continue;
            }
            let next = commands.get(position + 1);
            let is_function = command.words.len() == 1
                && next.is_some_and(|next| next.link == Link::Open && next.line == command.line);
            if is_function || command.words.first().and_then(Word::keyword) == Some("function") {
                self.report(command.line, "functions are not read", "write their commands where they are called");
                // The parentheses of a function are empty, and its body is in braces.
                let ends_here = command.words.last().and_then(Word::keyword) == Some("{");
                if ends_here {
                    open.push("}");
                } else {
                    while rest.next_if(|(_, next)| matches!(next.link, Link::Open | Link::Close)).is_some() {}
                    if let Some((_, body)) = rest.next_if(|(_, next)| starts_with(next, "{")) {
                        skip_first(body, &mut open);
                    }
                }
                continue;
            }
            skip(command, &mut open);
            if !open.is_empty() {
                let what = command.words.first().and_then(Word::keyword).unwrap_or("(…)").to_owned();
                let message = format!("the commands from `{what}` to its end are not read");
                self.report(command.line, message, "write the calls without conditions, loops and groups");
                continue;
            }
            let is_piped = next.is_some_and(|next| next.link == Link::Pipe);
            if !self.read_command(command, is_piped) {
                return;
            }
        }
    }

    /// Returns whether the script continues.
    fn read_command(&mut self, command: &Command, is_piped: bool) -> bool {
        let line = command.line;
        let mut words = &command.words[..];
        // Assignments in front of a command are for that command only.
        while let Some((first, rest)) = words.split_first() {
            let Some((name, value)) = first.assignment() else { break };
            if rest.iter().all(|word| word.assignment().is_some()) {
                self.assign(name, &value, line);
            }
            words = rest;
        }
        let Some((name, arguments)) = words.split_first() else { return true };
        let name = match self.expand(name) {
            Ok(expanded) => expanded.first().cloned().unwrap_or_default(),
            Err(message) => {
                self.report(line, format!("this command is not known: {message}"), "write its name");
                return true;
            }
        };
        match (&*name, command.link) {
            (filter, Link::Pipe) if FILTERS.contains(&filter) => {}
            ("true" | ":" | "echo" | "printf" | "sleep" | "wait" | "date" | "set" | "clear", _) => {}
            ("unset", _) => {
                for word in arguments {
                    match self.expand(word).map(|expanded| expanded.concat()) {
                        Ok(name) if !name.starts_with('-') => {
                            self.variables.remove(&name);
                        }
                        _ => self.report(line, "it is not known what this command removes", "write names of variables"),
                    }
                }
            }
            ("exit" | "return", Link::AfterFailure) => {}
            ("exit", Link::Always) => return false,
            ("export" | "readonly" | "declare" | "local", _) => {
                for word in arguments {
                    if let Some((name, value)) = word.assignment() {
                        self.assign(name, &value, line);
                    }
                }
            }
            ("curl", Link::AfterFailure) => {
                let message = "this call is sent only if another command fails, which is not known";
                self.report(line, message, "write it without a condition");
            }
            ("curl", _) => self.call(command, arguments, line),
            (other, _) => {
                self.is_elsewhere |= matches!(other, "cd" | "pushd" | "popd");
                let shown: String = other.chars().take(40).collect();
                let message = format!("command `{shown}` is not understood");
                let remedy = if is_piped {
                    "write the data in the call"
                } else {
                    "remove it, or write its effect as calls of curl"
                };
                self.report(line, message, remedy);
            }
        }
        true
    }

    fn call(&mut self, command: &Command, arguments: &[Word], line: u32) {
        let expanded: Result<Vec<Vec<String>>, String> = arguments.iter().map(|word| self.expand(word)).collect();
        let input = command.input.as_ref().map(|word| self.expand_as_one(word)).transpose();
        let (arguments, input) = match (expanded, input) {
            (Ok(arguments), Ok(input)) => (arguments.concat(), input),
            (Err(message), _) | (_, Err(message)) => {
                self.report(line, format!("this call is not understood: {message}"), "write the text itself");
                return;
            }
        };
        let file = |name: &str| if self.is_elsewhere { None } else { (self.context.file)(name) };
        // A file as the input is not read.
        let input = input.as_deref().filter(|_| !command.reads_file);
        let applied = curl::parse(&arguments, input, &file).and_then(|call| match call {
            Some(call) => self.entities.apply(call, line, self.context.plugin_schema),
            None => Ok(()),
        });
        if let Err((message, remedy)) = applied {
            self.report(line, message, remedy);
        }
    }

    fn assign(&mut self, name: &str, value: &Word, line: u32) {
        let value = self.expand_as_one(value).map_err(|_| line);
        self.variables.insert(name.to_owned(), value);
    }

    /// The words that a word stands for: variables without quotes may have several.
    fn expand(&self, word: &Word) -> Result<Vec<String>, String> {
        let mut words: Vec<String> = Vec::new();
        let mut is_open = false;
        for (text, is_split) in self.expanded_pieces(word)? {
            let parts: Vec<&str> = if is_split { text.split_whitespace().collect() } else { vec![&text] };
            is_open &= !(is_split && text.starts_with(char::is_whitespace));
            for part in parts {
                match words.last_mut().filter(|_| is_open) {
                    Some(last) => last.push_str(part),
                    None => words.push(part.to_owned()),
                }
                is_open = false;
            }
            let ends_word = is_split && text.ends_with(char::is_whitespace);
            is_open = !words.is_empty() && !ends_word;
        }
        Ok(words)
    }

    /// The text of a word that is not divided, as in an assignment.
    fn expand_as_one(&self, word: &Word) -> Result<String, String> {
        Ok(self.expanded_pieces(word)?.into_iter().map(|(text, _)| text).collect())
    }

    /// The text of each piece, and whether the shell divides it at blanks.
    fn expanded_pieces(&self, word: &Word) -> Result<Vec<(String, bool)>, String> {
        let expand = |piece: &Piece| match piece {
            Piece::Unknown(reason) => Err((*reason).to_owned()),
            Piece::Text { text, .. } => Ok((text.clone(), false)),
            Piece::Variable { name, default, quoted } => {
                let known = self.variables.get(name).cloned();
                let value = match known.or_else(|| (self.context.variable)(name).map(Ok)) {
                    Some(Err(line)) => {
                        return Err(format!("the value that line {line} gives variable {name} is not known"));
                    }
                    Some(Ok(value)) if !(value.is_empty() && default.is_some()) => value,
                    _ => default.clone().ok_or_else(|| format!("variable {name} is not set"))?,
                };
                Ok((value, !quoted))
            }
        };
        word.pieces.iter().map(expand).collect()
    }

    fn report(&mut self, line: u32, message: impl Into<String>, remedy: impl Into<String>) {
        let problem = Diagnostic::of_object(message, remedy).with_reason(Reason::Named(LEFT_OUT));
        self.problems.push((line, problem));
    }
}

fn starts_with(command: &Command, keyword: &str) -> bool {
    command.words.first().and_then(Word::keyword) == Some(keyword)
}

/// Follows the compound commands that a command opens or closes.
fn skip(command: &Command, open: &mut Vec<&'static str>) {
    match command.link {
        Link::Open => open.push(")"),
        Link::Close if open.last() == Some(&")") => drop(open.pop()),
        _ => skip_first(command, open),
    }
}

fn skip_first(command: &Command, open: &mut Vec<&'static str>) {
    let words = command.words.iter().map_while(Word::keyword);
    for word in words {
        match word {
            "if" => open.push("fi"),
            "for" | "while" | "until" | "select" => {
                open.push("done");
                break;
            }
            "case" => {
                open.push("esac");
                break;
            }
            "{" => open.push("}"),
            "fi" | "done" | "esac" | "}" if open.last() == Some(&word) => drop(open.pop()),
            // Another command follows these words.
            "then" | "do" | "else" | "elif" | "!" => {}
            _ => break,
        }
    }
}

/// Commands that only show the output of a call.
const FILTERS: [&str; 11] = ["jq", "json_pp", "tee", "cat", "head", "tail", "grep", "python", "python3", "yq", "sed"];

#[cfg(test)]
mod tests;
