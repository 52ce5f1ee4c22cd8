//! Tests of the language and of its limits.

use super::*;

/// The values of a program, joined by spaces, or what has stopped it.
fn run(source: &str, input: &str) -> String {
    let program = match JqProgram::parse(source) {
        Ok(program) => program,
        Err(error) => return format!("refused: {}", error.0),
    };
    let mut values = Vec::new();
    let input = JqValue::from_json(input).expect("the input is JSON");
    let flow = program.run(input, &mut |value| {
        values.push(value.to_json(OutputStyle::default()));
        Ok(())
    });
    match flow {
        Ok(()) => {}
        Err(Stop::Error(error)) => values.push(format!("error: {}", error.to_json(OutputStyle::default()))),
        Err(Stop::Exhausted) => values.push("exhausted".to_owned()),
        Err(stop) => values.push(format!("{stop:?}")),
    }
    values.join(" ")
}

// docs/kong-compatibility.md, 5.15
#[test]
fn programs_give_what_jq_gives() {
    for (source, input, expected) in [
        (".", "12345678901234567890123", "12345678901234567890123"),
        (".a.b, .c[1:]?, (.c | map(. + 1) | add)", r#"{"a":{"b":1.50},"c":[1,2,3]}"#, "1.50 [2,3] 9"),
        (r#"select(.name == "James Dean").name = "John Doe""#, r#"{"name":"James Dean"}"#, r#"{"name":"John Doe"}"#),
        (r#"to_entries | map(.key) | join(",")"#, r#"{"x":1,"y":2}"#, r#""x,y""#),
        ("with_entries(.value |= tostring)", r#"{"x":1,"y":[2]}"#, r#"{"x":"1","y":"[2]"}"#),
        (r#"[.[] | select(.a > 1) | {id: .a, "n\(.a)": .b}]"#, r#"[{"a":1},{"a":2,"b":3}]"#, r#"[{"id":2,"n2":3}]"#),
        ("def f: if . < 30 then . + 1 | f else . end; f", "0", "30"),
        (r#"try error("a") catch ., (.a // "d"), (try (1 | error("x")) catch "c")"#, "{}", r#""a" "d" "c""#),
        // What gets the values of `try` is not within it.
        (r#"try (try . | error("b")) catch "outer", (.a?)"#, "1", r#""outer""#),
        ("del(.a, .b[0])", r#"{"a":1,"b":[1,2]}"#, r#"{"b":[2]}"#),
        (".a[1:] |= map(. * 2)", r#"{"a":[1,2,3]}"#, r#"{"a":[1,4,6]}"#),
        (r#".. |= (if type == "number" then . + 1 else . end)"#, r#"{"a":[1,{"b":2}]}"#, r#"{"a":[2,{"b":3}]}"#),
        (
            r#"walk(if type == "object" then del(.x) else . end)"#,
            r#"{"a":[{"x":1,"y":2}],"x":1}"#,
            r#"{"a":[{"y":2}]}"#,
        ),
        (
            "group_by(.k) | map({k: .[0].k, n: length})",
            r#"[{"k":"b"},{"k":"a"},{"k":"b"}]"#,
            r#"[{"k":"a","n":1},{"k":"b","n":2}]"#,
        ),
        (
            r#"gsub("(?<d>[0-9]+)"; "<\(.d)>"), test("B"; "i"), [scan("[a-z]+")]"#,
            r#""ab12c""#,
            r#""ab<12>c" true ["ab","c"]"#,
        ),
        (". as {a: $x, b: [$y, $z]} | $x + $y + $z", r#"{"a":1,"b":[2,3]}"#, "6"),
        ("first(.[] | select(. > 1)), [limit(2; .[])], [paths]", "[1,2,3]", "2 [1,2] [[0],[1],[2]]"),
        ("label $o | foreach .[] as $i (0; . + $i; if . > 2 then ., break $o else . end)", "[1,2,3]", "1 3"),
        (r#"@base64, @uri, @html, (@base64 | @base64d)"#, r#""<é>""#, r#""PMOpPg==" "%3C%C3%A9%3E" "&lt;é&gt;" "<é>""#),
        ("any(. > 2), all(. > 0), min, max, unique, sort_by(-.)", "[1,3,3]", "true true 1 3 [1,3] [3,3,1]"),
        ("{} | .a.b[1] = 1 | .c //= 2 | .c += 1", "null", r#"{"a":{"b":[null,1]},"c":3}"#),
        ("[.[] as [$a, $b] | {a: $a, b: $b}]", "[[1,2],[3]]", r#"[{"a":1,"b":2},{"a":3,"b":null}]"#),
        ("reduce .[] as $x (0; . + $x), (.[-1:] | .[0]), index(2)", "[1,2]", "3 2 1"),
        ("def f(g; $n): [g] | .[$n]; f(.[]; 1)", "[5,6]", "6"),
        (". * {a: {c: 2}}, (.a | keys), -(.a.b)", r#"{"a":{"b":1}}"#, r#"{"a":{"b":1,"c":2}} ["b"] -1"#),
        ("1 + \"a\"", "null", r#"error: "number and string cannot be added""#),
        (".a.b", r#"{"a":1}"#, r#"error: "number has no member with a key of type string""#),
        ("path(1)", "null", r#"error: "the term has no path: it is a new number""#),
    ] {
        assert_eq!(run(source, input), expected, "{source}");
    }
}

#[test]
fn programs_that_do_not_end_or_grow_are_stopped() {
    for source in [
        "def f: f; f",
        "def f: [f]; f",
        "def f: ., f; [f]",
        "[range(1000000000)]",
        "until(false; .)",
        "[repeat(.)]",
        "[recurse(. + 1)]",
        "\"x\" * 1000000000",
        "reduce range(100) as $i (\"x\"; . + .)",
        "reduce range(100) as $i ([1]; . + .)",
        "reduce range(100000) as $i (null; [.])",
        "reduce range(60) as $i (0; [., .])",
        "reduce range(60) as $i (0; [., .]) | tojson",
        "(reduce range(60) as $i (0; [., .])) as $a | (reduce range(60) as $i (0; [., .])) as $b | $a == $b",
        "setpath([range(100000)]; 1)",
        ".[1000000000] = 1",
        "[limit(1000000000; repeat(1))]",
        "[range(300)] | combinations",
        "[range(20000)] | . - .",
    ] {
        let found = run(source, "null");
        assert!(found.ends_with("exhausted") || found.starts_with("error"), "{source}: {found:.200}");
    }
    let deep = format!("{}1{}", "[".repeat(101), "]".repeat(101));
    assert!(JqValue::from_json(&deep).is_none() && JqValue::from_json(&deep[1..deep.len() - 1]).is_some());
    assert!(JqValue::from_json(&format!("[{}1]", "1,".repeat(300_000))).is_none());
}

/// Each of these would walk gigabytes of text within the steps of short programs.
#[test]
fn work_on_long_texts_takes_steps() {
    let (text, wanted) = ("a".repeat(1 << 18), "a".repeat(1 << 17) + "b");
    let input = format!(r#"{{"text": "{text}", "wanted": "{wanted}"}}"#);
    for work in ["length", "trim", "ltrim", "rtrim", "tonumber?"] {
        let source = format!("[.text as $text | range(100000) | $text | {work}] | length");
        assert_eq!(run(&source, &input), "exhausted", "{work}");
        assert_ne!(run(&format!("[.text | {work}] | length"), &input), "exhausted", "{work}, once");
    }
    assert_eq!(run(".wanted as $wanted | .text | indices($wanted)", &input), "exhausted");
    assert_eq!(run(".text | indices(\"ab\")", &input), "[]");
}

#[test]
fn only_json_is_a_document() {
    for text in
        ["", "01", "+1", "1.", ".5", "nan", "[1,]", "{\"a\":1,}", "{a:1}", "\"a", "\"\\", "\"\\x\"", "1 2", "'a'"]
    {
        assert!(JqValue::from_json(text).is_none(), "{text}");
    }
}

#[test]
fn programs_are_refused_with_the_construct() {
    let nested = format!("{}1{}", "(".repeat(100), ")".repeat(100));
    let long = format!("{}1", "1 + ".repeat(200));
    for (source, expected) in [
        ("input", "input/0 is not available"),
        ("$ENV.PATH", "$ENV is not available"),
        ("foo(1)", "foo/1 is not a function"),
        ("$x", "$x is not defined"),
        ("break $x", "there is no label $x"),
        (".a |", "a term is missing"),
        ("[1", "] is missing"),
        ("\"a", "a string is not closed"),
        ("if . then 1", "end is missing"),
        ("test(.)", "the pattern of test must be a string"),
        ("test(\"(\")", "the pattern of test is not valid"),
        ("test(\"a\"; \"q\")", "test has no flag q"),
        (". as [$a] ?// $a | $a", "alternatives of patterns"),
        ("a;", "a/0 is not a function"),
        ("import \"a\" as a; .", "import is where a term must be"),
        (&nested, "terms are nested more than"),
        (&long, "operators follow one another"),
        (&" ".repeat(20_000), "longer than 16 KiB"),
    ] {
        let found = run(source, "null");
        assert!(found.starts_with("refused: ") && found.contains(expected), "{source:.60}: {found}");
    }
    // All functions of the library are valid.
    for (name, arity) in library::names() {
        let arguments = vec!["."; arity].join("; ");
        let call = if arity == 0 { name.to_owned() } else { format!("{name}({arguments})") };
        assert!(JqProgram::parse(&call).is_ok(), "{call}");
    }
}
