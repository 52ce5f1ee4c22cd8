//! Fuzzing of manifest files: documents are the whole text, values survive as JSON, positions are in the text, and the
//! schema finds no problem in an object that it has accepted.

use serde_json::Value;

use super::documents::split;
use super::outline::CaretTarget;
use super::read_object::{ReadOutcome, ReadSettings, read_object};
use super::yaml;
use crate::api::Kind;
use crate::schema::{self, Channel};
use crate::store::LargeObjects;

/// The input is a file.
pub(crate) fn check(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let documents = split(text);
    let joined: String = documents.iter().map(|document| document.text).collect();
    assert_eq!(joined, text, "every byte is in one document");
    let mut line = 1;
    for document in documents {
        assert_eq!(document.line, line, "the first line of {:?}", document.text);
        line += u32::try_from(document.text.matches('\n').count()).expect("the input is short");
        check_document(document.text);
    }
}

fn check_document(text: &str) {
    let lines = count_lines(text);
    let value = match yaml::parse(text) {
        Ok(value) => value,
        Err(error) => {
            let span = error.span;
            assert!(span.line as usize <= lines + 1, "the error is in the document: {error:?}");
            assert!(!error.diagnostic.message.is_empty() && !error.diagnostic.remedy.is_empty(), "{error:?}");
            return;
        }
    };
    // An alias is written in full in JSON, which may then exceed a limit.
    if !text.contains('*') && !value.is_null() {
        let json = serde_json::to_string(&value).expect("a value is JSON");
        assert_eq!(yaml::parse(&json).ok().as_ref(), Some(&value), "JSON is YAML: {json}");
    }
    for channel in [Channel::Standard, Channel::Experimental] {
        check_object(text, value.clone(), channel);
    }
}

fn check_object(text: &str, value: Value, channel: Channel) {
    let findings =
        match read_object(value.clone(), ReadSettings { channel, large_objects: LargeObjects::Reduce }, |_, _| None) {
            ReadOutcome::Ignored(_) => return,
            ReadOutcome::Rejected { findings, .. } => {
                assert!(!findings.is_empty(), "a rejected object has a reason");
                findings
            }
            ReadOutcome::Accepted(accepted) => {
                check_accepted(accepted.object.kind(), value, channel);
                accepted.warnings
            }
        };
    let outline = yaml::outline(text).expect("a document that is parsed has an outline");
    for finding in findings {
        let span = outline.locate(&[], &finding.field, CaretTarget::for_reason(&finding.reason));
        assert!(span.line as usize <= count_lines(text) + 1, "{finding:?} is in the document");
    }
}

/// A carriage return alone ends a line, too (YAML 1.2.2, section 5.4).
fn count_lines(text: &str) -> usize {
    text.replace("\r\n", "\n").split(['\n', '\r']).count()
}

fn check_accepted(kind: Kind, mut value: Value, channel: Channel) {
    if schema::check(kind, &mut value, channel).is_empty() {
        let with_defaults = value.clone();
        let violations = schema::check(kind, &mut value, channel);
        assert_eq!((&*violations, &value), (&[][..], &with_defaults), "validating twice changes nothing");
    }
}
