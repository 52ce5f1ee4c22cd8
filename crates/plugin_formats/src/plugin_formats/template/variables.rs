//! The variables of expressions, and the trait through which a plugin supplies their values.

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::plugin_api::lua_value::LuaValue;

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
    /// `shared`, in functions `kong.ctx.shared`: what functions have stored for this request.
    Shared,
    /// `kong.request.get_header(name)`
    RequestHeader,
    /// `kong.request.get_method()`
    RequestMethod,
    /// `kong.request.get_path()`
    RequestPath,
    /// `kong.request.get_query_arg(name)`
    RequestQueryArgument,
    /// `kong.request.get_host()`
    RequestHost,
    /// `kong.request.get_raw_query()`
    RequestRawQuery,
    /// `kong.client.get_ip()`
    ClientIp,
    /// `ngx.status`: of the response, or in `access` the one that the function has set.
    NgxStatus,
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
            "request.get_host" => (Variable::RequestHost, false),
            "request.get_raw_query" => (Variable::RequestRawQuery, false),
            "client.get_ip" => (Variable::ClientIp, false),
            "response.get_status" => (Variable::ResponseStatus, false),
            "response.get_header" => (Variable::ResponseHeader, true),
            _ => return None,
        })
    }

    /// The variable of which a function returns all values as a table, by the path of the function.
    pub(super) fn table_function(path: &str) -> Option<Variable> {
        Some(match path {
            "kong.request.get_headers" | "ngx.req.get_headers" => Variable::RequestHeader,
            "kong.request.get_query" | "ngx.req.get_uri_args" => Variable::RequestQueryArgument,
            _ => return None,
        })
    }
}

/// The name and the first value of a header. As in Kong, hyphens of the name may be underscores.
pub fn find_header<'h>(headers: &'h HeaderMap, name: &[u8]) -> Option<(HeaderName, &'h HeaderValue)> {
    let find = |name: &[u8]| {
        let name = HeaderName::from_bytes(name).ok()?;
        headers.get(&name).map(|value| (name, value))
    };
    let with_hyphens = || {
        let name: Vec<u8> = name.iter().map(|byte| if *byte == b'_' { b'-' } else { *byte }).collect();
        find(&name)
    };
    find(name).or_else(|| if name.contains(&b'_') { with_hyphens() } else { None })
}

/// The host of an authority.
pub fn host_without_port(authority: &[u8]) -> &[u8] {
    let end = authority.iter().rposition(|byte| *byte == b':');
    match end {
        Some(end) if !authority[end..].contains(&b']') => &authority[..end],
        _ => authority,
    }
}

/// The value of a constant of OpenResty, by its path.
pub(super) fn ngx_constant(path: &str) -> Option<f64> {
    let name = path.strip_prefix("ngx.")?;
    NGX_CONSTANTS.iter().find(|(known, _)| *known == name).map(|(_, value)| f64::from(*value))
}

const NGX_CONSTANTS: [(&str, u16); 36] = [
    ("OK", 0),
    ("STDERR", 0),
    ("EMERG", 1),
    ("ALERT", 2),
    ("CRIT", 3),
    ("ERR", 4),
    ("WARN", 5),
    ("NOTICE", 6),
    ("INFO", 7),
    ("DEBUG", 8),
    ("HTTP_OK", 200),
    ("HTTP_CREATED", 201),
    ("HTTP_ACCEPTED", 202),
    ("HTTP_NO_CONTENT", 204),
    ("HTTP_PARTIAL_CONTENT", 206),
    ("HTTP_MOVED_PERMANENTLY", 301),
    ("HTTP_MOVED_TEMPORARILY", 302),
    ("HTTP_SEE_OTHER", 303),
    ("HTTP_NOT_MODIFIED", 304),
    ("HTTP_TEMPORARY_REDIRECT", 307),
    ("HTTP_BAD_REQUEST", 400),
    ("HTTP_UNAUTHORIZED", 401),
    ("HTTP_PAYMENT_REQUIRED", 402),
    ("HTTP_FORBIDDEN", 403),
    ("HTTP_NOT_FOUND", 404),
    ("HTTP_NOT_ALLOWED", 405),
    ("HTTP_NOT_ACCEPTABLE", 406),
    ("HTTP_REQUEST_TIMEOUT", 408),
    ("HTTP_CONFLICT", 409),
    ("HTTP_GONE", 410),
    ("HTTP_TOO_MANY_REQUESTS", 429),
    ("HTTP_INTERNAL_SERVER_ERROR", 500),
    ("HTTP_NOT_IMPLEMENTED", 501),
    ("HTTP_BAD_GATEWAY", 502),
    ("HTTP_SERVICE_UNAVAILABLE", 503),
    ("HTTP_GATEWAY_TIMEOUT", 504),
];
