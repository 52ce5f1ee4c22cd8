//! Tests of scripts with actions that are only recorded.

use super::*;
use crate::plugin_formats::template::Variable;

/// `act(…)` is recorded, and `stop(…)` also ends the script.
#[derive(Clone, Copy, Debug, PartialEq)]
enum TestAction {
    Act,
    Stop,
    /// `kong.change(…)`, or an assignment of a field of `kong.ctx.shared`.
    Change,
}

impl ScriptAction for TestAction {
    fn find(path: &str) -> Result<Self, (String, String)> {
        match path {
            "act" => Ok(TestAction::Act),
            "kong.stop" => Ok(TestAction::Stop),
            "kong.change" | "kong.ctx.shared =" => Ok(TestAction::Change),
            path => Err((format!("{path} is not supported"), "use act".to_owned())),
        }
    }

    fn check(self, arguments: &[Option<ScriptArgument>]) -> Result<(), String> {
        if arguments.is_empty() { Err("it has no arguments".to_owned()) } else { Ok(()) }
    }

    fn may_read(variable: Variable) -> Result<(), String> {
        if variable == Variable::ResponseStatus { Err("there is no response".to_owned()) } else { Ok(()) }
    }

    fn ends(self) -> bool {
        self == TestAction::Stop
    }

    fn changes_request(self) -> bool {
        self == TestAction::Change
    }
}

/// Each header has its name as the value, except those that begin with `no`.
#[derive(Default)]
struct TestHost(Vec<String>);

impl Variables for TestHost {
    fn get<'v>(&'v self, _: Variable, key: VariableKey<'_>) -> LuaValue<'v> {
        match key {
            VariableKey::Text(name) if !name.starts_with(b"no") => LuaValue::Text(name.to_vec().into()),
            _ => LuaValue::Nil,
        }
    }
}

impl ScriptHost<TestAction> for TestHost {
    fn variables(&self) -> &dyn Variables {
        self
    }

    fn act(&mut self, action: TestAction, arguments: Vec<ScriptArgument>) -> Result<(), &'static str> {
        let shown = arguments.into_iter().map(shown).collect::<Vec<_>>().join(" ");
        if shown == "fail" {
            return Err("it fails");
        }
        self.0.push(if action == TestAction::Stop { format!("stop {shown}") } else { shown });
        Ok(())
    }
}

fn shown(argument: ScriptArgument) -> String {
    match argument {
        ScriptArgument::Value(value) => String::from_utf8_lossy(&value.into_text()).into_owned(),
        ScriptArgument::Table(fields) => {
            let fields = fields.into_iter().map(|(name, value)| format!("{name}={}", shown(value)));
            format!("{{{}}}", fields.collect::<Vec<_>>().join(","))
        }
    }
}

fn run(text: &str) -> Result<Vec<String>, ScriptError> {
    let script = LuaScript::<TestAction>::parse(text).unwrap_or_else(|error| panic!("{text}: {error:?}"));
    let mut host = TestHost::default();
    script.run(&mut host, &mut Budget::default()).map(|_| host.0)
}

#[test]
fn scripts_run_their_statements() {
    for (text, expected) in [
        ("", &[][..]),
        ("-- nothing\n--[[ nor\nthis ]] act('a'); act(\"b\")", &["a", "b"]),
        ("act(kong.request.get_header('x') .. '-' .. 1, true)", &["x-1 true"]),
        ("local a = kong.request.get_header('no')\nif a == nil then act('nil') else act(a) end", &["nil"]),
        ("local a = 'x' a = a .. 'y' if a == 'xy' then local a = 'inner' act(a) end act(a)", &["inner", "xy"]),
        ("if false then act(1) elseif 2 > 1 then act(2) elseif true then act(3) end", &["2"]),
        ("if not kong.request.get_header('no') and true then return end act('never')", &[]),
        ("if true then return kong.stop('s') end act('never')", &["stop s"]),
        ("kong.stop(1) act('never')", &["stop 1"]),
        ("act({b = 1, [\"a-c\"] = {d = 'e'}, f = nil}, {})", &["{b=1,a-c={d=e}} {}"]),
        ("return function() act('inside') end", &["inside"]),
        ("local p = kong.request.get_header('/a/b') if p:match('^/a') then act(p:upper()) end", &["/A/B"]),
        ("return", &[]),
    ] {
        assert_eq!(run(text).unwrap(), expected, "{text}");
    }
}

#[test]
fn errors_end_a_script() {
    assert_eq!(run("act(1)\nact('fail')\nact(2)"), Err(ScriptError::Action(2, "it fails")));
    assert!(matches!(run("act('a' .. kong.request.get_header('no'))"), Err(ScriptError::Evaluation(_))));
    // Texts that grow exhaust the budget.
    let long = format!("local a = '{}'\n{}", "x".repeat(20_000), "a = a .. a\n".repeat(20));
    assert!(matches!(run(&long), Err(ScriptError::Evaluation(_))));
}

#[test]
fn tables_are_read_by_field_and_assigned() {
    let text = "local h = kong.request.get_headers()\n\
                act(h.a, h['b'], ngx.var.http_c, kong.request.get_query()['d'], kong.ctx.shared.e)\n\
                kong.ctx.shared.f = ngx.HTTP_FORBIDDEN\n\
                kong.ctx.shared['g h'] = 'i'\n\
                local h = kong.request.get_headers() act(h.j)";
    assert_eq!(run(text).unwrap(), ["a b c d e", "f 403", "g h i", "j"]);
}

#[test]
fn other_constructs_are_refused_with_their_line() {
    for (text, line, expected) in [
        ("\nfor i = 1, 2 do act(i) end", 2, "`for` is not supported"),
        ("while true do end", 1, "`while` is not supported"),
        ("local function f() end", 1, "functions are not supported"),
        ("function f() end", 1, "functions are not supported"),
        ("act('a')\n\nngx.exit(403)", 3, "ngx.exit is not supported"),
        ("kong.ctx.plugin.a = 1", 1, "kong.ctx.plugin.a is not supported"),
        ("kong.ctx.shared[1] = 1", 1, "the name of a field in quotes"),
        ("ngx.status = 200", 1, "ngx.status = is not supported"),
        ("act(kong.request.get_headers())", 1, "is used without a field"),
        ("local h = kong.request.get_headers() act(h)", 1, "the table h is used without a field"),
        ("local h = kong.request.get_headers() h = 1", 1, "the table h is changed"),
        ("local h = kong.request.get_headers()\nkong.change(1)\nact(h.a)", 3, "read it again"),
        ("local a, b = 1, 2", 1, "several variables"),
        ("local json = require('cjson')", 1, "the function require is not supported"),
        ("act({'a', 'b'})", 1, "lists in tables"),
        ("act({a = 1, a = 2})", 1, "field a occurs twice"),
        ("act()", 1, "`act`: it has no arguments"),
        ("if kong.response.get_status() == 1 then end", 1, "there is no response"),
        ("act(undefined)", 1, "there is no variable undefined"),
        ("if true then local a = 1 end act(a)", 1, "there is no variable a"),
        ("act([[long]])", 1, "long brackets"),
        ("if true then act(1)", 1, "`end` is missing"),
        ("return function() act(1) end act(2)", 1, "the end of the script"),
        ("end", 1, "end is not supported"),
        ("return 5", 1, "`return` of a value"),
        ("--[[ open", 1, "a comment has no end"),
    ] {
        let error = LuaScript::<TestAction>::parse(text).unwrap_err();
        assert!(error.message.contains(expected) && error.line == line, "{text}: {error:?}");
        assert!(!error.remedy.is_empty());
    }
    for text in [
        "if true then ".repeat(20),
        "act(1) ".repeat(600),
        format!("act({}1{})", "{a = ".repeat(20), "}".repeat(20)),
        format!("act('{}')", "x".repeat(40_000)),
        format!("act({}1)", "not ".repeat(300)),
    ] {
        assert!(LuaScript::<TestAction>::parse(&text).is_err());
    }
}
