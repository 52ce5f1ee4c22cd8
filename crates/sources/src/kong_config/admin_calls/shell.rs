//! A subset of the shell language: simple commands with quotes, variables, comments, continued lines, here-documents.
//!
//! Nothing is run. What is not in the subset becomes an [unknown](Piece::Unknown) piece of a word, so that only
//! commands that need it are affected.

use std::iter::Peekable;
use std::str::Chars;

/// A simple command, or the beginning or end of a compound one.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Command {
    /// Counted from 1.
    pub(super) line: u32,
    /// How it depends on the command before it.
    pub(super) link: Link,
    pub(super) words: Vec<Word>,
    /// The text of a here-document or a here-string.
    pub(super) input: Option<Word>,
    /// Whether it reads a file as its input.
    pub(super) reads_file: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Link {
    /// It runs in any case.
    Always,
    /// `&&`
    AfterSuccess,
    /// `||`
    AfterFailure,
    /// `|`
    Pipe,
    /// It is in parentheses, or follows a name and parentheses.
    Open,
    /// The end of parentheses.
    Close,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// `quoted`: the shell does not interpret it.
    Text {
        text: String,
        quoted: bool,
    },
    Variable {
        name: String,
        default: Option<String>,
        quoted: bool,
    },
    Unknown(&'static str),
}

impl Word {
    /// The text of a word without variables and quotes, such as a keyword.
    pub(super) fn keyword(&self) -> Option<&str> {
        match &self.pieces[..] {
            [Piece::Text { text, quoted: false }] => Some(text),
            _ => None,
        }
    }

    /// The word without variables; quotes count as removed.
    pub(super) fn literal(&self) -> Option<String> {
        let text = |piece: &Piece| match piece {
            Piece::Text { text, .. } => Some(text.clone()),
            Piece::Variable { .. } | Piece::Unknown(_) => None,
        };
        self.pieces.iter().map(text).collect()
    }

    /// `NAME=VALUE`, as the name and the value.
    pub(super) fn assignment(&self) -> Option<(&str, Word)> {
        let Some((Piece::Text { text, quoted: false }, rest)) = self.pieces.split_first() else { return None };
        let (name, value) = text.split_once('=')?;
        if !is_name(name) {
            return None;
        }
        let mut pieces = Vec::new();
        if !value.is_empty() {
            pieces.push(Piece::Text { text: value.to_owned(), quoted: false });
        }
        pieces.extend(rest.iter().cloned());
        Some((name, Word { pieces }))
    }

    fn push_text(&mut self, char: char, quoted: bool) {
        match self.pieces.last_mut() {
            Some(Piece::Text { text, quoted: same }) if *same == quoted => text.push(char),
            _ => self.pieces.push(Piece::Text { text: char.to_string(), quoted }),
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && !text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The commands of a script. The error has the line where a quote or a here-document begins that does not end.
pub(super) fn parse(script: &str) -> Result<Vec<Command>, (u32, &'static str)> {
    let mut reader = ShellReader { chars: script.chars().peekable(), line: 1, documents: Vec::new() };
    let mut commands: Vec<Command> = Vec::new();
    let mut link = Link::Always;
    loop {
        reader.skip_blanks();
        let line = reader.line;
        let Some(next) = reader.peek() else { break };
        let is_start = commands.last().is_none_or(|last| last.line == 0);
        match next {
            '\n' => {
                reader.next();
                finish(&mut commands);
                reader.read_documents(&mut commands)?;
                // A line may end after an operator.
                if matches!(link, Link::Open | Link::Close) {
                    link = Link::Always;
                }
            }
            '#' => {
                while reader.peek().is_some_and(|char| char != '\n') {
                    reader.next();
                }
            }
            ';' => {
                reader.next();
                finish(&mut commands);
                link = Link::Always;
            }
            '&' | '|' => {
                reader.next();
                let doubled = reader.eat(next);
                if next == '&' && !doubled && matches!(reader.peek(), Some('>')) {
                    reader.next();
                    reader.eat('>');
                    reader.skip_word()?;
                    continue;
                }
                finish(&mut commands);
                link = match (next, doubled) {
                    ('&', true) => Link::AfterSuccess,
                    ('|', true) => Link::AfterFailure,
                    ('|', false) => Link::Pipe,
                    _ => Link::Always,
                };
                if link == Link::Pipe {
                    reader.eat('&');
                }
            }
            '(' | ')' => {
                reader.next();
                finish(&mut commands);
                link = if next == '(' { Link::Open } else { Link::Close };
                commands.push(Command::empty(line, link));
                finish(&mut commands);
                link = Link::Always;
            }
            '<' | '>' => {
                if is_start {
                    commands.push(Command::empty(line, link));
                    link = Link::Always;
                }
                reader.read_redirection(&mut commands)?;
            }
            _ => {
                let word = reader.read_word()?;
                // A number in front of a redirection is the number of a file descriptor.
                let is_number = word.keyword().is_some_and(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
                if is_number && matches!(reader.peek(), Some('<' | '>')) && !is_start {
                    reader.read_redirection(&mut commands)?;
                    continue;
                }
                if is_start {
                    commands.push(Command::empty(line, link));
                    link = Link::Always;
                }
                if let Some(command) = commands.last_mut() {
                    command.words.push(word);
                }
            }
        }
    }
    finish(&mut commands);
    reader.read_documents(&mut commands)?;
    commands.retain(|command| command.line > 0);
    Ok(commands)
}

/// Marks that the next word begins another command.
fn finish(commands: &mut Vec<Command>) {
    if commands.last().is_some_and(|last| last.line > 0) {
        commands.push(Command::empty(0, Link::Always));
    }
}

impl Command {
    fn empty(line: u32, link: Link) -> Self {
        Command { line, link, words: Vec::new(), input: None, reads_file: false }
    }
}

/// Whether braces without quotes stand for several words.
#[derive(Clone, Copy)]
enum Brace {
    Outside,
    Open,
    WithSeveral,
}

struct ShellReader<'s> {
    chars: Peekable<Chars<'s>>,
    line: u32,
    /// Here-documents whose text begins after the end of the line.
    documents: Vec<HereDocument>,
}

struct HereDocument {
    /// The position of its command.
    command: usize,
    line: u32,
    end: String,
    strips_tabs: bool,
    is_literal: bool,
}

impl ShellReader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let next = self.chars.next();
        if next == Some('\n') {
            self.line += 1;
        }
        next
    }

    fn eat(&mut self, char: char) -> bool {
        let is_next = self.peek() == Some(char);
        if is_next {
            self.next();
        }
        is_next
    }

    /// Skips blanks and continued lines.
    fn skip_blanks(&mut self) {
        loop {
            match self.peek() {
                Some(' ' | '\t' | '\r') => drop(self.next()),
                Some('\\') => {
                    let mut ahead = self.chars.clone();
                    ahead.next();
                    if ahead.peek() == Some(&'\r') {
                        ahead.next();
                    }
                    if ahead.peek() != Some(&'\n') {
                        return;
                    }
                    while self.next() != Some('\n') {}
                }
                _ => return,
            }
        }
    }

    fn skip_word(&mut self) -> Result<Word, (u32, &'static str)> {
        self.skip_blanks();
        self.read_word()
    }

    /// Reads `>`, `<` or `<<` and what follows, for the last command.
    fn read_redirection(&mut self, commands: &mut [Command]) -> Result<(), (u32, &'static str)> {
        let line = self.line;
        let position = commands.len().saturating_sub(1);
        if self.eat('>') {
            self.eat('>');
            self.eat('|');
            self.eat('&');
            self.skip_word()?;
            return Ok(());
        }
        self.eat('<');
        if !self.eat('<') {
            self.eat('&');
            self.skip_word()?;
            if let Some(command) = commands.get_mut(position) {
                command.reads_file = true;
            }
            return Ok(());
        }
        if self.eat('<') {
            let text = self.skip_word()?;
            if let Some(command) = commands.get_mut(position) {
                command.input = Some(text);
            }
            return Ok(());
        }
        let strips_tabs = self.eat('-');
        let end = self.skip_word()?;
        let is_literal = end.pieces.iter().any(|piece| matches!(piece, Piece::Text { quoted: true, .. }));
        let Some(end) = end.literal() else { return Err((line, "the end of the here-document is not known")) };
        self.documents.push(HereDocument { command: position, line, end, strips_tabs, is_literal });
        Ok(())
    }

    fn read_documents(&mut self, commands: &mut [Command]) -> Result<(), (u32, &'static str)> {
        for document in std::mem::take(&mut self.documents) {
            let mut text = String::new();
            loop {
                let mut line = String::new();
                let mut is_end = true;
                while let Some(char) = self.next() {
                    if char == '\n' {
                        is_end = false;
                        break;
                    }
                    line.push(char);
                }
                let line = line.trim_end_matches('\r');
                let line = if document.strips_tabs { line.trim_start_matches('\t') } else { line };
                if line == document.end {
                    break;
                }
                if is_end {
                    return Err((document.line, "this here-document does not end"));
                }
                text.push_str(line);
                text.push('\n');
            }
            let word = if document.is_literal {
                Word { pieces: vec![Piece::Text { text, quoted: true }] }
            } else {
                let mut inner =
                    ShellReader { chars: text.chars().peekable(), line: document.line, documents: Vec::new() };
                let mut word = Word::default();
                inner.read_expandable(&mut word, None)?;
                word
            };
            if let Some(command) = commands.get_mut(document.command) {
                command.input = Some(word);
            }
        }
        Ok(())
    }

    fn read_word(&mut self) -> Result<Word, (u32, &'static str)> {
        let mut word = Word::default();
        let mut is_first = true;
        let mut brace = Brace::Outside;
        while let Some(char) = self.peek() {
            match char {
                ' ' | '\t' | '\r' | '\n' | ';' | '&' | '|' | '(' | ')' | '<' | '>' => break,
                '\\' => {
                    self.next();
                    match self.next() {
                        // A continued line does not end the word.
                        Some('\n') | None => {}
                        Some(char) => word.push_text(char, true),
                    }
                }
                '\'' => {
                    let line = self.line;
                    self.next();
                    word.pieces.push(Piece::Text { text: String::new(), quoted: true });
                    loop {
                        match self.next() {
                            Some('\'') => break,
                            Some(char) => word.push_text(char, true),
                            None => return Err((line, "this quote does not end")),
                        }
                    }
                }
                '"' => {
                    let line = self.line;
                    self.next();
                    word.pieces.push(Piece::Text { text: String::new(), quoted: true });
                    self.read_expandable(&mut word, Some(line))?;
                }
                '$' | '`' => {
                    self.next();
                    self.read_expansion(char, false, &mut word)?;
                }
                '~' if is_first
                    || matches!(word.pieces.last(), Some(Piece::Text { text, quoted: false }) if text.ends_with('=')) =>
                {
                    self.next();
                    word.pieces.push(Piece::Unknown("~ without quotes can stand for a folder"));
                }
                _ => {
                    brace = match (brace, char) {
                        (_, '{') => Brace::Open,
                        (Brace::Open, ',' | '.') => Brace::WithSeveral,
                        (Brace::WithSeveral, '}') => {
                            word.pieces.push(Piece::Unknown("{…,…} without quotes stands for several words"));
                            Brace::Outside
                        }
                        (_, '}') => Brace::Outside,
                        (brace, _) => brace,
                    };
                    self.next();
                    word.push_text(char, false);
                }
            }
            is_first = false;
        }
        Ok(word)
    }

    /// Text in double quotes, or to the end for a here-document.
    fn read_expandable(&mut self, word: &mut Word, quote: Option<u32>) -> Result<(), (u32, &'static str)> {
        loop {
            match self.next() {
                None => return quote.map_or(Ok(()), |line| Err((line, "this quote does not end"))),
                Some('"') if quote.is_some() => return Ok(()),
                Some('\\') => match self.next() {
                    Some('\n') => {}
                    Some(char @ ('$' | '`' | '\\')) => word.push_text(char, true),
                    Some('"') if quote.is_some() => word.push_text('"', true),
                    other => {
                        word.push_text('\\', true);
                        if let Some(char) = other {
                            word.push_text(char, true);
                        }
                    }
                },
                Some(char @ ('$' | '`')) => self.read_expansion(char, true, word)?,
                Some(char) => word.push_text(char, true),
            }
        }
    }

    /// After `$` or a backtick.
    fn read_expansion(&mut self, start: char, quoted: bool, word: &mut Word) -> Result<(), (u32, &'static str)> {
        let line = self.line;
        if start == '`' {
            loop {
                match self.next() {
                    Some('\\') => drop(self.next()),
                    Some('`') => break,
                    Some(_) => {}
                    None => return Err((line, "this backtick has no counterpart")),
                }
            }
            word.pieces.push(Piece::Unknown(SUBSTITUTION));
            return Ok(());
        }
        match self.peek() {
            Some('(') => {
                self.next();
                self.skip_parentheses(line)?;
                word.pieces.push(Piece::Unknown(SUBSTITUTION));
            }
            Some('{') => {
                self.next();
                let mut text = String::new();
                loop {
                    match self.next() {
                        Some('}') => break,
                        Some(char) if char != '\n' => text.push(char),
                        _ => return Err((line, "this ${ does not end")),
                    }
                }
                word.pieces.push(parameter(&text, quoted));
            }
            Some(char) if char.is_ascii_alphabetic() || char == '_' => {
                let mut name = String::new();
                while let Some(char) = self.peek().filter(|char| char.is_ascii_alphanumeric() || *char == '_') {
                    self.next();
                    name.push(char);
                }
                word.pieces.push(Piece::Variable { name, default: None, quoted });
            }
            Some(char) if char.is_ascii_digit() || "@*#?!-$".contains(char) => {
                self.next();
                word.pieces.push(Piece::Unknown("parameters of the script are not known"));
            }
            Some('\'' | '"') if !quoted => {
                word.pieces.push(Piece::Unknown("$'…' and $\"…\" are not read"));
            }
            _ => word.push_text('$', true),
        }
        Ok(())
    }

    /// To the counterpart of a parenthesis, without regard to those in quotes.
    fn skip_parentheses(&mut self, line: u32) -> Result<(), (u32, &'static str)> {
        let mut depth = 1_u32;
        let mut quote = None;
        loop {
            let Some(char) = self.next() else { return Err((line, "this $( does not end")) };
            match (quote, char) {
                (Some('"') | None, '\\') => drop(self.next()),
                (Some(open), char) if open == char => quote = None,
                (None, '\'' | '"') => quote = Some(char),
                (None, '(') => depth += 1,
                (None, ')') => {
                    depth -= 1;
                    if depth == 0 {
                        return Ok(());
                    }
                }
                _ => {}
            }
        }
    }
}

/// The inside of `${…}`.
fn parameter(text: &str, quoted: bool) -> Piece {
    let (name, default) = match text.split_once(":-") {
        Some((name, default)) => (name, Some(default.trim_matches(['"', '\'']).to_owned())),
        None => (text, None),
    };
    let is_plain = default.as_ref().is_none_or(|default| !default.contains(['$', '`', '\\', '"', '\'']));
    match is_name(name) && is_plain {
        true => Piece::Variable { name: name.to_owned(), default, quoted },
        false => Piece::Unknown("of ${…}, only ${NAME} and ${NAME:-TEXT} are read"),
    }
}

const SUBSTITUTION: &str = "the output of a command in $(…) or backticks is not known";

#[cfg(test)]
mod tests;
