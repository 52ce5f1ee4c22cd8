//! Bad input that is generated, since it is too large or not text that a repository should contain.

use super::Files;
use crate::harness::objects::route;

/// Names of generated cases. Their expected output is in folders, as for other cases.
pub(super) const NAMES: &[&str] = &[
    "binary",
    "large-document",
    "many-documents",
    "not-utf8",
    "nul-byte",
    "deep",
    "utf16",
    "windows",
    "many-problems",
];

/// The files of a generated case; none for other names.
pub(super) fn files(name: &str) -> Files {
    let valid_route = |name: &str| route("good", name, "echo");
    let bytes = match name {
        // The start of an ELF program.
        "binary" => b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\xff\xfe\x80\x00".to_vec(),
        "not-utf8" => {
            let mut bytes = valid_route("bad").into_bytes();
            bytes.extend_from_slice(b"# caf\xe9 in Latin-1\n");
            bytes
        }
        // UTF-16, which some editors call "Unicode".
        "utf16" => [0xfeff].into_iter().chain(valid_route("bad").encode_utf16()).flat_map(u16::to_le_bytes).collect(),
        // A byte order mark and CRLF are accepted.
        "windows" => format!("\u{feff}{}", valid_route("windows").replace('\n', "\r\n")).into_bytes(),
        "many-problems" => {
            let routes = (100..122).map(|number| route("good", &format!("bad-{number}"), "gone"));
            routes.collect::<Vec<_>>().join("---\n").into_bytes()
        }
        "nul-byte" => valid_route("bad").replace("/bad", "/b\0ad").into_bytes(),
        "deep" => format!("a: {}{}\n", "[".repeat(5000), "]".repeat(5000)).into_bytes(),
        "large-document" => {
            let data = "x".repeat(10 * 1024 * 1024);
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: large\ndata:\n  large: {data}\n").into_bytes()
        }
        // 10 MB of valid documents.
        "many-documents" => {
            let data = "y".repeat(1024 * 1024);
            let maps = (0..10).map(|number| {
                format!(
                    "---\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: map-{number}\ndata:\n  large: {data}\n"
                )
            });
            (maps.collect::<String>() + "---\n" + &valid_route("many")).into_bytes()
        }
        _ => return Files::new(),
    };
    Files::from([("bad.yaml".to_owned(), bytes)])
}
