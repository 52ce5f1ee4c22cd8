//! Tests of words, commands and texts without an end.

use super::*;

fn text(text: &str) -> Piece {
    Piece::Text { text: text.to_owned(), quoted: false }
}

fn quoted(text: &str) -> Piece {
    Piece::Text { text: text.to_owned(), quoted: true }
}

fn variable(name: &str, quoted: bool) -> Piece {
    Piece::Variable { name: name.to_owned(), default: None, quoted }
}

/// The pieces of the words of the only command.
fn words(script: &str) -> Vec<Vec<Piece>> {
    let commands = parse(script).unwrap();
    assert_eq!(commands.len(), 1, "{commands:?}");
    commands.into_iter().flat_map(|command| command.words).map(|word| word.pieces).collect()
}

#[test]
fn words_have_quotes_and_variables() {
    assert_eq!(words("a 'b c'd"), [vec![text("a")], vec![quoted("b c"), text("d")]]);
    assert_eq!(words("a \\\n  b # c\n"), [vec![text("a")], vec![text("b")]]);
    assert_eq!(words("a \\\r\n b"), [vec![text("a")], vec![text("b")]]);
    assert_eq!(
        words("\"x $A ${B} \\$C\\\"\" $D/y"),
        [
            vec![quoted("x "), variable("A", true), quoted(" "), variable("B", true), quoted(" $C\"")],
            vec![variable("D", false), text("/y")]
        ]
    );
    assert_eq!(words("hosts[]=a#b"), [vec![text("hosts[]=a#b")]]);
    assert_eq!(words("''"), [vec![quoted("")]]);
    assert!(matches!(&words("x$(curl \"a)\" (b)) y")[..], [first, _] if matches!(first[1], Piece::Unknown(_))));
    assert!(matches!(&words("p=~/a")[0][1], Piece::Unknown(_)));
    assert!(words("'{a,b}' \"~\"").iter().flatten().all(|piece| matches!(piece, Piece::Text { quoted: true, .. })));
    assert!(words("x{a,b}")[0].iter().any(|piece| matches!(piece, Piece::Unknown(_))));
    let default = Piece::Variable { name: "A".to_owned(), default: Some("b:1".to_owned()), quoted: false };
    assert_eq!(words("${A:-b:1}"), [vec![default]]);
}

#[test]
fn commands_have_lines_and_links() {
    let script = "\n# x\na; b && c ||\nd | e >/dev/null 2>&1\nf <<'END' -x\n$1 text\nEND\n(g)\n h <<< \"i\" &\n";
    let found: Vec<_> = parse(script)
        .unwrap()
        .into_iter()
        .map(|command| {
            let words: Vec<_> = command.words.iter().filter_map(Word::literal).collect();
            (command.line, command.link, words.join(" "), command.input.and_then(|input| input.literal()))
        })
        .collect();
    let expected = [
        (3, Link::Always, "a", None),
        (3, Link::Always, "b", None),
        (3, Link::AfterSuccess, "c", None),
        (4, Link::AfterFailure, "d", None),
        (4, Link::Pipe, "e", None),
        (5, Link::Always, "f -x", Some("$1 text\n")),
        (8, Link::Open, "", None),
        (8, Link::Always, "g", None),
        (8, Link::Close, "", None),
        (9, Link::Always, "h", Some("i")),
    ];
    let expected: Vec<_> = expected
        .into_iter()
        .map(|(line, link, words, input)| (line, link, words.to_owned(), input.map(str::to_owned)))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn texts_without_an_end_are_errors() {
    for (script, line) in [("a\n'b", 2), ("a \"b\nc", 1), ("a <<E\nx\n", 1), ("\n\n$(a", 3), ("`a", 1), ("${a", 1)] {
        assert_eq!(parse(script).unwrap_err().0, line, "{script}");
    }
}
