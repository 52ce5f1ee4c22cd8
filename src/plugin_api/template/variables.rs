//! The variables of expressions, and the trait through which a plugin supplies their values.

use super::value::LuaValue;

/// Supplies the values of variables for one request.
pub trait Variables {
    /// The value of a variable; nil if it has none.
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v>;

    /// How many bytes are examined to find the value, as in a query. They count as steps.
    fn examined_bytes(&self, _variable: Variable) -> usize {
        0
    }
}

/// What an expression reads. The first four are tables of templates; the others are functions of Kong's development
/// kit, which only [`Expression::parse_return`](super::Expression::parse_return) accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    /// `headers`: the headers of the request, by name.
    Headers,
    /// `query_params`: the query, by name.
    QueryParams,
    /// `uri_captures`: the groups of the route's regular expression, by number or name.
    UriCaptures,
    /// `shared`: what other plugins have stored for this request.
    Shared,
    /// `kong.request.get_header(name)`
    RequestHeader,
    /// `kong.request.get_method()`
    RequestMethod,
    /// `kong.request.get_path()`
    RequestPath,
    /// `kong.request.get_query_arg(name)`
    RequestQueryArgument,
    /// `kong.client.get_ip()`
    ClientIp,
    /// `kong.response.get_status()`
    ResponseStatus,
    /// `kong.response.get_header(name)`
    ResponseHeader,
    /// A local variable of a [`LuaScript`](super::LuaScript), by its number.
    Local,
}

/// The key with which a variable is read.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum VariableKey<'k> {
    /// The variable is not a table.
    None,
    Text(&'k [u8]),
    Number(f64),
}

impl Variable {
    /// The variable table of this name.
    pub(super) fn table(name: &str) -> Option<Variable> {
        Some(match name {
            "headers" => Variable::Headers,
            "query_params" => Variable::QueryParams,
            "uri_captures" => Variable::UriCaptures,
            "shared" => Variable::Shared,
            _ => return None,
        })
    }

    /// The function of Kong's development kit with this path below `kong`, and whether it has an argument.
    pub(super) fn function(path: &str) -> Option<(Variable, bool)> {
        Some(match path {
            "request.get_header" => (Variable::RequestHeader, true),
            "request.get_method" => (Variable::RequestMethod, false),
            "request.get_path" => (Variable::RequestPath, false),
            "request.get_query_arg" => (Variable::RequestQueryArgument, true),
            "client.get_ip" => (Variable::ClientIp, false),
            "response.get_status" => (Variable::ResponseStatus, false),
            "response.get_header" => (Variable::ResponseHeader, true),
            _ => return None,
        })
    }
}
