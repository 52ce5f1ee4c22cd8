//! Good, wrong and hostile values of each kind.

use super::ValueKind::*;
use super::*;

fn check(kind: ValueKind, good: &[&str], bad: &[&str]) {
    for value in good {
        assert_eq!(kind.check(value), Ok(()), "{kind:?}: {value:?}");
    }
    for value in bad {
        assert!(kind.check(value).is_err(), "{kind:?} accepts {value:?}");
    }
    assert_eq!(kind.check(""), Ok(()), "{kind:?}");
}

#[test]
fn flags() {
    let good = ["1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False"];
    check(Flag, &good, &["on", "yes", "tRUE", " true", "true\n", "2", "true;"]);
    assert_eq!((flag("T"), flag("0"), flag("")), (Some(true), Some(false), None));
    assert_eq!(Flag.check("on").unwrap_err(), "write true or false");
}

#[test]
fn numbers() {
    let code = Integer { min: 300, max: 308 };
    check(code, &["300", "308", "+301", "0302"], &["299", "309", "301 ", "3e2", "0x12d", "3_01", "٣٠٠", "-", "301;"]);
    check(Seconds { min: 0 }, &["0", "60"], &["60s", "1m", "-1", "1.5", "9223372036854775808"]);
    check(Seconds { min: i64::MIN }, &["-1"], &["--1"]);
    assert_eq!((integer("-5"), integer(" 5"), integer("5s"), integer("")), (Some(-5), None, None, None));
    assert_eq!(code.check("x").unwrap_err(), "write a whole number without a unit, such as 10");
    assert_eq!(code.check("400").unwrap_err(), "write a whole number from 300 to 308");
    let seconds = Seconds { min: 0 }.check("60s").unwrap_err();
    assert_eq!(seconds, "write a whole number of seconds without a unit, such as 60");
}

#[test]
fn sizes() {
    check(Size, &["0", "8m", "8M", "10G", "512", " 8k "], &["8mb", "m", "-1", "1.5m", "8b", "8 m", "8m\n", "8t"]);
    check(Size, &["17179869183g"], &["17179869184g", "99999999999999999999"]);
    check(BufferSize, &["8k", "1M"], &["1g", "8B"]);
    let read = [("0", 0), ("7", 7), ("8k", 8192), ("1M", 1 << 20), ("2g", 2 << 30), (" 8m ", 8 << 20)];
    for (text, bytes) in read {
        assert_eq!(size(text), Some(bytes), "{text:?}");
    }
    for text in ["", "k", "8b", "8kk", "8 k", "-8", "+8", "ä", "8ä", "17179869184g"] {
        assert_eq!(size(text), None, "{text:?}");
    }
    assert_eq!(
        Size.fault("8b"),
        Some(BadValue::Form("write a size without unit b, such as 8m (units k, m, g)".into()))
    );
    assert_eq!(Size.fault("8x"), Some(BadValue::Type("write a size such as 8m (units k, m, g)".into())));
}

#[test]
fn words() {
    check(OneOf(&["on", "off"]), &["on", " off "], &["On", "ON", "true", "on;", "on off"]);
    check(OneOfAnyCase(&["HTTP", "GRPC"]), &["grpc", "Http", " HTTP "], &["https", "h2c"]);
    check(Containing(&["basic", "digest"]), &["basic", "digest"], &["Basic", "none", "basic\n"]);
    check(Words(&["error", "http_503"]), &["error", "error http_503", " error "], &[" ", "errors", "error,http_503"]);
    assert_eq!(OneOf(&["cookie"]).check("x").unwrap_err(), "write cookie");
    assert_eq!(OneOf(&["on", "off"]).check("x").unwrap_err(), "write on or off");
    assert_eq!(OneOf(&["a", "b", "c"]).check("x").unwrap_err(), "write a, b or c");
}

#[test]
fn texts() {
    use CharacterSet::{Basic, Captures, Url, Variables};
    check(Text(Captures), &["/$2", "app/$1", "http://a.test/$1"], &["/a b", "/${x}", "/a;", "/a?b", "/a\n"]);
    check(Text(Url), &["https://a.test/?b=c,d&e=f", "/elsewhere"], &["https://a.test/$request_uri", "/a b", "/#x"]);
    check(SpacedText(Basic), &["X-Canary", "ns / name"], &["a,b", "a\tb", "ä", "a\r"]);
    check(SpacedText(Variables), &["$remote_user${x}-y"], &["$a/$b", "a.b"]);
    assert_eq!(SpacedText(Variables).check("a;b").unwrap_err(), "write only letters, digits and - _ $ { }, not ';'");
}

#[test]
fn servers() {
    check(ServerName, &["a.test", "$host", " a.test ", r"~^www\d+\.a$"], &["a b", "a;", "a,b", "a\n"]);
    check(ServerNames, &["a.test, *.b.test,.c", "~^(?<x>.+)$".replace(['<', '>'], "").as_str()], &["a.test,b;", "a b"]);
    check(ServiceName, &["web", "a-1"], &["Web", "1a", "a-", "a.b", "ns/web", "ä", "a\n", &"a".repeat(64)]);
}

#[test]
fn urls() {
    check(AbsolutePath, &["/", "/app/$1"], &["app", "http://a.test/", "/a b", "/a\n"]);
    check(RedirectUrl, &["http://a.test", "HTTPS://a.test:8443/b?c=d"], &["/a", "ftp://a.test", "a.test/http:"]);
    check(RedirectUrl, &["https:a"], &["://a", "http://a.test:x/", "https://a test", "https://a.test/$uri", "ht"]);
    let good = ["http://a.test/verify?x=$uri", "https://$host:8443/a", "http://a.test", " http://a.test/ "];
    let bad =
        ["a.test/verify", "/verify", "http:///x", "http://a..b/", "http://:80/", "http://a:x/", "//a.test/", "http://"];
    check(AbsoluteUrl, &good, &bad);
    check(AbsoluteUrl, &[], &["http://a b/", "http://a.test/;", "http://a.test/{x}", "http://a\n", "http://u@a.test/"]);
    let good = ["@denied", "/denied", "/", "a.test/denied", "https://a.test:8443/a/b.html/", "http://a.test"];
    let bad = ["@", "@a b/", "https://", "https:///x", "//a", "/a//b", "a.test:/x", ":80/x", "/a?b", "/a;", "/a\n"];
    check(ErrorPage, &good, &bad);
}

#[test]
fn references() {
    check(Reference, &["users", "ns/users", " ns/users "], &["/users", "ns/", "a/b/c", "ns/a;", "a\nb", "${x}"]);
    check(QualifiedReference, &["ns/users"], &["users", "ns/", "/", "a/b/c"]);
    assert!(matches!(QualifiedReference.fault("users"), Some(BadValue::Form(_))));
    assert!(matches!(QualifiedReference.fault("users;"), Some(BadValue::Type(_))));
}

#[test]
fn lists() {
    let good = ["10.0.0.0/8", "10.0.0.1/8, 2001:db8::/32", "::1,127.0.0.1", " 0.0.0.0/0 ", "10.0.0.0/08"];
    let bad = [
        "10.0.0.0/33",
        "::/129",
        "10.0.0",
        "a.test",
        "10.0.0.0/",
        "10.0.0.0/+8",
        "10.0.0.1,",
        "fe80::1%eth0",
        "010.0.0.1",
    ];
    check(AddressList, &good, &bad);
    check(
        AddressList,
        &[],
        &["10.0.0.1;", "10.0.0.1\nx", "10.0.0.1 10.0.0.2", "10.0.0.1-10.0.0.9", ",", "10.0.0.0/8/8"],
    );
    check(
        StatusCodes,
        &["404", "404,503", "404, 503,"],
        &["399", "600", "4xx", "404 503", "404,,503", ",404", "404;", "٤٠٤"],
    );
    check(HeaderNames, &["X-User", "X-User, X_Email,"], &["X User", "X-User: a", "X-User;", "X-Ü", "X\n"]);
    assert!(items(" a, ,b,c d, ").eq(["a", "b", "c d"]));
    assert_eq!(items("").count(), 0);
}

#[test]
fn origins() {
    let good = ["*", "null", "https://a.test, http://*.b.test:8080", "app://localhost", "https://a.test,", "a.test"];
    let bad =
        ["https://a.test/", "https://a_b.test", "https://a.test;", "https://*", "https://a.test:x", "a\nb", "$x", "ä"];
    check(OriginList, &good, &bad);
}

#[test]
fn other_grammars() {
    let good = ["200 202 401 5m", "5m", "200 1h 30m, 401 10s", "100ms", "1M,1y,"];
    let bad = ["5x", "200", "5", "5m 200", "200 5m x", "2000 5m", "m", "5m;", "5m\n", "5 m"];
    check(CacheDurations, &good, &bad);
    check(CookieDomain, &["off", "a.test b.test", "a  b"], &["a.test", "a b c", " a b", "a b;", "a\nb", "ä b", "on"]);
    let good = ["ALL:!aNULL", "ECDHE+AES:@STRENGTH", "DEFAULT@SECLEVEL=1", "@SECLEVEL=0:A@STRENGTH"];
    check(CipherList, &good, &["@SECLEVEL=6", "@X", "ALL;", "ALL\n", "ALL@", "ä"]);
    check(SubjectPattern, &["CN=x", "CN=^(a|b); c$"], &["x", "cn=x", " CN=x", "CN=x\n", "CN=\0"]);
    check(Any, &["more_set_headers \"a: b\";\n", "\0", "}"], &[]);
}

#[test]
fn a_message_does_not_repeat_a_long_value() {
    let long = "ä;\n".repeat(1_000_000);
    for kind in [AddressList, OriginList, StatusCodes, HeaderNames, CacheDurations, Flag, Size, AbsoluteUrl, ErrorPage]
    {
        assert!(kind.check(&long).unwrap_err().len() < 300, "{kind:?}");
    }
}
