//! The server name in the first bytes of a TLS connection, without allocations. It selects the backend of connections
//! that pass through, for which rustls would read much more of the ClientHello than its name.
//!
//! Whatever is unusual has no name here, and is left to rustls.

use rustls::pki_types::DnsName;

/// The server name of a ClientHello (RFC 8446, 4.1.2, and RFC 6066, 3), as the client sent it. `None` unless the bytes
/// begin with a whole ClientHello that fills one record and has exactly one server name, which is a name of the DNS.
pub(in crate::proxy) fn server_name(bytes: &[u8]) -> Option<&str> {
    let mut bytes = Input(bytes);
    let [HANDSHAKE, 3, _] = bytes.array()? else { return None };
    let mut record = bytes.vector::<2>()?;
    let [CLIENT_HELLO] = record.array()? else { return None };
    let mut hello = record.vector::<3>()?;
    // The version, the random bytes, the session ID, the cipher suites and the compression methods.
    hello.array::<34>()?;
    hello.vector::<1>()?;
    hello.vector::<2>()?;
    hello.vector::<1>()?;
    let mut extensions = hello.vector::<2>()?;
    if !record.is_empty() || !hello.is_empty() {
        return None;
    }
    let mut name = None;
    while !extensions.is_empty() {
        let kind = extensions.array()?;
        let extension = extensions.vector::<2>()?;
        if kind == SERVER_NAME {
            let is_first = name.replace(host_name(extension)?).is_none();
            is_first.then_some(())?;
        }
    }
    name
}

/// The only name of the extension.
fn host_name(mut extension: Input<'_>) -> Option<&str> {
    let mut names = extension.vector::<2>()?;
    let [HOST_NAME] = names.array()? else { return None };
    let Input(name) = names.vector::<2>()?;
    if !names.is_empty() || !extension.is_empty() {
        return None;
    }
    DnsName::try_from(name).ok()?;
    std::str::from_utf8(name).ok()
}

/// Bytes that are yet to be parsed.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (array, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*array)
    }

    /// A vector whose length has this number of bytes.
    fn vector<const N: usize>(&mut self) -> Option<Input<'a>> {
        let length = self.array::<N>()?.into_iter().fold(0, |length, byte| length << 8 | usize::from(byte));
        let (vector, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(Input(vector))
    }
}

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_NAME: [u8; 2] = [0, 0];
const HOST_NAME: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    fn vector<const N: usize>(content: &[u8]) -> Vec<u8> {
        let length = content.len().to_be_bytes();
        [&length[length.len() - N..], content].concat()
    }

    fn name_extension(names: &[(u8, &str)]) -> Vec<u8> {
        let names = names.iter().map(|(kind, name)| [&[*kind][..], &vector::<2>(name.as_bytes())].concat());
        [&SERVER_NAME[..], &vector::<2>(&vector::<2>(&names.collect::<Vec<_>>().concat()))].concat()
    }

    /// A record with a ClientHello with these extensions.
    fn hello(extensions: &[Vec<u8>]) -> Vec<u8> {
        let fields = [
            [3; 34].to_vec(),
            vector::<1>(&[7; 32]),
            vector::<2>(&[0x13, 1]),
            vector::<1>(&[0]),
            vector::<2>(&extensions.concat()),
        ];
        [&[HANDSHAKE, 3, 1][..], &vector::<2>(&[&[CLIENT_HELLO][..], &vector::<3>(&fields.concat())].concat())].concat()
    }

    #[test]
    fn name_is_found_among_other_extensions() {
        let other = |kind: u8, size: usize| [&[0, kind][..], &vector::<2>(&vec![1; size])].concat();
        let bytes = hello(&[other(43, 3), name_extension(&[(0, "A.example")]), other(51, 1216), other(21, 0)]);
        assert_eq!(server_name(&bytes), Some("A.example"));
        assert_eq!(server_name(&[&bytes[..], b"more"].concat()), Some("A.example"), "bytes that follow are ignored");
        for length in 0..bytes.len() {
            assert_eq!(server_name(&bytes[..length]), None, "the first {length} bytes are no ClientHello");
        }
    }

    #[test]
    fn unusual_hellos_have_no_name() {
        let name = name_extension(&[(0, "a.example")]);
        let usual = hello(std::slice::from_ref(&name));
        assert_eq!(server_name(&usual), Some("a.example"));
        let changed = |index: usize, byte: u8| {
            let mut bytes = usual.clone();
            bytes[index] = byte;
            bytes
        };
        let cases = [
            ("no name", hello(&[])),
            ("two extensions", hello(&[name.clone(), name])),
            ("two names", hello(&[name_extension(&[(0, "a.example"), (0, "b.example")])])),
            ("no names", hello(&[name_extension(&[])])),
            ("another kind of name", hello(&[name_extension(&[(1, "a.example")])])),
            ("an empty name", hello(&[name_extension(&[(0, "")])])),
            ("an address", hello(&[name_extension(&[(0, "192.0.2.1")])])),
            ("a name that is not one of the DNS", hello(&[name_extension(&[(0, "a example")])])),
            ("bytes after the extensions", hello(&[vec![0; 3]])),
            ("an alert", changed(0, 21)),
            ("another version", changed(1, 2)),
            ("another message", changed(5, 2)),
            ("a message that is longer than its record", changed(8, usual[8] + 1)),
            ("a message that ends before its record", changed(8, usual[8] - 1)),
        ];
        for (what, bytes) in cases {
            assert_eq!(server_name(&bytes), None, "{what}");
        }
    }
}
