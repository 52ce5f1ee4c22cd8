//! Tests of templates: every operator and function, everything that is rejected, and the limits.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;

/// Variables of a test, by the text with which an expression reads them.
struct Sample(BTreeMap<String, Vec<u8>>);

impl Variables for Sample {
    fn get<'v>(&'v self, variable: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        if variable == Variable::ResponseStatus {
            return LuaValue::Number(201.0);
        }
        let key = match key {
            VariableKey::None => String::new(),
            VariableKey::Text(key) => String::from_utf8_lossy(key).into_owned(),
            VariableKey::Number(number) => number.to_string(),
        };
        LuaValue::text_or_nil(self.0.get(&format!("{variable:?} {key}")).map(Vec::as_slice))
    }
}

fn sample() -> Sample {
    let values: &[(&str, &[u8])] = &[
        ("Headers x-y", b"Value"),
        ("Headers x", b"/api/v1/users"),
        ("Headers n", b" 0x10 "),
        ("Headers binary", b"\xff\xfe"),
        ("QueryParams n", b"7"),
        ("QueryParams empty", b""),
        ("UriCaptures 1", b"one"),
        ("UriCaptures name", b"named"),
        ("RequestHeader X", b"from header"),
        ("RequestMethod ", b"GET"),
        ("RequestPath ", b"/path"),
        ("RequestQueryArgument q", b"argument"),
        ("ClientIp ", b"192.0.2.1"),
        ("ResponseHeader X", b"of response"),
    ];
    Sample(values.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect())
}

/// The rendered text; an error as `error: message`, nothing as `nothing`.
fn render(template: &str) -> String {
    let template = Template::parse(template).unwrap_or_else(|error| panic!("{template}: {error:?}"));
    match template.render(&sample(), &mut Budget::default()) {
        Ok(Some(text)) => String::from_utf8_lossy(&text).into_owned(),
        Ok(None) => "nothing".to_owned(),
        Err(error) => format!("error: {error}"),
    }
}

fn check(cases: &[(&str, &str)]) {
    for (template, expected) in cases {
        assert_eq!(render(template), *expected, "{template}");
    }
}

// docs/kong-compatibility.md, 4.29
#[test]
fn literals_and_expressions_are_joined() {
    check(&[
        ("", ""),
        ("plain $ text ) (", "plain $ text ) ("),
        ("a$(headers.x)b$(query_params.n)c", "a/api/v1/usersb7c"),
        (r#"$(headers["x-y"])"#, "Value"),
        ("$(headers['x' .. '-y'])", "Value"),
        (r#"$(query_params["n"])"#, "7"),
        ("$(uri_captures[1])-$(uri_captures['name'])-$(uri_captures.name)", "one-named-named"),
        ("$('$(x)')", "$(x)"),
        (r#"$("closing ) parenthesis")"#, "closing ) parenthesis"),
        ("$(headers.none)", "nothing"),
        ("$(headers.none)$(shared.x)", "nothing"),
        ("a$(headers.none)b", "ab"),
        ("$(query_params.empty)", ""),
        ("$(headers[nil])", "nothing"),
        ("$(headers.none or \"default\")", "default"),
        ("$(query_params.empty or 'default')", ""),
    ]);
    assert_eq!(Template::parse("text").unwrap().literal(), Some("text"));
    assert_eq!(Template::parse("").unwrap().literal(), Some(""));
    assert_eq!(Template::parse("$(1)").unwrap().literal(), None);
}

#[test]
fn literal_templates_and_single_variables_are_borrowed() {
    for text in ["literal", "$(headers.x)"] {
        let (template, sample) = (Template::parse(text).unwrap(), sample());
        let rendered = template.render(&sample, &mut Budget::default()).unwrap().unwrap();
        assert!(matches!(rendered, Cow::Borrowed(_)), "{text}");
    }
    let (template, sample) = (Template::parse("$(headers.binary)").unwrap(), sample());
    assert_eq!(&*template.render(&sample, &mut Budget::default()).unwrap().unwrap(), b"\xff\xfe");
}

#[test]
fn operators_follow_lua() {
    check(&[
        ("$(1 + 2 * 3 - 4 / 2)", "5"),
        ("$((1 + 2) * 3)", "9"),
        ("$(7 % 3) $(-7 % 3) $(7 % -3) $(5.5 % 2)", "1 2 -2 1.5"),
        ("$(query_params.n + 1) $('0x10' + 0) $(headers.n * 2) $(-'3')", "8 16 32 -3"),
        (
            "$(1 / 0) $(-1 / 0) $(1e15) $(0.1) $(1/3) $(12345678901234) $(123456789012345678)",
            "inf -inf 1e+15 0.1 0.33333333333333 12345678901234 1.2345678901235e+17",
        ),
        ("$(-0) $(1e-5) $(0.0001) $(0xFF) $(.5) $(3.)", "-0 1e-05 0.0001 255 0.5 3"),
        ("$(1 .. 2) $('a' .. 'b' .. 3)", "12 ab3"),
        ("$(#'abc' + 1)", "4"),
        ("$(1 < 2) $(2 <= 2) $(1 > 2) $(2 >= 3) $('a' < 'b') $('10' < '9')", "true true false false true true"),
        ("$(1 == 1) $(1 == '1') $(nil == false) $('a' ~= 'b') $(nil ~= nil)", "true false false true false"),
        ("$(not nil) $(not 0) $(not not 'x')", "true false true"),
        ("$(nil and 1) $(1 and 2) $(false or nil or 3) $(1 or 2)", " 2 3 1"),
        ("$(1 == 2 or 3 == 3 and 'yes')", "yes"),
        ("$(not 1 == 2)", "false"),
        ("$(- - 3) $(-2 + 5)", "3 3"),
        ("$(headers.x == '/api/v1/users' and 'users' or 'other')", "users"),
        ("$(0/0 == 0/0) $(0/0 < 1)", "false false"),
        ("$(query_params.n.x)$(('abc')[1])", "nothing"),
    ]);
}

#[test]
fn strings_may_have_escapes() {
    check(&[
        (r#"$("a\"b\'c\\d")"#, r#"a"b'c\d"#),
        (r"$('a\tb\65\0663\x41')", "a\tbAB3A"),
        (r"$('a\nb\r\a\b\f\v')", "a\nb\r\u{7}\u{8}\u{c}\u{b}"),
        ("$('ü')", "ü"),
    ]);
}

#[test]
fn evaluation_errors_name_types_and_not_values() {
    check(&[
        ("$(1 + nil)", "error: arithmetic on a nil value"),
        ("$(headers.x + 1)", "error: arithmetic on a string value"),
        ("$(-true)", "error: arithmetic on a boolean value"),
        ("$(1 < 'secret')", "error: a comparison of a number value with a string value"),
        ("$(nil < 1)", "error: a comparison of a nil value with a number value"),
        ("$('a' .. headers.none)", "error: a concatenation with a nil value"),
        ("$(#5)", "error: the length of a number value"),
        ("$(headers.none.x)", "error: an index of a nil value"),
        ("$(string.upper(headers.none))", "error: string.upper needs a string as argument 1, and got a nil value"),
        ("$(string.sub('a', 'x'))", "error: string.sub needs a number as argument 2, and got a string value"),
        ("$(tonumber('a', 99))", "error: tonumber needs a base from 2 to 36 as argument 2, and got a number value"),
        (
            "$(string.gsub('a', 'a', '%'))",
            "error: a pattern that is not valid: the replacement ends with a percent sign",
        ),
        (
            "$(string.gsub('a', 'a', '%2'))",
            "error: a pattern that is not valid: the replacement refers to a group that is missing",
        ),
        ("$(string.find('a', '[' .. 'a'))", "error: a pattern that is not valid: a \"[\" has no closing \"]\""),
        (
            "$(string.format('%' .. 'y'))",
            "error: a format that is not valid: the format has a conversion other than \
            %c, %d, %e, %f, %g, %i, %o, %s, %u, %x and %%",
        ),
    ]);
}

#[test]
fn functions_follow_lua() {
    check(&[
        ("$(type(nil)) $(type(1)) $(type('')) $(type(true))", "nil number string boolean"),
        ("$(tostring(nil)) $(tostring(1.5)) $(tostring(false)) $(tostring('x'))", "nil 1.5 false x"),
        ("$(tonumber('12') + 1) $(tonumber('ff', 16)) $(tonumber('101', 2)) $(tonumber(' 5 '))", "13 255 5 5"),
        ("$(tonumber('x'))", "nothing"),
        ("$(tonumber('nan'))", "nothing"),
        ("$(tonumber(nil))", "nothing"),
        ("$(string.len('abc')) $(('abc'):len())", "3 3"),
        ("$(string.upper('aB1')) $(('aB1'):lower()) $(headers.x:upper())", "AB1 ab1 /API/V1/USERS"),
        ("$(string.sub('abcdef', 2, 4)) $(('abcdef'):sub(-2)) $(('abc'):sub(0)) $(('abc'):sub(2, -2))", "bcd ef abc b"),
        ("$(('abc'):sub(5)) $(('abc'):sub(3, 2)) $(('abc'):sub(-9, 9))", "  abc"),
        ("$(string.find('hello', 'l')) $(('hello'):find('l', 4)) $(('a.b'):find('.', 1, true))", "3 4 2"),
        ("$(('hello'):find('x'))", "nothing"),
        ("$(('hello'):find(''))", "1"),
        ("$(headers.x:match('^/api/(v%d+)/')) $(headers.x:match('[^/]+$')) $(('abc'):match('()c'))", "v1 users 3"),
        ("$(headers.x:gsub('^/api', ''))", "/v1/users"),
        ("$(string.gsub('hello world', 'o', '0', 1))", "hell0 world"),
        ("$(('hello'):gsub('', '-'))", "-h-e-l-l-o-"),
        (
            "$(('key = value'):gsub('(%w+) = (%w+)', '%2=%1')) $(('abc'):gsub('%w', '%0%0')) $(('a'):gsub('a', '%%'))",
            "value=key aabbcc %",
        ),
        ("$(('abc'):gsub('%w', '<%1>'))", "<a><b><c>"),
        ("$(('THE (quick) fox'):find('%((%a+)%)'))", "5"),
        ("$(string.format('%5d|%-5d|%05d|%+d|% d', 42, 42, -42, 42, 42))", "   42|42   |-0042|+42| 42"),
        ("$(string.format('%s %10s|%-4s|%.2s', 'a', 'b', 'c', 'defg'))", "a          b|c   |de"),
        ("$(string.format('%x %X %o %c %u %i', 255, 255, 8, 65, 7, '8'))", "ff FF 10 A 7 8"),
        (
            "$(string.format('%.2f %5.1f %e %g %g %G %%', 3.14159, 2.25, 12345.678, 0.00001, 1e20, 1e-10))",
            "3.14   2.2 1.234568e+04 1e-05 1e+20 1E-10 %",
        ),
        ("$(string.format('%s %s', nil, true)) $(('%d'):format(3))", "nil true 3"),
        ("$(string.format('%g %g %g %.3g', 100000, 1000000, 0.5, 9.999))", "100000 1e+06 0.5 10"),
        ("$(string.format('%.3d', 5))", "005"),
    ]);
}

#[test]
fn patterns_follow_lua() {
    for (subject, pattern, expected) in [
        ("hello", "l+", Some("ll")),
        ("hello", "l-o", Some("llo")),
        ("hello", "hx?e", Some("he")),
        ("hello", "h.*l", Some("hell")),
        ("hello", "^l", None),
        ("hello", "o$", Some("o")),
        ("hello", "l$", None),
        ("a$b", "a$b", Some("a$b")),
        ("x12", "%d+", Some("12")),
        ("x12", "%D", Some("x")),
        ("a-b_c", "[%w_]+$", Some("b_c")),
        ("a-b", "[a-]+", Some("a-")),
        ("]x", "[]]", Some("]")),
        ("x]", "[^]]", Some("x")),
        ("a]b", "[%]]", Some("]")),
        ("f(a(b)c)d", "%b()", Some("(a(b)c)")),
        ("f(a", "%b()", None),
        ("THE (quick) fox", "%f[%a]%a+%f[%A]", Some("THE")),
        ("abab", "(ab)%1", Some("ab")),
        ("\"it's\"", "([\"'])(.-)%1", Some("\"")),
        ("key=value", "=(.*)", Some("value")),
        ("", ".*", Some("")),
        ("aaa", "a-$", Some("aaa")),
        ("a.b", "%.", Some(".")),
        (" \t x", "^%s*(.-)%s*$", Some("x")),
        ("0aF-", "%x+", Some("0aF")),
        ("A!", "%p", Some("!")),
        ("aB", "%u", Some("B")),
        ("aB", "%U", Some("a")),
        ("a", "((a))", Some("a")),
        ("aa", "()a%1", None),
    ] {
        let sample = Sample(BTreeMap::from([("Headers s".to_owned(), subject.as_bytes().to_vec())]));
        let quoted = pattern.replace('\\', "\\\\").replace('"', "\\\"");
        let template = Template::parse(&format!("$(headers.s:match(\"{quoted}\"))")).unwrap();
        let found = template.render(&sample, &mut Budget::default()).unwrap();
        assert_eq!(found.as_deref(), expected.map(str::as_bytes), "{subject} {pattern}");
    }
}

/// The message for a template that is not valid.
fn rejection(template: &str) -> String {
    let error = Template::parse(template).err().unwrap_or_else(|| panic!("{template} was accepted"));
    let diagnostic = error.into_diagnostic("add.headers[0]");
    assert_eq!(diagnostic.field, "config.add.headers[0]");
    assert!(!diagnostic.remedy.is_empty(), "{template}");
    diagnostic.message
}

#[test]
fn everything_else_is_rejected_with_its_reason() {
    for (template, expected) in [
        ("$(", "has the expression $(, in which a value is missing"),
        ("$()", "has the expression $(), in which \")\" follows instead of a value"),
        ("x $(headers.x", "has the expression $(headers.x, in which the closing parenthesis is missing"),
        (
            "$(headers)",
            "has the expression $(headers), in which headers is used without a field; write headers.NAME \
            or headers[\"NAME\"]",
        ),
        (
            "$(shared.x = 1)",
            "has the expression $(shared.x = 1), in which \"=\" assigns a value, which is not \
            supported; == compares",
        ),
        ("$(unknown)", "has the expression $(unknown), in which there is no variable unknown"),
        ("$(os.time())", "has the expression $(os.time()), in which there is no variable os"),
        (
            "$(string.rep('x', 9))",
            "has the expression $(string.rep('x', 9)), in which the function string.rep is not \
            supported",
        ),
        ("$(require('x'))", "has the expression $(require('x')), in which the function require is not supported"),
        (
            "$(function() end)",
            "has the expression $(function() end), in which \"function\" is a statement of Lua, and only \
            expressions are supported",
        ),
        ("$(2 ^ 3)", "has the expression $(2 ^ 3), in which the operator \"^\" is not supported"),
        ("$({})", "has the expression $({}), in which \"{\" creates a table, which is not supported"),
        ("$(1 2)", "has the expression $(1 2), in which a number follows instead of the closing parenthesis"),
        ("$(1 -- x\n)", "has the expression $(1 -- x ), in which -- starts a comment, and comments are not supported"),
        (
            "$([[x]])",
            "has the expression $([[x]]), in which a string is in long brackets, and only quotes are \
            supported",
        ),
        ("$('x)", "has the expression $('x), in which a string has no closing quote"),
        (
            r"$('\q')",
            r"has the expression $('\q'), in which a string has a backslash that is not followed by a known \
            escape; write \\ for a backslash",
        ),
        ("$(3x)", "has the expression $(3x), in which 3x is not a number"),
        ("$(1 ! 2)", "has the expression $(1 ! 2), in which the character '!' is not valid"),
        ("$(tonumber())", "has the expression $(tonumber()), in which tonumber has 0 arguments"),
        ("$(('x'):bytes())", "has the expression $(('x'):bytes()), in which there is no method :bytes()"),
        (
            "$('x':upper())",
            "has the expression $('x':upper()), in which \":\" follows instead of an operator; put the \
            literal into parentheses",
        ),
        (
            "$(kong.request.get_method())",
            "has the expression $(kong.request.get_method()), in which the function \
            kong.request.get_method is not supported",
        ),
        (
            "$(('x'):gsub('[', ''))",
            "has the expression $(('x'):gsub('[', '')), in which the pattern is not valid: a \
            \"[\" has no closing \"]\"",
        ),
        (
            "$(string.format('%s'))",
            "has the expression $(string.format('%s')), in which the format needs 1 values, and \
            string.format gets 0",
        ),
        (
            "$(string.format('%123d', 1))",
            "has the expression $(string.format('%123d', 1)), in which a width or \
            precision of the format has more than two digits",
        ),
    ] {
        let expected: String = expected.replace("\\\n            ", "");
        assert_eq!(rejection(template), expected, "{template}");
    }
}

#[test]
fn invalid_patterns_are_rejected() {
    for (pattern, expected) in [
        ("%", "it ends with a percent sign"),
        ("[a", "a \"[\" has no closing \"]\""),
        ("[a%", "a \"[\" has no closing \"]\""),
        ("(a", "a \"(\" has no closing \")\""),
        ("a)", "a \")\" has no opening \"(\""),
        ("%1", "it refers to a group that is not complete"),
        ("(%1)", "it refers to a group that is not complete"),
        ("%0", "it refers to a group that is not complete"),
        ("%bx", "%b needs two characters"),
        ("%fa", "%f needs a set in brackets"),
        (&"()".repeat(33), "it has more than 32 groups"),
    ] {
        assert_eq!(pattern::check(pattern.as_bytes()), Err(expected), "{pattern}");
        // A pattern that is not a literal has the same error when it is used, unless the subject ends the match first.
        let mut budget = Budget::default();
        let found = pattern::find(b"aaa", pattern.as_bytes(), 0, &mut budget);
        assert_eq!(found, Err(EvaluationError::Pattern(expected)), "{pattern}");
    }
}

#[test]
fn sizes_are_limited() {
    for (template, expected) in [
        (format!("$({}1{})", "(".repeat(50), ")".repeat(50)), "deeper than 40 levels"),
        (format!("$({}1)", "-".to_owned() + &" -".repeat(50)), "deeper than 40 levels"),
        (format!("$(1{})", " + 1".repeat(200)), "more than 250 operators"),
        (format!("$(1{})", " .. 1".repeat(200)), "more than 250 operators"),
        (format!("$('{}')", "x".repeat(5000)), "more than 4096 bytes"),
        ("x".repeat(MAX_VALUE_BYTES + 1), "is longer than 64KiB"),
    ] {
        assert!(rejection(&template).contains(expected), "{}: {}", &template[..60], rejection(&template));
    }
    let sample = Sample(BTreeMap::from([("Headers x".to_owned(), vec![b'a'; 40_000])]));
    for (text, expected) in [
        ("$(headers.x .. headers.x)", EvaluationError::TooLong),
        ("$(headers.x)$(headers.x)", EvaluationError::TooLong),
        ("$(headers.x:gsub('a', 'bb'))", EvaluationError::TooLong),
        ("$(string.format('%s%s', headers.x, headers.x))", EvaluationError::TooLong),
        ("$(headers.x:match('.-.-.-.-b'))", EvaluationError::TooManySteps),
        ("$(headers.x:find('a*a*a*b'))", EvaluationError::TooManySteps),
        ("$(headers.x:match('((((((((((((((((a*))))))))))))))))b'))", EvaluationError::TooManySteps),
    ] {
        let template = Template::parse(text).unwrap();
        assert_eq!(template.render(&sample, &mut Budget::default()).err(), Some(expected), "{text}");
    }
    // Equal texts are compared to their end.
    let comparisons = format!("$({}1)", "headers.x == headers.x and ".repeat(15));
    let template = Template::parse(&comparisons).unwrap();
    assert_eq!(template.render(&sample, &mut Budget::default()).err(), Some(EvaluationError::TooManySteps));
    // The budget is shared by all templates of a request.
    let (template, mut budget) = (Template::parse("$(headers.x:upper())").unwrap(), Budget::default());
    let succeeded = (0..100).take_while(|_| template.render(&sample, &mut budget).is_ok()).count();
    assert_eq!(succeeded, 12);
}

#[test]
fn chunks_return_json() {
    for (chunk, expected) in [
        ("return nil", None),
        ("return 'text';", Some(json!("text"))),
        ("  1 + 1 ", Some(json!(2))),
        ("return 1.5", Some(json!(1.5))),
        ("return not false", Some(json!(true))),
        ("return kong.request.get_header('X')", Some(json!("from header"))),
        ("return kong.request.get_header('Y')", None),
        ("return kong.request.get_method() .. ' ' .. kong.request.get_path()", Some(json!("GET /path"))),
        ("return kong.request.get_query_arg(\"q\")", Some(json!("argument"))),
        ("return kong.client.get_ip()", Some(json!("192.0.2.1"))),
        ("return kong.response.get_status() >= 200", Some(json!(true))),
        ("return kong.response.get_status()", Some(json!(201))),
        ("return kong.response.get_header('X')", Some(json!("of response"))),
        ("return '\\255'", Some(json!("\u{fffd}"))),
    ] {
        let expression = Expression::parse_return(chunk).unwrap_or_else(|error| panic!("{chunk}: {error:?}"));
        let value = expression.evaluate(&sample(), &mut Budget::default()).map(|value| value.to_json());
        assert_eq!(value, Ok(Ok::<Option<Value>, _>(expected)), "{chunk}");
    }
    let infinite = Expression::parse_return("return 1 / 0").unwrap();
    let sample = sample();
    let value = infinite.evaluate(&sample, &mut Budget::default()).unwrap();
    assert_eq!(value.to_json(), Err(EvaluationError::NotFinite));
}

#[test]
fn chunks_with_more_than_an_expression_are_rejected() {
    for (chunk, expected) in [
        ("", "has the expression , in which a value is missing"),
        ("return", "has the expression return, in which a value is missing"),
        (
            "local x = 1 return x",
            "has the expression local x = 1 return x, in which \"local\" is a statement of Lua, and only expressions \
             are supported",
        ),
        (
            "return 1 return 2",
            "has the expression return 1 return 2, in which \"return\" is a statement of Lua, and \
            only expressions are supported",
        ),
        ("return headers.x", "has the expression return headers.x, in which there is no variable headers"),
        (
            "return kong.request.get_header()",
            "has the expression return kong.request.get_header(), in which kong.request.get_header needs one argument",
        ),
        (
            "return kong.client.get_ip('x')",
            "has the expression return kong.client.get_ip('x'), in which kong.client.get_ip needs no argument",
        ),
        (
            "return kong.request.get_body()",
            "has the expression return kong.request.get_body(), in which the function kong.request.get_body is not \
             supported",
        ),
        ("return ngx.var.x", "has the expression return ngx.var.x, in which there is no variable ngx.var.x"),
    ] {
        let error = Expression::parse_return(chunk).err().unwrap_or_else(|| panic!("{chunk} was accepted"));
        assert_eq!(error.into_diagnostic("custom_fields_by_lua[a]").message, expected, "{chunk}");
    }
}

const OPERATORS: &[&str] = &["..", "+", "-", "*", "/", "%", "==", "~=", "<", ">=", "and", "or"];
const FUNCTIONS: &[&str] = &[
    "type",
    "tostring",
    "tonumber",
    "string.upper",
    "string.len",
    "string.find",
    "string.match",
    "string.gsub",
    "string.sub",
    "string.format",
];

/// Texts of expressions that are often valid.
fn expression_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("nil".to_owned()),
        Just("headers.x".to_owned()),
        Just("query_params[1]".to_owned()),
        "-?[0-9]{1,3}(\\.[0-9])?",
        "'[a-z%().*+\\[\\]^$-]{0,8}'",
    ];
    leaf.prop_recursive(6, 60, 3, |inner| {
        prop_oneof![
            (inner.clone(), prop::sample::select(OPERATORS), inner.clone())
                .prop_map(|(left, operator, right)| format!("({left} {operator} {right})")),
            (prop::sample::select(FUNCTIONS), prop::collection::vec(inner.clone(), 1..4))
                .prop_map(|(function, arguments)| format!("{function}({})", arguments.join(", "))),
            inner.prop_map(|operand| format!("not -#{operand}")),
        ]
    })
}

proptest! {
    #[test]
    fn no_template_panics_or_exceeds_its_limits(
        text in prop_oneof![
            expression_text().prop_map(|text| format!("x$({text})")),
            "\\$\\([a-z0-9 .'\"()\\[\\]+%^=<>~#:,-]{0,40}\\)?",
            ".{0,40}",
        ],
        value in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let Ok(template) = Template::parse(&text) else { return Ok(()) };
        let sample = Sample(BTreeMap::from([("Headers x".to_owned(), value)]));
        if let Ok(Some(rendered)) = template.render(&sample, &mut Budget::default()) {
            prop_assert!(rendered.len() <= MAX_VALUE_BYTES);
        }
    }

    #[test]
    fn no_pattern_panics_or_exceeds_its_limits(
        subject in prop::collection::vec(any::<u8>(), 0..100),
        pattern in prop_oneof!["[ab%().*+?\\[\\]^$1-]{0,20}", "(\\(?[ab.%w][*+?-]?\\)?){0,10}"],
        replacement in "[a%01]{0,10}",
    ) {
        let checked = pattern::check(pattern.as_bytes());
        let found = pattern::find(&subject, pattern.as_bytes(), 0, &mut Budget::default());
        // A checked pattern has no error that the check could have found.
        if checked.is_ok() {
            let is_limit = |error: &EvaluationError| {
                matches!(error, EvaluationError::TooManySteps | EvaluationError::Pattern("it needs too much recursion"))
            };
            prop_assert!(found.as_ref().err().is_none_or(is_limit), "{pattern}: {found:?}");
        }
        let replaced =
            pattern::replace(&subject, pattern.as_bytes(), replacement.as_bytes(), 1000, &mut Budget::default());
        prop_assert!(replaced.is_err() || replaced.is_ok_and(|text| text.len() <= MAX_VALUE_BYTES));
    }
}
