//! Templates of request-transformer and expressions of log plugins: rendering ends within its budget, its result is
//! within its limit and always the same, and text without expressions is a literal.

use std::borrow::Cow;

use crate::plugin_api::lua_value::{Budget, LuaValue};
use crate::plugin_formats::template::{Expression, MAX_VALUE_BYTES, Template, Variable, VariableKey, Variables};

/// The first line is a template, and the rest is the value of every variable.
pub(crate) fn check(input: &[u8]) {
    let end = memchr::memchr(b'\n', input).unwrap_or(input.len());
    let request = OneValue(input.get(end + 1..).unwrap_or_default());
    let Ok(text) = std::str::from_utf8(&input[..end]) else { return };
    if let Ok(template) = Template::parse(text) {
        let rendered = template.render(&request, &mut Budget::default());
        assert_eq!(template.render(&request, &mut Budget::default()), rendered, "the same result every time");
        if let Ok(Some(value)) = &rendered {
            assert!(value.len() <= MAX_VALUE_BYTES, "{text} renders {} bytes", value.len());
        }
        if !text.contains("$(") {
            assert_eq!(template.literal(), Some(text));
            assert_eq!(rendered, Ok(Some(Cow::Borrowed(text.as_bytes()))), "{text} is a literal");
        }
        // Literal text around an expression stays as it is.
        let enclosed = format!("<{text}>");
        let enclosed = Template::parse(&enclosed).expect("text may surround a template");
        if let (Ok(Some(inner)), Ok(Some(outer))) = (rendered, enclosed.render(&request, &mut Budget::default())) {
            assert_eq!(*outer, [&b"<"[..], &inner, b">"].concat());
        }
    }
    if let Ok(expression) = Expression::parse_return(text)
        && let Ok(LuaValue::Text(value)) = expression.evaluate(&request, &mut Budget::default())
    {
        assert!(value.len() <= MAX_VALUE_BYTES, "{text} has {} bytes", value.len());
    }
}

/// All variables have this value; the status is a number.
struct OneValue<'i>(&'i [u8]);

impl Variables for OneValue<'_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        match (variable, key) {
            (Variable::ResponseStatus, _) => LuaValue::Number(200.0),
            (_, VariableKey::Text(b"absent")) => LuaValue::Nil,
            _ => LuaValue::Text(Cow::Borrowed(self.0)),
        }
    }
}
