//! `sub_filter` in snippets of the dialect nginx: which bodies it changes, next to an Ingress without it, to one whose
//! snippet is rejected, and to one of another namespace.

use portico::api::ingress_nginx::PREFIX;

use super::nginx_guards::{CLASS, WITH_CONFIG_MAP, config_map, get, ingress, rule, start};
use super::nginx_retries::{backend, service};
use crate::harness::site::Site;

const HTML: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\netag: \"a\"\r\ncontent-length: 14\r\n\r\n<head>A</head>";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ntransfer-encoding: chunked\r\n\r\n3\r\n<he\r\n3\r\nad>\r\n0\r\n\r\n";
const PLAIN: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: 6\r\n\r\n<head>";
const COMPRESSED: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-encoding: br\r\ncontent-length: 6\r\n\r\n<head>";

#[test]
fn only_text_of_the_ingress_is_replaced() {
    let large = format!("<head>{}", "x".repeat(1 << 20));
    let large = format!("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: {}\r\n\r\n{large}", large.len());
    let snippet = |directives: &str| format!("{PREFIX}configuration-snippet: \"{directives}\"");
    let edits = snippet("sub_filter <head> '<head><!-- $host -->';");
    for (response, expected) in [
        (HTML, "<head><!-- edited.example -->A</head>"),
        (CHUNKED, "<head><!-- edited.example -->"),
        (PLAIN, "<head>"),
        (COMPRESSED, "<head>"),
        (large.leak(), "<head>x"),
    ] {
        let site = Site::new();
        let mut objects = CLASS.to_owned() + &config_map("") + &service(&[backend(response)]);
        for (name, annotations) in [
            ("edited", edits.clone()),
            ("plain", String::new()),
            // One directive that is not supported takes the others out of effect.
            ("rejected", snippet("sub_filter <head> x; root /a;")),
            ("closed", snippet("sub_filter <head> x; deny all; root /a;")),
        ] {
            objects += &ingress("default", name, "01", &annotations, &rule(&format!("{name}.example"), "/"));
        }
        // It has no Service there, and does not get that of the other namespace.
        objects += &ingress("other", "edited", "02", &edits, &rule("foreign.example", "/"));
        site.save("manifests/all.yaml", &objects);
        let (program, address) = start(&site, &WITH_CONFIG_MAP);
        let edited = get(&address, "edited.example", "/", "accept-encoding: gzip\r\n");
        let start_of_body: String = edited.body.chars().take(expected.len()).collect();
        assert_eq!((edited.status, start_of_body.as_str()), (200, expected));
        for host in ["plain.example", "rejected.example"] {
            let whole = get(&address, host, "/", "");
            assert!(whole.body.starts_with("<head>"), "{host}: {:.40}", whole.body);
        }
        assert_eq!(get(&address, "closed.example", "/", "").status, 503);
        assert_eq!(get(&address, "foreign.example", "/", "").status, 503);
        program.stop().expect_success();
    }
}
