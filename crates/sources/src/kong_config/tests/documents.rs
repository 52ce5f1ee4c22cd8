//! Files without content, and markers of documents.

use serde_json::Value;

use super::super::{empty_file, prepare};
use super::translated;
use crate::manifests::Translation;

#[test]
fn markers_of_documents_without_content_are_comments() {
    for (text, expected) in [
        ("", "\n"),
        ("# nothing\n", "# nothing\n"),
        ("---\n", "#--\n"),
        ("a: 1\n", "a: 1\n"),
        ("a: 1\n---\n", "a: 1\n#--\n"),
        ("a: 1\r\n--- # end\r\n# more\r\n---", "a: 1\r\n#-- # end\r\n# more\r\n#--"),
        ("a: 1\n...\n", "a: 1\n#..\n"),
        ("# first\n---\n---\na: 1\n", "# first\n#--\n#--\na: 1\n"),
        ("%YAML 1.2\n---\na: 1\n---\n", "%YAML 1.2\n---\na: 1\n#--\n"),
        ("a: |\n  x\n  # y\n---\n", "a: |\n  x\n  # y\n#--\n"),
        ("---\na: 1\n---\nb: 2\n---\n", "#--\na: 1\n---\nb: 2\n#--\n"),
        ("--- {a: 1}\n---x\n", "--- {a: 1}\n---x\n"),
    ] {
        assert_eq!(prepare(text), expected);
    }
}

#[test]
fn files_without_content_are_empty() {
    let Translation::Rejected(problems) = translated(Value::Null) else { panic!("it has no entities") };
    assert_eq!(problems, [empty_file()]);
}
