//! Tests of finding and removing fields in queries and forms.

use proptest::prelude::*;

use super::*;

fn single(value: &str) -> FieldValue<'_> {
    FieldValue::Single(Cow::Borrowed(value.as_bytes()))
}

#[test]
fn fields_are_found_decoded() {
    let cases = [
        ("a=b", single("b")),
        ("%61=b", single("b")),
        ("a=b%20c+d", single("b c d")),
        ("a=b=c", single("b=c")),
        ("a=%zz%4", single("%zz%4")),
        ("b=a&a=", single("")),
        ("&&a=b&", single("b")),
        ("a", FieldValue::NotString),
        ("a&a", FieldValue::Multiple),
        ("a=b&a=b", FieldValue::Multiple),
        ("a=b&a", FieldValue::Multiple),
        ("A=b&aa=c", FieldValue::Absent),
        ("", FieldValue::Absent),
    ];
    for (form, expected) in cases {
        assert_eq!(UrlEncodedForm(form.as_bytes()).find(b"a"), expected, "{form}");
    }
}

#[test]
fn removing_a_field_keeps_the_meaning_of_the_others() {
    for (uri, expected) in [
        ("/p?a=b", "/p"),
        ("/p?c=%64&a=b&&e", "/p?c=d&&e"),
        ("/p?c=v%61l%31&%61=b&e=%2541%26%20+%c3%A4%7e%4", "/p?c=val1&e=%2541%26%20+%c3%A4~%4"),
        ("/p?b=%64", "/p?b=%64"),
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
    fn removed_fields_are_not_found(form in "[ab&=%6-9+]{0,20}") {
        let form = UrlEncodedForm(form.as_bytes());
        let rest = form.without(|name| name == b"a");
        prop_assert_eq!(rest.is_some(), form.find(b"a") != FieldValue::Absent);
        let rest = rest.unwrap_or_default();
        prop_assert_eq!(UrlEncodedForm(&rest).find(b"a"), FieldValue::Absent);
    }
}
