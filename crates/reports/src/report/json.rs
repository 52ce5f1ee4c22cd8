//! Diagnostics as JSON.

use serde::Serialize;

use super::diagnostic::ReportedDiagnostic;

/// A JSON list with one element per diagnostic; unknown values are null.
pub fn json(diagnostics: &[ReportedDiagnostic]) -> String {
    let rows: Vec<_> = diagnostics.iter().map(JsonDiagnostic::from_diagnostic).collect();
    serde_json::to_string_pretty(&rows).expect("strings and numbers are JSON") + "\n"
}

#[derive(Serialize)]
struct JsonDiagnostic<'a> {
    file: Option<String>,
    line: Option<u32>,
    column: Option<u32>,
    object: Option<&'a str>,
    field: &'a str,
    severity: &'static str,
    #[serde(rename = "type")]
    condition: Option<&'static str>,
    status: Option<&'static str>,
    reason: &'static str,
    message: &'a str,
    remedy: &'a str,
}

impl<'a> JsonDiagnostic<'a> {
    fn from_diagnostic(reported: &'a ReportedDiagnostic) -> Self {
        let ReportedDiagnostic { diagnostic, condition, .. } = reported;
        let position = reported.position.as_ref();
        let in_file = position.filter(|position| position.line > 0);
        JsonDiagnostic {
            file: position.map(|position| position.file.display().to_string()),
            line: in_file.map(|position| position.line),
            column: in_file.map(|position| position.column),
            object: reported.object.as_deref(),
            field: &diagnostic.field,
            severity: diagnostic.severity.label(),
            condition: condition.map(|code| code.condition()),
            status: condition.map(|code| if code.status() { "True" } else { "False" }),
            reason: reported.reason(),
            message: &diagnostic.message,
            remedy: &diagnostic.remedy,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::diagnostic::Diagnostic;
    use crate::manifests::FilePosition;
    use crate::verdict::Code;

    #[test]
    fn json_has_every_field() {
        let mut diagnostic = ReportedDiagnostic {
            diagnostic: Diagnostic::error("spec.parametersRef", "no \"x\"", "create it"),
            position: Some(FilePosition::without_excerpt(Arc::from(Path::new("a.yaml")), 3, 5)),
            object: Some("GatewayClass portico".to_owned()),
            id: None,
            condition: Some(Code::ClassInvalidParameters),
            meanwhile: None,
        };
        let first = json(std::slice::from_ref(&diagnostic));
        let expected = r#"[
  {
    "file": "a.yaml",
    "line": 3,
    "column": 5,
    "object": "GatewayClass portico",
    "field": "spec.parametersRef",
    "severity": "error",
    "type": "Accepted",
    "status": "False",
    "reason": "InvalidParameters",
    "message": "no \"x\"",
    "remedy": "create it"
  }
]
"#;
        assert_eq!(first, expected);
        diagnostic.position = Some(FilePosition::whole_file(Arc::from(Path::new("shop"))));
        diagnostic.condition = None;
        diagnostic.diagnostic = diagnostic.diagnostic.into_warning();
        let second: serde_json::Value = serde_json::from_str(&json(&[diagnostic])).expect("it is JSON");
        assert_eq!((&second[0]["file"], &second[0]["severity"]), (&"shop".into(), &"warning".into()));
        assert!(["line", "column", "type", "status"].iter().all(|field| second[0][field].is_null()));
        assert_eq!(json(&[]), "[]\n");
    }
}
