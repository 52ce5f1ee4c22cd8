//! Templates of lines and rules for lines: whatever values a client sends, a line is one line of text without control
//! characters, its quotes are those of the template, and a template of JSON writes JSON.

use http::header::{REFERER, USER_AGENT};
use http::{HeaderValue, Uri};

use super::line::testing::record;
use super::{AccessLogRecord, CapturedHeads, template_line};
use crate::access_log_syntax::{LineFacts, LineRule, LineRules, LineTemplate, ValueForm};

/// The first line is a template, the second one has rules, the third one is the target of a request, and the rest is
/// the value of fields.
pub(crate) fn check(input: &[u8]) {
    let mut parts = input.splitn(4, |byte| *byte == b'\n');
    let mut next = || parts.next().unwrap_or_default();
    let (template, rules, target, value) = (next(), next(), next(), next());
    check_rules(&String::from_utf8_lossy(rules), value);
    let Ok(template) = std::str::from_utf8(template) else { return };
    let template = match LineTemplate::parse(template) {
        Ok(template) => template,
        Err(error) => {
            assert!(!error.message.is_empty() && !error.remedy.is_empty(), "{error:?}");
            let characters = template.chars().count();
            assert!(error.position.is_none_or(|position| (1..=characters + 1).contains(&position)), "{error:?}");
            return;
        }
    };
    let (Ok(target), Ok(value)) = (Uri::try_from(target), HeaderValue::from_bytes(value)) else { return };
    let heads = CapturedHeads {
        request: vec![(USER_AGENT, value.clone()), (REFERER, value.clone())],
        response: Vec::new(),
        request_bytes: 1,
        response_bytes: 1,
    };
    let record = AccessLogRecord {
        target: Some(target),
        host: Some(value.clone()),
        user_agent: Some(value.clone()),
        server_name: Some(String::from_utf8_lossy(value.as_bytes()).into()),
        captured: Some(&heads),
        ..record("/")
    };
    let mut line = Vec::new();
    template_line::write(&template, &record, &mut line);
    let line = String::from_utf8(line).expect("a line is text");
    let line = line.strip_suffix('\n').expect("a line ends");
    assert!(!line.contains(|character: char| character.is_ascii_control()), "{line:?}");
    let is_json = |form: ValueForm| matches!(form, ValueForm::JsonText | ValueForm::JsonValue);
    if template.parts.iter().any(|part| is_json(part.form)) {
        let parsed: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(line);
        parsed.unwrap_or_else(|error| panic!("{error}: {line}"));
        return;
    }
    let constants = template.parts.iter().map(|part| &part.before).chain([&template.after]);
    let quotes: usize = constants.map(|text| text.matches('"').count()).sum();
    assert_eq!(line.matches('"').count(), quotes, "{line}");
}

fn check_rules(text: &str, value: &[u8]) {
    let Ok(rules) = text.split(',').map(str::parse).collect::<Result<Vec<LineRule>, _>>() else { return };
    let rules = LineRules(rules.into());
    let path = String::from_utf8_lossy(value);
    let facts = LineFacts { status: Some(200), path: &path, sampling_key: value, ..LineFacts::default() };
    assert_eq!(rules.keeps(&facts), rules.keeps(&facts), "the decision depends on the line only");
    assert!(!rules.is_empty() || rules.keeps(&facts), "without rules, all lines are written");
}
