//! Extracts the text for readers: comments and literals of Rust, comments of scripts, text of documents, and names of
//! types and modules.

use crate::tokens::{self, Piece};
use crate::tree::File;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Comment,
    Literal,
    /// A line of Markdown outside of code.
    Document,
}

/// A line of prose.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Prose {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) form: Form,
    pub(crate) in_tests: bool,
}

/// All prose of a file, line by line.
pub(crate) fn of_file(file: &File) -> Vec<Prose> {
    match file.path.rsplit_once('.').map(|(_, extension)| extension) {
        Some("rs") => of_rust(file),
        Some("md") => of_markdown(file),
        Some("sh" | "toml" | "yaml" | "yml") => of_hash_comments(file),
        _ if ["Makefile", "Dockerfile"].contains(&file.path.as_str()) => of_hash_comments(file),
        _ => Vec::new(),
    }
}

fn of_rust(file: &File) -> Vec<Prose> {
    let tests = first_test_line(file);
    let mut found = Vec::new();
    for Piece { line, text, is_comment } in tokens::pieces(&file.text) {
        let form = if is_comment { Form::Comment } else { Form::Literal };
        for (index, text) in text.lines().enumerate() {
            let line = line + index;
            found.push(Prose { line, text: text.to_owned(), form, in_tests: line >= tests });
        }
    }
    found
}

fn of_markdown(file: &File) -> Vec<Prose> {
    let mut in_code = false;
    let mut found = Vec::new();
    for (line, text) in file.lines() {
        if text.trim_start().starts_with("```") {
            in_code = !in_code;
        } else if !in_code {
            found.push(Prose { line, text: text.to_owned(), form: Form::Document, in_tests: false });
        }
    }
    found
}

fn of_hash_comments(file: &File) -> Vec<Prose> {
    let comments = file.lines().filter_map(|(line, text)| {
        let text = text.strip_prefix('#').or_else(|| Some(text.split_once(" #")?.1))?;
        Some(Prose { line, text: text.to_owned(), form: Form::Comment, in_tests: false })
    });
    comments.collect()
}

/// The line at which the tests of a Rust file begin: 0 if it has only tests, past its end if it has none.
pub(crate) fn first_test_line(file: &File) -> usize {
    let is_test_file = ["tests/", "benches/", "e2e/tests/"].iter().any(|folder| file.path.starts_with(folder))
        || file.path.ends_with("/tests.rs")
        || file.path.contains("/tests/");
    if is_test_file {
        return 0;
    }
    let lines: Vec<&str> = file.text.lines().collect();
    let is_tests = |pair: &[&str]| pair[0] == "#[cfg(test)]" && pair[1].starts_with("mod ") && pair[1].ends_with('{');
    lines.windows(2).position(is_tests).map_or(usize::MAX, |at| at + 1)
}

/// The name of a type or a module where it is declared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) line: usize,
    pub(crate) text: String,
    pub(crate) is_type: bool,
}

impl Name {
    /// The words in lower case: "status" and "queue" for both `StatusQueue` and `status_queue`.
    pub(crate) fn words(&self) -> Vec<String> {
        let mut words = vec![String::new()];
        for c in self.text.chars() {
            if c == '_' || (c.is_uppercase() && words.last().is_some_and(|word| !word.is_empty())) {
                words.push(String::new());
            }
            if let (true, Some(word)) = (c != '_', words.last_mut()) {
                word.extend(c.to_lowercase());
            }
        }
        words.retain(|word| !word.is_empty());
        words
    }
}

/// Names of types and modules that production code of a Rust file declares.
pub(crate) fn names(file: &File) -> Vec<Name> {
    if !file.has_extension("rs") {
        return Vec::new();
    }
    let tests = first_test_line(file);
    let tokens = tokens::tokens(&file.text);
    let declared = tokens.windows(3).filter_map(|window| {
        let [keyword, name, after] = window else { return None };
        let is_type = ["struct", "enum", "trait", "type", "union"].contains(&keyword.text.as_str());
        let is_module = keyword.text == "mod" && [";", "{"].contains(&after.text.as_str());
        // An associated type has its name from the trait.
        let is_associated = keyword.text == "type" && is_indented(file, keyword.line);
        let is_name = name.text.starts_with(char::is_alphabetic);
        let found = is_name && ((is_type && !is_associated) || is_module);
        (found && name.line < tests).then(|| Name { line: name.line, text: name.text.clone(), is_type })
    });
    declared.collect()
}

fn is_indented(file: &File, line: usize) -> bool {
    file.text.lines().nth(line - 1).is_some_and(|text| text.starts_with(' '))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_is_found_with_its_line_and_form() {
        let source = "//! A.\nfn f() { g(\"b c\") } // d\n#[cfg(test)]\nmod tests {\n// e\n}";
        let found = of_file(&File::new("src/a.rs", source));
        let found: Vec<_> =
            found.iter().map(|prose| (prose.line, prose.text.trim(), prose.form, prose.in_tests)).collect();
        let expected = [
            (1, "! A.", Form::Comment, false),
            (2, "b c", Form::Literal, false),
            (2, "d", Form::Comment, false),
            (5, "e", Form::Comment, true),
        ];
        assert_eq!(found, expected);
        let document = of_file(&File::new("a.md", "a\n```\nb\n```\nc"));
        assert_eq!(document.iter().map(|prose| prose.line).collect::<Vec<_>>(), [1, 5]);
        let script = of_file(&File::new("a.sh", "#!/bin/sh\na # b\nc"));
        assert_eq!(script.iter().map(|prose| prose.line).collect::<Vec<_>>(), [1, 2]);
    }

    #[test]
    fn names_are_types_and_modules_of_production_code() {
        let source = "//! A.\npub struct AbCd;\nmod e_f;\nimpl T for U {\n    type Out = V;\n}\n#[cfg(test)]\nmod tests {\nstruct X;\n}";
        let found = names(&File::new("src/a.rs", source));
        let found: Vec<_> = found.iter().map(|name| (name.line, name.words().join(" "), name.is_type)).collect();
        assert_eq!(found, [(2, "ab cd".to_owned(), true), (3, "e f".to_owned(), false)]);
    }
}
