//! The variables of the templates of calls.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::plugin_api::lua_value::LuaValue;
use crate::plugin_formats::template::{Variable, VariableKey, Variables};
use crate::request_variables::RequestVariables;

/// The variables of a request, with the text of its captures. Captures of a path are as the client has written them,
/// and would be percent-encoded a second time in a URL.
pub(super) struct CallVariables<'r>(pub(super) RequestVariables<'r>);

impl Variables for CallVariables<'_> {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        match (variable, self.0.get(variable, key)) {
            (Variable::UriCaptures, LuaValue::Text(text)) => {
                LuaValue::Text(Cow::Owned(percent_decode(&text).collect()))
            }
            (_, value) => value,
        }
    }

    fn examined_bytes(&self, variable: Variable) -> usize {
        self.0.examined_bytes(variable)
    }
}
