//! Queries and bodies as clients write them.

use proptest::prelude::*;

use super::*;

fn one(value: &str) -> Found<'_> {
    Found::One(Cow::Borrowed(value.as_bytes()))
}

#[test]
fn fields_are_found_decoded() {
    let cases = [
        ("a=b", one("b")),
        ("%61=b", one("b")),
        ("a=b%20c+d", one("b c d")),
        ("a=b=c", one("b=c")),
        ("a=%zz%4", one("%zz%4")),
        ("b=a&a=", one("")),
        ("&&a=b&", one("b")),
        ("a", Found::NoText),
        ("a&a", Found::Many),
        ("a=b&a=b", Found::Many),
        ("a=b&a", Found::Many),
        ("A=b&aa=c", Found::Nothing),
        ("", Found::Nothing),
    ];
    for (form, expected) in cases {
        assert_eq!(Form(form.as_bytes()).find(b"a"), expected, "{form}");
    }
}

#[test]
fn the_rest_stays_as_it_was_written() {
    for (uri, expected) in [
        ("/p?a=b", "/p"),
        ("/p?c=%64&a=b&&e", "/p?c=%64&&e"),
        ("/p?%61=b&c", "/p?c"),
        ("/p?b=a", "/p?b=a"),
        ("/p", "/p"),
        ("http://h.test/?a=b&a", "http://h.test/"),
    ] {
        let (mut head, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        remove_from_query(&mut head, |name| name == b"a");
        assert_eq!(head.uri.to_string(), expected, "{uri}");
    }
}

proptest! {
    #[test]
    fn what_was_taken_out_is_not_found_again(form in "[ab&=%6-9+]{0,20}") {
        let form = Form(form.as_bytes());
        let rest = form.without(|name| name == b"a");
        prop_assert_eq!(rest.is_some(), form.find(b"a") != Found::Nothing);
        let rest = rest.unwrap_or_default();
        prop_assert_eq!(Form(&rest).find(b"a"), Found::Nothing);
    }
}
