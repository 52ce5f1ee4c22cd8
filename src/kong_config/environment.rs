//! References to environment variables, `${{ env "DECK_NAME" }}`, in all texts of a file.

use serde_json::Value;

use super::fields::FileFindings;

/// Replaces the references in a value, at `path` in the file.
pub(super) fn resolve(
    value: &mut Value,
    path: &str,
    variable: &dyn Fn(&str) -> Option<String>,
    findings: &FileFindings,
) {
    match value {
        Value::String(text) => {
            if text.contains("${{") {
                match resolve_text(text, variable) {
                    Ok(resolved) => *value = resolved,
                    Err((message, remedy)) => findings.reject(path, message, remedy),
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter_mut().enumerate() {
                resolve(item, &format!("{path}[{index}]"), variable, findings);
            }
        }
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                resolve(field, &path, variable, findings);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn resolve_text(text: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<Value, (String, String)> {
    let mut resolved = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${{") {
        let invalid = || ("this template is not understood".to_owned(), SYNTAX.to_owned());
        let (expression, after) = after.split_once("}}").ok_or_else(invalid)?;
        let (source, filter) = match expression.split_once('|') {
            Some((source, filter)) => (source.trim(), Some(filter.trim())),
            None => (expression.trim(), None),
        };
        let name = source.strip_prefix("env").map(str::trim).and_then(unquoted).ok_or_else(invalid)?;
        if !name.starts_with("DECK_") {
            let remedy = format!("rename it, and write ${{{{ env \"DECK_{name}\" }}}}");
            return Err((format!("environment variable {name} does not start with DECK_"), remedy));
        }
        let Some(value) = variable(name) else {
            return Err((format!("environment variable {name} is not set"), "set it".to_owned()));
        };
        resolved.push_str(before);
        let is_whole = before.is_empty() && after.is_empty() && resolved.is_empty();
        let typed = match filter {
            None => None,
            Some("toInt") => value.trim().parse::<i64>().ok().map(Value::from),
            Some("toFloat") => value.trim().parse::<f64>().ok().map(Value::from),
            Some("toBool") => value.trim().parse::<bool>().ok().map(Value::from),
            Some(_) => return Err(invalid()),
        };
        match (filter, typed) {
            (Some(filter), None) => {
                let message = format!("the value of environment variable {name} does not suit {filter}");
                return Err((message, "correct the variable, or remove the filter".to_owned()));
            }
            (_, Some(typed)) if is_whole => return Ok(typed),
            _ => resolved.push_str(&value),
        }
        rest = after;
    }
    resolved.push_str(rest);
    Ok(Value::String(resolved))
}

fn unquoted(text: &str) -> Option<&str> {
    let name = text.strip_prefix('"')?.strip_suffix('"')?;
    (!name.is_empty() && !name.contains('"')).then_some(name)
}

const SYNTAX: &str = "write ${{ env \"DECK_NAME\" }}, with | toInt, toBool or toFloat for another type than text";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn variables_are_inserted_with_their_type() {
        let variable = |name: &str| match name {
            "DECK_HOST" => Some("a.example".to_owned()),
            "DECK_PORT" => Some("81".to_owned()),
            _ => None,
        };
        let found = |text: &str| {
            let (findings, mut value) = (FileFindings::default(), json!({"a": [text]}));
            resolve(&mut value, "", &variable, &findings);
            let problems: Vec<_> =
                findings.into_parts().0.into_iter().map(|problem| (problem.field, problem.message)).collect();
            match problems.first() {
                Some((field, message)) => json!(format!("{field}: {message}")),
                None => value["a"][0].clone(),
            }
        };
        for (text, expected) in [
            ("plain", json!("plain")),
            ("${{ env \"DECK_HOST\" }}", json!("a.example")),
            ("http://${{ env \"DECK_HOST\" }}:${{env \"DECK_PORT\"}}/x", json!("http://a.example:81/x")),
            ("${{ env \"DECK_PORT\" | toInt }}", json!(81)),
            (
                "${{ env \"DECK_HOST\" | toInt }}",
                json!("a[0]: the value of environment variable DECK_HOST does not suit toInt"),
            ),
            ("${{ env \"DECK_NONE\" }}", json!("a[0]: environment variable DECK_NONE is not set")),
            ("${{ env \"HOME\" }}", json!("a[0]: environment variable HOME does not start with DECK_")),
            ("${{ .Values.x }}", json!("a[0]: this template is not understood")),
        ] {
            assert_eq!(found(text), expected, "{text}");
        }
    }
}
