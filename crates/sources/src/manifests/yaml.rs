//! Parses YAML and JSON to values, and to outlines with positions. The only file that uses the YAML parsers.

use granit_parser::{ErrorKind, Event, Marker, Parser, StructureStyle};
use serde::de::IgnoredAny;
use serde_json::Value;
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::{DuplicateKeyPolicy, Error};

use super::outline::{Outline, TextPosition, YamlShape};
use super::position::TextSpan;
use crate::diagnostic::{Diagnostic, Reason};

/// Why a document cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct YamlError {
    /// The position, relative to the document.
    pub(super) span: TextSpan,
    pub(super) diagnostic: Diagnostic,
}

impl YamlError {
    fn new(span: TextSpan, reason: &'static str, message: String, remedy: &str) -> Self {
        YamlError { span, diagnostic: Diagnostic::of_file(reason, message, remedy) }
    }
}

/// Parses one document; an empty one gives `Null`. JSON is parsed as YAML, too, which rejects duplicate keys and knows
/// positions.
pub(super) fn parse(text: &str) -> Result<Value, YamlError> {
    if is_blank(text) {
        return Ok(Value::Null);
    }
    let budget = serde_saphyr::budget! {
        max_events: 4 * MAX_NODES,
        max_nodes: MAX_NODES,
        max_depth: MAX_DEPTH,
        max_aliases: MAX_ALIAS_EXPANSION,
        max_recorded_anchor_events: MAX_ALIAS_EXPANSION,
        // `MAX_ALIAS_EXPANSION` limits aliases already, and permits a label block that a thousand items share.
        enforce_alias_anchor_ratio: false,
        max_documents: 1,
    };
    let mut options = serde_saphyr::options! {
        budget: budget,
        duplicate_keys: DuplicateKeyPolicy::Error,
        // `0644` is octal, as for kubectl.
        legacy_octal_numbers: true,
        reject_unsupported_tags: true,
        with_snippet: false,
    };
    options.alias_limits.max_total_replayed_events = MAX_ALIAS_EXPANSION;
    serde_saphyr::from_str_with_options(text, options).map_err(|error| describe_error(text, &error))
}

/// The fields of a document with their positions, or `None` if it does not parse.
pub(super) fn outline(text: &str) -> Option<Outline<'_>> {
    let mut outline = Outline::default();
    for event in Parser::new_from_str(text) {
        let (event, span) = event.ok()?;
        let (start, end) = (text_position(span.start), text_position(span.end));
        match event {
            Event::MappingStart(..) => outline.open_collection(YamlShape::Mapping, start),
            Event::SequenceStart(..) => outline.open_collection(YamlShape::Sequence, start),
            Event::MappingEnd | Event::SequenceEnd => outline.close_collection(),
            Event::Scalar(value, ..) => outline.add_scalar(value, start, end),
            Event::Alias(_) => outline.add_alias(start, end),
            _ => {}
        }
    }
    Some(outline)
}

/// Whether the text has only comments, markers and white space.
fn is_blank(text: &str) -> bool {
    text.lines()
        .map(|line| line.strip_prefix("---").or_else(|| line.strip_prefix("...")).unwrap_or(line).trim())
        .all(|line| line.is_empty() || line.starts_with('#'))
}

fn text_position(marker: Marker) -> TextPosition {
    TextPosition { line: marker.line() as u32, column: marker.col() as u32 + 1 }
}

/// Describes why `text` cannot be read. The errors of the JSON parser and the event parser are preferred, since they
/// are more specific about syntax; if both accept the text, the error is semantic: a duplicate key, a limit.
fn describe_error(text: &str, error: &Error) -> YamlError {
    let mut description =
        json_syntax_error(text).or_else(|| syntax_error(text)).unwrap_or_else(|| semantic_error(error));
    let line = text.lines().nth(description.span.line as usize - 1).unwrap_or_default();
    let diagnostic = &mut description.diagnostic;
    if diagnostic.reason != Reason::Named(DUPLICATE_KEY) && line.contains("{{") {
        diagnostic.message = "this is a template that was not rendered".to_owned();
        diagnostic.remedy = "render it first, for example with `helm template`, or put the value in quotes".to_owned();
    }
    description
}

/// The syntax error in a JSON document. The JSON parser locates, for example, a missing comma more precisely.
fn json_syntax_error(text: &str) -> Option<YamlError> {
    let is_json = text.trim_start().strip_prefix('{').is_some_and(|rest| rest.trim_start().starts_with('"'));
    let error = serde_json::from_str::<IgnoredAny>(text).err().filter(|_| is_json)?;
    let message = error.to_string();
    let message = message.split(" at line ").next().unwrap_or_default();
    let span = TextSpan { line: error.line() as u32, column: (error.column() as u32).max(1), width: 1 };
    let remedy = "correct the text here or at the end of the line before";
    Some(YamlError::new(span, "NotYaml", format!("this JSON is broken: {message}"), remedy))
}

/// The YAML syntax error, if there is one.
fn syntax_error(text: &str) -> Option<YamlError> {
    let mut open_brackets = Vec::new();
    for event in Parser::new_from_str(text) {
        let error = match event {
            Ok((
                Event::SequenceStart(StructureStyle::Flow, ..) | Event::MappingStart(StructureStyle::Flow, ..),
                span,
            )) => {
                open_brackets.push(text_position(span.start));
                continue;
            }
            Ok((Event::SequenceEnd | Event::MappingEnd, _)) => {
                // Block collections have no brackets, so the innermost open bracket is the one being closed.
                open_brackets.pop();
                continue;
            }
            Ok(_) => continue,
            Err(error) => error,
        };
        let TextPosition { line, mut column } = text_position(*error.marker());
        if let Some(bracket) = open_brackets.last().filter(|bracket| bracket.line < line) {
            let span = TextSpan { line: bracket.line, column: bracket.column, width: 1 };
            let message =
                format!("this bracket is not closed; the text is not valid inside it at line {line} of the document");
            let remedy = "close it, or put the value in quotes if it is text";
            return Some(YamlError::new(span, "NotYaml", message, remedy));
        }
        if is_tab_error(error.kind()) {
            // The parser may already be past the tab.
            let indentation = text.lines().nth(line as usize - 1).unwrap_or_default().chars();
            let mut indentation = indentation.take_while(|character| character.is_whitespace());
            column = indentation.position(|character| character == '\t').map_or(column, |tab| tab as u32 + 1);
        }
        let (message, remedy) = describe_syntax_error(error.kind());
        return Some(YamlError::new(TextSpan { line, column, width: 1 }, "NotYaml", message, remedy));
    }
    None
}

/// The error in syntactically valid text.
fn semantic_error(error: &Error) -> YamlError {
    let location = error.location();
    let (reason, message, remedy, width) = describe_semantic_error(error);
    let span = TextSpan {
        line: location.map_or(1, |location| location.line() as u32).max(1),
        column: location.map_or(1, |location| location.column() as u32).max(1),
        width,
    };
    YamlError::new(span, reason, message, remedy)
}

/// The reason, message and remedy for a semantic error, and the width to underline.
fn describe_semantic_error(error: &Error) -> (&'static str, String, &'static str, u32) {
    match error {
        Error::AliasError { error, .. } => describe_semantic_error(error),
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or_default();
            let width = key.chars().count() as u32;
            (DUPLICATE_KEY, format!("duplicate key `{key}`"), "delete one of the two", width)
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            ("TooDeep", format!("nested deeper than {MAX_DEPTH} levels"), "flatten it; no kind needs this depth", 1)
        }
        Error::Budget { .. } | Error::AliasReplayLimitExceeded { .. } | Error::AliasReplayStackDepthExceeded { .. } => {
            ("TooLarge", "too many values or aliases for one document".to_owned(), "split the document", 1)
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => (
            "RecursiveAlias",
            "an alias inside the value that it repeats".to_owned(),
            "write the value out, or move the anchor so that it does not contain the alias",
            1,
        ),
        other => {
            let message = other.without_snippet().to_string();
            let message = message.split(" at line ").next().unwrap_or_default();
            let remedy = if message.contains("tag") {
                "delete the tag"
            } else {
                "put the value in quotes, or write it as in JSON"
            };
            (UNREADABLE_VALUE, message.to_owned(), remedy, 1)
        }
    }
}

/// The message and the usual remedy for a syntax error.
fn describe_syntax_error(kind: &ErrorKind) -> (String, &'static str) {
    use ErrorKind as E;
    let (message, remedy) = match kind {
        kind if is_tab_error(kind) => ("a tab where YAML requires spaces", "indent with spaces"),
        E::UnclosedQuotedScalar | E::DocumentIndicatorInQuotedScalar => {
            ("a quote is opened and not closed", "close the quote, or escape it within the text")
        }
        E::InvalidTrailingSingleQuotedScalar | E::InvalidTrailingDoubleQuotedScalar => {
            ("text after a closing quote", "put the whole value into the quotes")
        }
        E::UnknownQuotedScalarEscape
        | E::InvalidQuotedScalarHexEscape
        | E::InvalidUnicodeEscape
        | E::InvalidLowSurrogate
        | E::InvalidLowSurrogateHexEscape
        | E::MissingLowSurrogate
        | E::UnpairedLowSurrogate => {
            ("an unknown escape in double quotes", "write a backslash as \\\\, or use single quotes")
        }
        E::SimpleKeyExpected | E::InvalidSimpleKey => {
            ("a key without a colon", "write `key: value`, with a space after the colon")
        }
        E::MappingValueNotAllowed | E::InvalidColonPlacement | E::InvalidMappingValueWhitespace => {
            ("a colon where no value may start", "put a value that contains `: ` in quotes, or start a new line")
        }
        E::MappingKeyNotAllowed | E::ExpectedBlockMappingKey | E::InvalidIndentation => {
            ("the indentation matches no line above", "align the line with its siblings, and look for a missing colon")
        }
        E::ExpectedBlockSequenceEntry | E::BlockSequenceEntryNotAllowed | E::InvalidBlockEntryWhitespace => {
            ("a list item where none is allowed", "align the `- ` with the other items, on a line of its own")
        }
        E::BlockEntryInFlowCollection | E::PlainScalarStartsWithDashFlowIndicator => {
            ("a `- ` inside brackets", "separate the items of [ ] by commas")
        }
        E::UnexpectedEofFlowSequence
        | E::UnexpectedEofFlowMapping
        | E::UnexpectedEofImplicitFlowMapping
        | E::UnclosedFlowCollection { .. } => ("a bracket is opened and not closed", "close it"),
        E::ExpectedFlowMappingSeparator | E::ExpectedFlowSequenceSeparator | E::FlowMappingValueAdjacentCollection => {
            ("a comma or the closing bracket is missing", "separate items by commas and close every bracket")
        }
        E::MisplacedFlowCollectionEnd | E::MismatchedFlowCollectionEnd { .. } => {
            ("a closing bracket without an opening one", "match every { with } and every [ with ]")
        }
        E::InvalidQuotedScalarIndent => {
            ("a quoted text continues without indentation", "close the quote on the line above, or indent this line")
        }
        E::UnexpectedCharacter { character: '@' | '`' } => {
            ("a plain value may not start with @ or `", "put the value in quotes")
        }
        E::UnexpectedCharacter { character: '%' } | E::MissingDocumentEndBeforeDirective => {
            ("a % at the start of a line is a directive", "put the value in quotes")
        }
        E::UnexpectedCharacter { character } if character.is_control() => {
            let message = format!("a control character, U+{:04X}", u32::from(*character));
            return (message, "delete it; in double quotes it may be written as an escape");
        }
        E::UnknownAnchor => {
            ("an alias without an anchor", "define it with &name before *name, or quote a value with *")
        }
        E::InvalidBlockScalarIndent | E::InvalidFlowScalarIndent => {
            ("text with less indentation than its first line", "indent all its lines alike")
        }
        E::RecursionLimitExceeded => ("nested too deeply", "flatten it; no kind needs this depth"),
        E::InvalidDocumentEnd => ("text after `...`", "start the next document with `---` on a line of its own"),
        other => return (other.to_string(), "correct this line; `kubectl apply --dry-run=client -f` rejects it too"),
    };
    (message.to_owned(), remedy)
}

fn is_tab_error(kind: &ErrorKind) -> bool {
    use ErrorKind as E;
    matches!(
        kind,
        E::TabNotAllowed
            | E::TabInBlockIndentation
            | E::TabInIndentation
            | E::TabAtBlockScalarStart
            | E::TabInPlainScalar
    )
}

/// The reason of errors whose message may quote the value.
pub(super) const UNREADABLE_VALUE: &str = "UnreadableValue";

const DUPLICATE_KEY: &str = "DuplicateKey";

/// The maximum number of values in one document. A list of five thousand routes has about a quarter of a million.
const MAX_NODES: usize = 4_000_000;
/// The maximum nesting of maps and lists. The deepest field of a supported kind is at 14, CRDs reach about 60.
const MAX_DEPTH: usize = 100;
/// The maximum number of values that aliases expand to, which stops alias bombs.
const MAX_ALIAS_EXPANSION: usize = 100_000;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_parsed_as_by_kubectl() {
        for (text, expected) in [
            ("", Value::Null),
            ("# nothing\n---\n", Value::Null),
            ("---\n~\n", Value::Null),
            ("mode: 0644", json!({"mode": 420})),
            ("mode: 0o644", json!({"mode": 420})),
            ("on: yes\nx: y", json!({"on": true, "x": true})),
            ("a: null\nb:\n", json!({"a": null, "b": null})),
            ("a: \"1\"\nb: '2'\nc: 3\nd: 1.5\n", json!({"a": "1", "b": "2", "c": 3, "d": 1.5})),
            ("a: 2026-11-20T09:00:00Z", json!({"a": "2026-11-20T09:00:00Z"})),
            ("a: 5s\nb: 1e3x\nc: 10.0.0.1", json!({"a": "5s", "b": "1e3x", "c": "10.0.0.1"})),
            ("80: x", json!({"80": "x"})),
            ("a: |\n  one\n  two\n", json!({"a": "one\ntwo\n"})),
            ("x: &x {l: 1}\ny: *x\n", json!({"x": {"l": 1}, "y": {"l": 1}})),
            ("x: &x {l: 1}\ny:\n  <<: *x\n  m: 2\n", json!({"x": {"l": 1}, "y": {"l": 1, "m": 2}})),
            ("{\"a\":\t\"\\ud83d\\ude00\\/\",\n\t\"b\" : [1,2]}", json!({"a": "\u{1f600}/", "b": [1, 2]})),
            ("a: 1\r\nb:\r\n  - x\r\n", json!({"a": 1, "b": ["x"]})),
        ] {
            assert_eq!(parse(text).map_err(|error| error.diagnostic.message), Ok(expected), "{text:?}");
        }
    }

    #[test]
    fn syntax_errors_have_position_and_remedy() {
        for (text, line, column, reason, message, remedy) in [
            ("a:\n\tb: 1\n", 2, 1, "NotYaml", "a tab", "spaces"),
            ("a: \"x\nb: 1\n", 2, 1, "NotYaml", "quoted text continues", "close the quote"),
            ("a: \"x\n", 2, 1, "NotYaml", "quoted text continues", "close the quote"),
            ("a: 'x' y\n", 1, 8, "NotYaml", "after a closing quote", "whole value"),
            ("a: \"\\d\"\n", 1, 4, "NotYaml", "escape", "single quotes"),
            ("a: 1\nb\nc: 2\n", 2, 1, "NotYaml", "without a colon", "key: value"),
            ("a: b: c\n", 1, 5, "NotYaml", "a colon where", "quotes"),
            ("a:\n   b: 1\n  c: 2\n", 3, 3, "NotYaml", "indentation", "align"),
            ("a: 1\n- b\n", 2, 3, "NotYaml", "indentation", "align"),
            ("a: [1, 2\nb: 3\n", 1, 4, "NotYaml", "not closed", "close it"),
            ("a: {b: 1\n", 1, 4, "NotYaml", "not closed", "close it"),
            ("a: [1, 2}\n", 1, 4, "NotYaml", "closing bracket without", "match"),
            ("a: {{ .Values.x }}\n", 1, 5, "UnreadableValue", "template", "helm template"),
            ("{{- if .x }}\na: 1\n{{- end }}\n", 1, 3, "NotYaml", "template", "helm template"),
            ("a: @x\n", 1, 4, "NotYaml", "@", "quotes"),
            ("a: *x\n", 1, 4, "NotYaml", "alias", "&name"),
            ("a: 1\nb: 2\na: 3\n", 3, 1, "DuplicateKey", "duplicate key `a`", "delete"),
            ("{\"a\":1,\"a\":2}", 1, 8, "DuplicateKey", "`a`", "delete"),
            ("a: !vault x\n", 1, 11, "UnreadableValue", "unsupported tag `!vault`", "delete the tag"),
            ("a: .inf\n", 1, 4, "UnreadableValue", "", "quotes"),
            ("a: &a [*a]\n", 1, 8, "RecursiveAlias", "inside the value", "move the anchor"),
        ] {
            let error = parse(text).expect_err(text);
            let YamlError { span, diagnostic } = &error;
            assert_eq!(
                (span.line, span.column, diagnostic.reason.name()),
                (line, column, Some(reason)),
                "{text:?} {error:?}"
            );
            assert!(diagnostic.message.contains(message) && diagnostic.remedy.contains(remedy), "{text:?} {error:?}");
        }
    }

    proptest::proptest! {
        /// Text made of characters that are special in YAML, so that every parser state is reached.
        #[test]
        fn arbitrary_text_does_not_panic(text in "([-:?#&*!|>{}\\[\\],'\"%@`~ab0.<\u{e9}\u{feff} \t\r\n]|---\n|: |- \
            |\n  |\n    ){0,60}") {
            // A lone carriage return ends a line, too.
            let lines = text.split(['\n', '\r']).count() as u32;
            for document in crate::manifests::documents::split(&text) {
                let value = parse(document.text);
                let outline = outline(document.text);
                if let Err(error) = &value {
                    proptest::prop_assert!(error.span.line <= lines + 1, "{error:?}");
                    let Diagnostic { message, remedy, .. } = &error.diagnostic;
                    proptest::prop_assert!(!message.is_empty() && !remedy.is_empty());
                }
                if let Some(outline) = outline {
                    for field in ["", "a", "a.b[0]", "[0].a", "a.b.0"] {
                        let span = outline.locate(&[], field, crate::manifests::outline::CaretTarget::Value);
                        proptest::prop_assert!(
                            span.line >= 1 && span.line <= lines + 1 && span.column >= 1 && span.width >= 1
                        );
                    }
                    outline.secret_lines();
                } else {
                    proptest::prop_assert!(value.is_err() || value == Ok(Value::Null), "a value has an outline");
                }
            }
        }
    }

    #[test]
    fn alias_and_nesting_bombs_hit_a_limit() {
        let mut aliases = "a: &a [x,x,x,x,x,x,x,x,x]\n".to_owned();
        for (from, to) in ('a'..='i').zip('b'..='j') {
            let stars = vec![format!("*{from}"); 9].join(",");
            aliases += &format!("{to}: &{to} [{stars}]\n");
        }
        let deep = format!("a: {}{}", "[".repeat(150), "]".repeat(150));
        let block: String = (0..150).map(|depth| format!("{}a:\n", " ".repeat(depth))).collect();
        for (text, reason) in [(aliases, "TooLarge"), (deep, "TooDeep"), (block, "TooDeep")] {
            let error = parse(&text).expect_err("a bomb");
            assert_eq!(error.diagnostic.reason.name(), Some(reason), "{error:?}");
        }
    }
}
