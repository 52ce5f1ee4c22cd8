//! Tests of functions: what they change and respond, and what is refused.

use http::{HeaderValue, StatusCode};
use serde_json::{Value, json};

use super::PreFunction;
use crate::plugin_api::{RegisteredKind, ReplyBody};
use crate::plugin_chain::testing::{TestRequest, build, chain, notes};

const KIND: &RegisteredKind<PreFunction> = &RegisteredKind::<PreFunction>::NEW;

fn access(function: &str) -> Value {
    json!({"access": [function]})
}

#[tokio::test]
async fn functions_change_the_request() {
    let function = "local version = kong.request.get_header('X_Version')\n\
                    kong.service.request.set_header('x-version', version or 'none')\n\
                    kong.service.request.add_header('x-many', 1)\n\
                    kong.service.request.clear_header('x-old')\n\
                    if kong.request.get_query_arg('debug') == true then kong.service.request.set_query({b = 'x y', a = 1}) end\n\
                    if kong.request.get_path() == '/a' and kong.request.get_method() == 'GET' then\n\
                      kong.service.request.set_path('/b c')\n\
                    end\n\
                    kong.log.info('seen by ', kong.client.get_ip())";
    let chain = chain(&[(KIND, access(function))]);
    let outcome = TestRequest::get("/a?debug").header("x-old", "1").header("x-many", "0").run(&chain).await;
    assert_eq!(outcome.reply_status(), None);
    assert_eq!(outcome.upstream_header("x-version"), Some("none"));
    assert_eq!(outcome.upstream_header("x-old"), None);
    assert_eq!(outcome.request.uri.path_and_query().unwrap(), "/b%20c?a=1&b=x%20y");
    let outcome = TestRequest::get("/c?x=1").header("x-version", "2").run(&chain).await;
    assert_eq!(outcome.upstream_header("x-version"), Some("2"));
    assert_eq!(outcome.request.uri.path_and_query().unwrap(), "/c?x=1");
    assert!(notes(KIND, &access(function))[0].message.contains("kong.log"));
}

/// Each search for a parameter examines the whole query.
#[tokio::test]
async fn searches_of_a_long_query_are_limited() {
    let function = "if kong.request.get_query_arg('x') then kong.response.exit(400) end\n".repeat(20);
    let chain = chain(&[(KIND, access(&function))]);
    for (length, expected) in [(1_000, None), (40_000, Some(StatusCode::INTERNAL_SERVER_ERROR))] {
        let outcome = TestRequest::get(&format!("/?{}", "a&".repeat(length / 2))).run(&chain).await;
        assert_eq!(outcome.reply_status(), expected, "{length}");
    }
}

#[tokio::test]
async fn functions_respond() {
    let function = "if not kong.request.get_header('x-key') then\n\
                      return kong.response.exit(403, {message = 'no key', code = 7}, {['x-why'] = 'key'})\n\
                    end\n\
                    if kong.request.get_path() == '/text' then kong.response.exit(200, 'hello') end\n\
                    if kong.request.get_path() == '/empty' then kong.response.exit(204) end";
    let chain = chain(&[(KIND, access(function))]);
    let outcome = TestRequest::get("/").run(&chain).await;
    let reply = outcome.reply.as_ref().expect("the function responds");
    assert_eq!((reply.status, &reply.headers["x-why"]), (StatusCode::FORBIDDEN, &HeaderValue::from_static("key")));
    assert_eq!(reply.headers["content-type"], "application/json; charset=utf-8");
    assert_eq!(reply.body, ReplyBody::Raw(r#"{"message":"no key","code":7}"#.into()));
    let with_key = |path: &str| TestRequest::get(path).header("x-key", "1");
    let outcome = with_key("/text").run(&chain).await;
    assert_eq!(outcome.reply.unwrap().headers["content-type"], "text/plain; charset=UTF-8");
    assert_eq!(with_key("/empty").run(&chain).await.reply.unwrap().body, ReplyBody::Empty);
    assert_eq!(with_key("/").run(&chain).await.reply_status(), None);
}

#[tokio::test]
async fn functions_change_the_response() {
    let function = "if kong.response.get_status() == 200 then\n\
                      kong.response.set_header('x-seen', kong.response.get_header('x-from') or 'nothing')\n\
                      kong.response.clear_header('server')\n\
                      kong.response.set_status(201)\n\
                    end";
    let chain = chain(&[(KIND, json!({"header_filter": [function]}))]);
    let outcome = TestRequest::get("/").run(&chain).await;
    assert_eq!(outcome.response_header("x-seen"), Some("nothing"));
}

#[tokio::test]
async fn functions_read_tables_of_the_request() {
    let function = "local headers, query = nil\n";
    assert!(build(KIND, &access(function)).is_err(), "each variable has its own statement");
    let function = "local headers = kong.request.get_headers()\n\
                    local query = kong.request.get_query()\n\
                    if headers['x-version'] == '1' and query.debug == true and ngx.req.get_headers().x_a == '2' then\n\
                      kong.service.request.set_header('x-seen', headers.x_version .. ngx.var.http_x_a .. query['n'])\n\
                    end";
    let chain = chain(&[(KIND, access(function))]);
    let outcome = TestRequest::get("/?debug&n=3").header("x-version", "1").header("x-a", "2").run(&chain).await;
    assert_eq!(outcome.upstream_header("x-seen"), Some("123"));
}

#[tokio::test]
async fn functions_respond_with_functions_of_openresty() {
    for (function, status, message) in [
        ("ngx.status = 503\nngx.exit(ngx.status)", 503, "The upstream server is currently unavailable"),
        ("ngx.exit(ngx.HTTP_BAD_REQUEST)", 400, "Bad request"),
        ("kong.response.error(418)", 418, "I'm a teapot"),
        ("kong.response.error(403, 'no', {['x-a'] = 'b'})", 403, "no"),
        ("error('broken')", 500, "An unexpected error occurred"),
    ] {
        let outcome = TestRequest::get("/").run(&chain(&[(KIND, access(function))])).await;
        assert_eq!(outcome.reply_status().unwrap().as_u16(), status, "{function}");
        assert_eq!(outcome.message(), Some(message), "{function}");
    }
    let function = "ngx.status = 404\nngx.header['X-A'] = 'b'\nngx.header.x_b = 1\nngx.say('Not', ' Found')\n\
                    ngx.exit(ngx.status)";
    for function in [function, function.trim_end_matches("ngx.exit(ngx.status)")] {
        let outcome = TestRequest::get("/").run(&chain(&[(KIND, access(function))])).await;
        let reply = outcome.reply.unwrap();
        assert_eq!((reply.status, &reply.body), (StatusCode::NOT_FOUND, &ReplyBody::Raw("Not Found\n".into())));
        assert!(reply.headers["x-a"] == "b" && reply.headers["x-b"] == "1", "{:?}", reply.headers);
    }
    let functions = json!({"access": ["ngx.header['x-a'] = 'b'\nngx.header['x-b'] = 'c'\nngx.header.x_a = nil"],
                           "header_filter": ["ngx.header['x-b'] = nil"]});
    let outcome = TestRequest::get("/").run(&chain(&[(KIND, functions)])).await;
    assert_eq!((outcome.response_header("x-a"), outcome.response_header("x-b")), (None, None));
    // What a function sets for the reply, later ones see.
    let chain_of_two = chain(&[(KIND, json!({"access": ["ngx.status = 400", "ngx.exit(ngx.status)"]}))]);
    let outcome = TestRequest::get("/").run(&chain_of_two).await;
    assert_eq!((outcome.reply_status(), outcome.message()), (Some(StatusCode::BAD_REQUEST), Some("Bad request")));
    for (value, target) in [("nil", "/a"), ("'b=2'", "/a?b=2")] {
        let outcome =
            TestRequest::get("/a?b=1").run(&chain(&[(KIND, access(&format!("ngx.var.args = {value}")))])).await;
        assert_eq!(outcome.request.uri.path_and_query().unwrap(), target);
    }
    let outcome = TestRequest::get("/").run(&chain(&[(KIND, access("ngx.redirect('/login')"))])).await;
    let reply = outcome.reply.unwrap();
    assert_eq!((reply.status, &reply.headers["location"]), (StatusCode::FOUND, &HeaderValue::from_static("/login")));
    let outcome = TestRequest::get("/").run(&chain(&[(KIND, access("ngx.exit(ngx.OK)"))])).await;
    assert_eq!(outcome.reply_status(), None);
    let outcome = TestRequest::get("/").run(&chain(&[(KIND, access("kong.response.set_header('x-a', 'b')"))])).await;
    assert_eq!((outcome.reply_status(), outcome.response_header("x-a")), (None, Some("b")));
}

#[tokio::test]
async fn functions_share_values() {
    let first = "kong.ctx.shared.version = '1.' .. 2\nkong.ctx.shared['a b'] = true";
    let second = "if kong.ctx.shared['a b'] then kong.service.request.set_header('x-a', kong.ctx.shared.version) end";
    let third = "kong.response.set_header('x-late', kong.ctx.shared.version)";
    let functions = json!({"access": [first, second], "header_filter": [third]});
    let outcome = TestRequest::get("/").run(&chain(&[(KIND, functions)])).await;
    assert_eq!(outcome.upstream_header("x-a"), Some("1.2"));
    assert_eq!(outcome.response_header("x-late"), Some("1.2"));
}

#[tokio::test]
async fn failing_functions_respond_500() {
    for function in [
        "kong.log.set_serialize_value(kong.request.get_header('x-path'), 1)",
        "kong.ctx.shared.a = {b = kong.request.get_method()}",
        "kong.service.request.set_header('x-a', kong.request.get_header('absent'))",
        "kong.service.request.set_header('x-a', 'a\\nb')",
        "kong.service.request.set_path('relative')",
        // The value would lead out of the prefix of the path.
        "kong.service.request.set_path('/p/' .. kong.request.get_query_arg('q'))",
        "kong.service.request.set_raw_query('a b')",
        "kong.response.exit(kong.request.get_header('absent'))",
    ] {
        let chain = chain(&[(KIND, access(function))]);
        let request = TestRequest::get("/?q=..%2fadmin").header("x-path", &"a.".repeat(30_000));
        let status = request.run(&chain).await.reply_status();
        assert_eq!(status, Some(StatusCode::INTERNAL_SERVER_ERROR), "{function}");
    }
}

#[test]
fn unsupported_functions_are_refused() {
    for (config, field, expected) in [
        (access("\nngx.req.set_uri('/a')"), "config.access[0]", "line 2: `ngx.req.set_uri` is not supported"),
        (access("kong.service.set_upstream('a')"), "config.access[0]", "`kong.service.set_upstream` is not supported"),
        (
            access("kong.response.clear_header('a')"),
            "config.access[0]",
            "`kong.response.clear_header` is not supported",
        ),
        (access("kong.response.set_header('host', 'b')"), "config.access[0]", "responses have no header host"),
        (access("kong.ctx.plugin.a = 1"), "config.access[0]", "`kong.ctx.plugin.a` is not supported"),
        (access("kong.ctx.shared = 1"), "config.access[0]", "assigns a value"),
        (access("local h = kong.request.get_headers() local b = h"), "config.access[0]", "used without a field"),
        (access("if kong.request.get_headers() then end"), "config.access[0]", "used without a field"),
        (
            access("local h = kong.request.get_headers()\nngx.req.set_header('a', 'b')\nlocal b = h.a"),
            "config.access[0]",
            "line 3: the table h was read before the request was changed",
        ),
        (access("kong.log.set_serialize_value('a', 1, {mode = 'x'})"), "config.access[0]", "the options are no table"),
        (access("kong.log.set_serialize_value('a..b', 1)"), "config.access[0]", "has an empty part"),
        (access("kong.ctx.shared.a = {b = 1}"), "config.access[0]", "a shared value is a table"),
        (access("kong.ctx.shared.a.b = 1"), "config.access[0]", "a field of kong.ctx.shared cannot be a table"),
        (access("ngx.header.x.y = 1"), "config.access[0]", "a field of ngx.header cannot be a table"),
        (access("ngx.say({})"), "config.access[0]", "a table cannot be written"),
        (access("ngx.redirect('/a', 200)"), "config.access[0]", "the status of the redirect is not from 300 to 399"),
        (access("kong.response.set_header('x-a', nil)"), "config.access[0]", "an argument is nil"),
        (access("ngx.exit(99)"), "config.access[0]", "the status is not a number from 200 to 599"),
        (access("kong.service.request.set_header('connection', 'b')"), "config.access[0]", "belongs to the connection"),
        (access("kong.service.request.clear_header('host')"), "config.access[0]", "the header host can only be set"),
        (access("local n = 'a' kong.service.request.set_header(n, 'b')"), "config.access[0]", "is not a literal"),
        (access("kong.response.exit(99)"), "config.access[0]", "the status is not a number from 200 to 599"),
        (access("if kong.response.get_status() == 1 then end"), "config.access[0]", "there is no response yet"),
        (json!({"header_filter": ["kong.response.exit(403)"]}), "config.header_filter[0]", "is not supported"),
        (
            json!({"header_filter": ["local a = kong.request.get_path()"]}),
            "config.header_filter[0]",
            "in header_filter, only",
        ),
        (json!({"log": ["kong.response.set_header('a', 'b')"]}), "config.log[0]", "is not supported"),
        (json!({"body_filter": ["kong.log('a')"]}), "config.body_filter", "functions of this phase are not supported"),
        (json!({"access": vec!["kong.log('a')"; 21]}), "config.access", "21 functions"),
    ] {
        let Err(problems) = build(KIND, &config) else { panic!("{config}") };
        let problem = &problems[0];
        assert!(problem.field == field && problem.message.contains(expected), "{config}: {problem:?}");
        assert!(!problem.remedy.is_empty());
    }
}
