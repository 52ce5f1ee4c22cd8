//! ClientHellos: the server name depends neither on how the bytes arrive nor on which parser reads it, and has the form
//! of the hosts of listeners.

use crate::proxy::connection::client_hello::{CHUNK_SIZE, HelloError, MAX_SIZE, PartialHello, normalize_name};
use crate::proxy::connection::server_name::server_name;

/// The input is what a client sends on a TLS connection.
pub(crate) fn check(input: &[u8]) {
    let input = &input[..input.len().min(2 * MAX_SIZE)];
    let whole = read(input, CHUNK_SIZE);
    if let HelloResult::Accepted(Some(name)) = &whole {
        assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-._".contains(&byte)));
        assert!(!name.is_empty() && name.len() <= 253, "{name} is a name of the DNS");
    }
    if let Some(name) = server_name(&input[..input.len().min(CHUNK_SIZE)]) {
        // rustls also verifies what this parser skips.
        let is_the_same = whole == HelloResult::Accepted(Some(normalize_name(name).to_string()));
        assert!(is_the_same || whole == HelloResult::Invalid, "{name}: {whole:?}");
    }
    for step in [1, 7, 700] {
        let in_parts = read(input, step);
        // Bytes after a ClientHello may be in the same record, and are an error only if they arrive with it.
        if !matches!(whole, HelloResult::Invalid) {
            assert_eq!(in_parts, whole, "the same result if {step} bytes arrive at a time");
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum HelloResult {
    Incomplete,
    Invalid,
    /// With the server name.
    Accepted(Option<String>),
}

fn read(input: &[u8], step: usize) -> HelloResult {
    let mut hello = PartialHello::default();
    for part in input.chunks(step) {
        let start = hello.bytes.len();
        hello.bytes.extend_from_slice(part);
        match hello.accept_from(start) {
            Ok(None) => assert!(hello.bytes.len() < MAX_SIZE, "no more is read"),
            Ok(Some(accepted)) => {
                let name = accepted.client_hello().server_name().map(|name| normalize_name(name).to_string());
                return HelloResult::Accepted(name);
            }
            Err(HelloError::TooLarge | HelloError::Invalid(..)) => return HelloResult::Invalid,
        }
    }
    HelloResult::Incomplete
}
