//! Bad input that is too large or unsuitable for a file in the repository.

use super::Files;
use crate::harness::objects::route;

/// Generated cases; their expected output is in folders like that of all others.
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

pub(super) fn files(name: &str) -> Files {
    let good = |name: &str| route("good", name, "echo");
    let bytes = match name {
        // The start of an ELF program.
        "binary" => b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x03\0\x3e\0\xff\xfe\x80\x00".to_vec(),
        "not-utf8" => {
            let mut bytes = good("bad").into_bytes();
            bytes.extend_from_slice(b"# caf\xe9 in Latin-1\n");
            bytes
        }
        // UTF-16, which some editors call "Unicode".
        "utf16" => [0xfeff].into_iter().chain(good("bad").encode_utf16()).flat_map(u16::to_le_bytes).collect(),
        // A byte order mark and CRLF are accepted.
        "windows" => format!("\u{feff}{}", good("windows").replace('\n', "\r\n")).into_bytes(),
        "many-problems" => {
            let routes = (100..122).map(|number| route("good", &format!("bad-{number}"), "gone"));
            routes.collect::<Vec<_>>().join("---\n").into_bytes()
        }
        "nul-byte" => good("bad").replace("/bad", "/b\0ad").into_bytes(),
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
            (maps.collect::<String>() + "---\n" + &good("many")).into_bytes()
        }
        _ => return Files::new(),
    };
    Files::from([("bad.yaml".to_owned(), bytes)])
}
