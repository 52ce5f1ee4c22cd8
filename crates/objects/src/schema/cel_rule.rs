//! A CEL rule of `x-kubernetes-validations`, compiled with the schema.
//!
//! A rule's message contains the remedy after its first "; " (`tls is for HTTPS and TLS listeners; remove it or change
//! the protocol`). Without a remedy in the message, the remedy shows the rule itself.
//!
//! Rules that compare with the old object (`oldSelf`) do not apply to a single object and are skipped, as on create.

use std::collections::HashMap;
use std::sync::Arc;

use kube::core::cel::cel::{Context, Program, Value as CelValue};
use parking_lot::Mutex;
use serde_json::Value;

use super::path::ObjectPath;
use super::quote::{escape_controls, printable};
use super::report::ViolationReport;
use crate::diagnostic::Diagnostic;

/// One rule of one node.
#[derive(Debug)]
pub(super) struct CompiledCelRule {
    /// The CEL expression.
    text: String,
    program: Arc<Program>,
    pub(super) message: Option<String>,
    /// Computes a message from the value, which takes precedence over `message`.
    message_program: Option<Arc<Program>>,
    /// The path of the violation, relative to the node.
    field_path: String,
    compares_with_old: bool,
}

impl CompiledCelRule {
    /// The rules of one schema node; the error describes an invalid rule.
    pub(super) fn compile_all(rules: Option<&Value>) -> Result<Vec<CompiledCelRule>, String> {
        rules.and_then(Value::as_array).into_iter().flatten().map(CompiledCelRule::compile).collect()
    }

    fn compile(raw: &Value) -> Result<CompiledCelRule, String> {
        let string = |name: &str| raw.get(name).and_then(Value::as_str).map(str::to_owned);
        let text = string("rule").ok_or("a validation has no `rule`")?;
        let program = parse_program(&text)?;
        let compares_with_old = program.references().has_variable("oldSelf");
        if compares_with_old && raw.get("optionalOldSelf").and_then(Value::as_bool) == Some(true) {
            return Err(format!("rule `{text}`: optionalOldSelf is not supported"));
        }
        let field_path = string("fieldPath").unwrap_or_default();
        let needs_dot = !field_path.is_empty() && !field_path.starts_with(['.', '[']);
        Ok(CompiledCelRule {
            program,
            message: string("message"),
            message_program: string("messageExpression").as_deref().map(parse_program).transpose()?,
            field_path: if needs_dot { format!(".{field_path}") } else { field_path },
            compares_with_old,
            text,
        })
    }

    /// Reports a violation if the rule does not hold for `self` of the context.
    pub(super) fn evaluate(&self, cx: &Context<'_>, path: &ObjectPath<'_>, report: &mut ViolationReport) {
        if self.compares_with_old {
            return;
        }
        let (message, remedy) = match self.program.execute(cx) {
            Ok(CelValue::Bool(true)) => return,
            Ok(CelValue::Bool(false)) => self.message_and_remedy(cx),
            Ok(_) => ("the rule does not return a boolean".to_owned(), self.rule_as_remedy()),
            // The rule may fail because of a value whose violation is in the report (`10 s` for a duration).
            Err(_) if !report.is_empty() => return,
            // The error may contain a value of any length.
            Err(error) => {
                (format!("a rule cannot be evaluated: {}", printable(&error.to_string())), self.rule_as_remedy())
            }
        };
        let field = format!("{path}{}", self.field_path);
        report.push(Diagnostic::error(field.strip_prefix('.').unwrap_or(&field), message, remedy));
    }

    fn message_and_remedy(&self, cx: &Context<'_>) -> (String, String) {
        let computed = self.message_program.as_ref().and_then(|program| match program.execute(cx) {
            Ok(CelValue::String(text)) if !text.trim().is_empty() => Some(escape_controls(&text)),
            _ => None,
        });
        let remedy = self.message.as_deref().and_then(|message| message.split_once("; ")).map(|(_, remedy)| remedy);
        match (computed.as_deref().or(self.message.as_deref()), remedy) {
            (None, _) => (format!("failed rule: {}", self.text), self.rule_as_remedy()),
            // A computed message quotes values, which may contain semicolons, so it is split before the known remedy.
            (Some(message), Some(remedy)) if message.ends_with(remedy) => {
                let problem = message.strip_suffix(remedy).and_then(|message| message.strip_suffix("; "));
                (problem.unwrap_or(message).to_owned(), remedy.to_owned())
            }
            (Some(message), _) => match message.split_once("; ") {
                Some((problem, remedy)) => (problem.to_owned(), remedy.to_owned()),
                None => (message.to_owned(), self.rule_as_remedy()),
            },
        }
    }

    fn rule_as_remedy(&self) -> String {
        format!("the rule is `{}`", self.text)
    }
}

/// Kinds and channels share most of their rules, and parsing dominates the compilation of a schema, so each text is
/// parsed once.
fn parse_program(text: &str) -> Result<Arc<Program>, String> {
    static PARSED: Mutex<Option<HashMap<String, Arc<Program>>>> = Mutex::new(None);
    let mut parsed = PARSED.lock();
    let parsed = parsed.get_or_insert_default();
    if let Some(program) = parsed.get(text) {
        return Ok(Arc::clone(program));
    }
    let program = Arc::new(Program::compile(text).map_err(|error| format!("rule `{text}`: {error}"))?);
    parsed.insert(text.to_owned(), Arc::clone(&program));
    Ok(program)
}
