//! `degraphql`: makes GraphQL requests of plain HTTP requests, by routes with paths and queries.
//!
//! ```yaml
//! plugin: degraphql
//! config:
//!   routes:
//!   - uri: /users/:id
//!     query: "query ($id: ID!, $first: Int) { user(id: $id) { name orders(first: $first) { total } } }"
//! ```
//!
//! A route can also be a KongCustomEntity of the type `degraphql_routes` whose `parentRef` is the KongPlugin. `uri` is
//! compared with the path as the backend would get it, without what `konghq.com/strip-path` removes. The first variable
//! of a name counts: that of the path, of the query, and then of the body, which may be JSON or a form. Texts become
//! integers, numbers, booleans and lists if the variable has such a type. All else of the request is left out.
//!
//! The backend gets a POST request with JSON at `graphql_server_path`, and the client gets its response. Requests that
//! no route matches get 404.

mod routes;
mod variables;

#[cfg(test)]
mod tests;

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::uri::PathAndQuery;
use http::{HeaderValue, Method, StatusCode, Uri, request};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use self::routes::{RouteTable, parse_uri};
use self::variables::RouteVariable;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::kind::EntityList;
use crate::plugin_api::{
    AccessOutcome, BeforeForwardCx, BuildCx, ChangedFields, Phases, Plugin, PluginKind, Reply, RequestCx, Scopes,
};
use crate::plugin_formats::graphql::{CheckedDocument, DocumentLimits, upgrade_rejection};
use crate::plugin_kit::request_json;

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// The path of the GraphQL server at the backend.
    graphql_server_path: String,
    /// The routes, in addition to those of KongCustomEntities. Kong has only the latter.
    routes: Vec<RouteConfig>,
}

#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RouteConfig {
    /// The path. A segment that begins with a colon is a variable: `/users/:id`. A route with a literal segment
    /// precedes one with a variable at the same place.
    uri: String,
    /// A GraphQL document with one operation.
    query: String,
    /// The methods of requests: GET, POST, PUT, PATCH or DELETE.
    #[serde(default = "default_methods")]
    methods: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        Config { graphql_server_path: "/graphql".to_owned(), routes: Vec::new() }
    }
}

pub(crate) struct DeGraphql {
    target: PathAndQuery,
    table: RouteTable,
    routes: Vec<Route>,
}

/// What a route sends.
struct Route {
    /// The JSON of the request up to the variables.
    head: Vec<u8>,
    variables: Vec<RouteVariable>,
}

impl PluginKind for DeGraphql {
    const NAME: &'static str = "degraphql";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 1500;
    const PHASES: Phases = Phases { before_forward: true, ..Phases::ACCESS };
    /// Without the plugin, clients could send any query.
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    const ENTITIES: Option<&'static EntityList> = Some(&EntityList { types: &["degraphql_routes"], field: "routes" });
    type Config = Config;
    type Plugin = DeGraphql;

    fn build(config: Config, cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        let path = Some(&config.graphql_server_path).filter(|path| path.starts_with('/'));
        let target = path.and_then(|path| path.parse::<PathAndQuery>().ok());
        if target.is_none() {
            let remedy = "write the path of the GraphQL server, such as /graphql";
            invalid.push(Diagnostic::in_config("graphql_server_path", "is not the path of a request", remedy));
        }
        if config.routes.is_empty() {
            let remedy = "add a KongCustomEntity of the type degraphql_routes whose parentRef is this object";
            cx.note(Diagnostic::in_config("routes", "are missing, so that all requests get 404", remedy));
        }
        let (mut table, mut routes) = (RouteTable::default(), Vec::new());
        for (index, route) in config.routes.iter().enumerate() {
            match build_route(index, route, routes.len(), &mut table) {
                Ok(route) => routes.push(route),
                Err(problem) => invalid.push(problem),
            }
        }
        match target {
            Some(target) if invalid.is_empty() => Ok(DeGraphql { target, table, routes }),
            _ => Err(invalid),
        }
    }
}

fn build_route(
    index: usize,
    config: &RouteConfig,
    position: usize,
    table: &mut RouteTable,
) -> Result<Route, Diagnostic> {
    let problem = |field: &str, message: String, remedy: &str| {
        Diagnostic::in_config(format!("routes[{index}].{field}"), message, remedy)
    };
    let pattern = parse_uri(&config.uri).map_err(|message| {
        problem("uri", message, "write a path such as /users/:id, with letters, digits and _ in names of variables")
    })?;
    let document = CheckedDocument::parse(&config.query, &DocumentLimits::USUAL)
        .map_err(|error| problem("query", error.to_string(), "correct the document"))?;
    let operation = document.operation(None).map_err(|error| {
        problem("query", error.to_string(), "write one operation, and a route for each further one")
    })?;
    let variables: Vec<RouteVariable> =
        operation.variables.iter().map(|variable| RouteVariable::new(variable, &pattern)).collect();
    let unused = pattern.names().find(|name| operation.variables.iter().all(|variable| variable.name != *name));
    if let Some(name) = unused {
        return Err(problem("uri", format!("the query has no variable {name}"), "add it to the query, or rename it"));
    }
    let mut methods = Vec::new();
    for (at, name) in config.methods.iter().enumerate() {
        match METHODS.iter().find(|method| method.as_str() == name) {
            Some(method) => methods.push(method.clone()),
            None => {
                let remedy = "use GET, POST, PUT, PATCH or DELETE";
                return Err(problem(&format!("methods[{at}]"), format!("{name:?} is not supported"), remedy));
            }
        }
    }
    if methods.is_empty() {
        return Err(problem("methods", "is empty".to_owned(), "list the methods of requests"));
    }
    for method in methods {
        if !table.add(&pattern, &method, position) {
            let message = format!("another route has the same path and the method {method}");
            return Err(problem("uri", message, "remove one of the two"));
        }
    }
    // The text is valid JSON up to the variables, which each request adds.
    let head = format!("{{\"query\":{},\"variables\":", Value::from(config.query.as_str())).into_bytes();
    Ok(Route { head, variables })
}

impl Plugin for DeGraphql {
    fn may_wait(&self) -> bool {
        false
    }

    fn body_buffer_limit(&self) -> Option<usize> {
        Some(MAX_BODY)
    }

    /// Also of requests without a body, which get one.
    fn buffers_body(&self, _head: &request::Parts) -> bool {
        true
    }

    fn declare_fields(&self, fields: &mut ChangedFields) {
        fields.request.add_all(&[CONTENT_LENGTH, CONTENT_TYPE, CONTENT_ENCODING]);
    }

    /// Operations over an upgraded connection would pass unseen.
    fn before_forward<'a>(&'a self, cx: &'a mut BeforeForwardCx<'_>) -> AccessOutcome<'a> {
        if cx.is_upgrade { AccessOutcome::Reply(upgrade_rejection()) } else { AccessOutcome::Continue }
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let found = self.table.find(&cx.head.method, cx.head.uri.path());
        let Some((route, segments)) = found.and_then(|(index, segments)| Some((self.routes.get(index)?, segments)))
        else {
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::NOT_FOUND, "Not Found", "no_graphql_route"));
        };
        let body = cx.current_body().filter(|body| !body.is_empty());
        let from_body = body.and_then(|body| request_json::body_fields(&cx.head.headers, body));
        if body.is_some() && from_body.is_none() {
            let message = "The body is neither a JSON object nor a form";
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "unreadable_body"));
        }
        let is_json = variables::is_json(&cx.head.headers);
        let values = variables::collect(&route.variables, &segments, cx.query, from_body, is_json);
        let Some(values) = values else {
            let message = "A variable of the path is not text in UTF-8";
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "unreadable_path"));
        };
        let mut body = route.head.clone();
        body.extend_from_slice(Value::Object(values).to_string().as_bytes());
        body.push(b'}');
        let mut parts = std::mem::take(&mut cx.head.uri).into_parts();
        parts.path_and_query = Some(self.target.clone());
        cx.head.uri = Uri::from_parts(parts).expect("a target with another valid path is valid");
        cx.head.method = Method::POST;
        cx.head.headers.remove(CONTENT_ENCODING);
        cx.head.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        cx.replace_body(Bytes::from(body));
        AccessOutcome::Continue
    }
}

fn default_methods() -> Vec<String> {
    vec!["GET".to_owned()]
}

/// A HEAD request would get the body of the response to POST.
const METHODS: [Method; 5] = [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];
/// Variables are small.
const MAX_BODY: usize = 256 << 10;
