//! Checks that the documents named in comments are files of the repository.

use crate::prose::{self, Form};
use crate::tree::{File, Finding};

pub(crate) fn findings(files: &[File]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for file in files.iter().filter(|file| !file.has_extension("md")) {
        for part in prose::of_file(file).iter().filter(|part| part.form == Form::Comment) {
            for cited in documents(&part.text) {
                if !exists(cited, &file.path, files) {
                    let message = format!(
                        "`{cited}` is not in the checkout; cite an RFC, a GEP, public documentation or a file that is"
                    );
                    findings.push(Finding::new(&file.path, part.line, message));
                }
            }
        }
    }
    findings
}

/// Names of Markdown files in a comment, except those in URLs.
fn documents(text: &str) -> impl Iterator<Item = &str> {
    let words = text.split(|c: char| c.is_whitespace() || "()[]`'\",;<>".contains(c));
    let names = words.map(|word| word.split('#').next().unwrap_or(word).trim_end_matches(['.', ':']));
    names.filter(|name| name.ends_with(".md") && name.len() > ".md".len() && !name.contains("://"))
}

/// Whether the path exists from the root, from `docs/`, or from the folder of the file that cites it.
fn exists(cited: &str, from: &str, files: &[File]) -> bool {
    // A pattern stands for several files.
    if cited.contains(['*', '{', '$', '%']) {
        return true;
    }
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    let in_folder = format!("{folder}/{cited}");
    files.iter().any(|file| file.path == cited || file.path == in_folder || file.path == format!("docs/{cited}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Places, expect};

    #[test]
    fn comments_that_cite_what_a_clone_lacks_are_found() {
        let cases: &[(&str, &str, &str, Places<'_>)] = &[
            ("by its path", "src/a.rs", "// See docs/a.md.", &[]),
            ("of the guide", "src/a.rs", "// See `a.md`.", &[]),
            ("next to it", "tests/x/a.rs", "// rules.md has it.", &[]),
            ("RFC", "src/a.rs", "// RFC 9110 §5.6", &[]),
            ("address", "src/a.rs", "// https://example.com/b.md", &[]),
            ("pattern", "src/a.rs", "// docs/plugins/NAME.md, docs/*.md", &[("src/a.rs:1", "docs/plugins/NAME.md")]),
            ("missing", "src/a.rs", "\n// design.md §4 has it.", &[("src/a.rs:2", "`design.md`")]),
            ("in code", "src/a.rs", "const A: &str = \"design.md\";", &[]),
            ("script", "a.sh", "# design.md", &[("a.sh:1", "`design.md`")]),
        ];
        for (name, path, text, expected) in cases {
            let files = [File::new("docs/a.md", ""), File::new("tests/x/rules.md", ""), File::new(path, text)];
            expect(name, findings(&files), expected);
        }
    }
}
