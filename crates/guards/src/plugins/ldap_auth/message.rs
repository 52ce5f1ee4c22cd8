//! The LDAP messages that a login needs (RFC 4511, section 4): bind, search, and the start of TLS.

use super::ber::{BOOLEAN, ENUMERATED, Elements, INTEGER, Malformed, OCTET_STRING, SEQUENCE, SET, element, integer};

const BIND_REQUEST: u8 = 0x60;
const BIND_RESPONSE: u8 = 0x61;
const SEARCH_REQUEST: u8 = 0x63;
const SEARCH_ENTRY: u8 = 0x64;
const SEARCH_DONE: u8 = 0x65;
const SEARCH_REFERENCE: u8 = 0x73;
const EXTENDED_REQUEST: u8 = 0x77;
const EXTENDED_RESPONSE: u8 = 0x78;
const SIMPLE_PASSWORD: u8 = 0x80;
const REQUEST_NAME: u8 = 0x80;
const EQUALITY_MATCH: u8 = 0xa3;
const PRESENT: u8 = 0x87;
const START_TLS: &[u8] = b"1.3.6.1.4.1.1466.20037";
/// The most entries that a search may return. Two are enough to know that a username is not unique.
const MAX_ENTRIES: i32 = 2;

/// What a search looks for. Values are encoded with their lengths, so they need no escapes.
#[derive(Clone, Copy, Debug)]
pub(super) enum SearchFor<'s> {
    /// The entry itself.
    Base,
    /// The entries below with this value of an attribute.
    Below { attribute: &'s str, value: &'s str },
}

pub(super) fn bind(id: i32, name: &str, password: &[u8]) -> Vec<u8> {
    let name = element(OCTET_STRING, &[name.as_bytes()]);
    let password = element(SIMPLE_PASSWORD, &[password]);
    message(id, &element(BIND_REQUEST, &[&integer(INTEGER, 3), &name, &password]))
}

/// A search that returns these attributes, at least one.
pub(super) fn search(id: i32, base: &str, what: SearchFor<'_>, attributes: &[&str]) -> Vec<u8> {
    let (scope, filter) = match what {
        SearchFor::Base => (0, element(PRESENT, &[b"objectClass"])),
        SearchFor::Below { attribute, value } => {
            let [attribute, value] = [attribute, value].map(|text| element(OCTET_STRING, &[text.as_bytes()]));
            (2, element(EQUALITY_MATCH, &[&attribute, &value]))
        }
    };
    let attributes: Vec<u8> = attributes.iter().flat_map(|name| element(OCTET_STRING, &[name.as_bytes()])).collect();
    let request = element(
        SEARCH_REQUEST,
        &[
            &element(OCTET_STRING, &[base.as_bytes()]),
            &integer(ENUMERATED, scope),
            // Aliases are not followed.
            &integer(ENUMERATED, 0),
            &integer(INTEGER, MAX_ENTRIES),
            // No limit of time: the connection has one.
            &integer(INTEGER, 0),
            &element(BOOLEAN, &[&[0]]),
            &filter,
            &element(SEQUENCE, &[&attributes]),
        ],
    );
    message(id, &request)
}

pub(super) fn start_tls(id: i32) -> Vec<u8> {
    message(id, &element(EXTENDED_REQUEST, &[&element(REQUEST_NAME, &[START_TLS])]))
}

fn message(id: i32, operation: &[u8]) -> Vec<u8> {
    element(SEQUENCE, &[&integer(INTEGER, id), operation])
}

/// A message of the server.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ServerMessage<'m> {
    /// Zero for a notice without a request.
    pub(super) id: u32,
    pub(super) operation: ServerOperation<'m>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum ServerOperation<'m> {
    /// The end of a request.
    Done(DirectoryResult),
    Entry(DirectoryEntry<'m>),
    /// A part of the directory that another server has. It is not followed.
    Reference,
}

/// The result of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct DirectoryResult {
    pub(super) code: u32,
    /// The explanation of the server.
    pub(super) text: String,
}

/// An entry with the attributes that were requested.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct DirectoryEntry<'m> {
    pub(super) name: &'m str,
    /// Each with its values.
    pub(super) attributes: Vec<(&'m str, Vec<&'m str>)>,
}

impl<'m> ServerMessage<'m> {
    /// Parses the content of a message.
    pub(super) fn parse(content: &'m [u8]) -> Result<Self, Malformed> {
        let mut elements = Elements(content);
        let id = elements.number(INTEGER)?;
        let (tag, content) = elements.next()?;
        let operation = match tag {
            BIND_RESPONSE | SEARCH_DONE | EXTENDED_RESPONSE => ServerOperation::Done(parse_result(content)?),
            SEARCH_ENTRY => ServerOperation::Entry(parse_entry(content)?),
            SEARCH_REFERENCE => ServerOperation::Reference,
            _ => return Err(Malformed),
        };
        Ok(ServerMessage { id, operation })
    }
}

fn parse_result(content: &[u8]) -> Result<DirectoryResult, Malformed> {
    let mut elements = Elements(content);
    let code = elements.number(ENUMERATED)?;
    elements.expect(OCTET_STRING)?;
    let text = String::from_utf8_lossy(elements.expect(OCTET_STRING)?).into_owned();
    Ok(DirectoryResult { code, text })
}

fn parse_entry(content: &[u8]) -> Result<DirectoryEntry<'_>, Malformed> {
    let mut elements = Elements(content);
    let name = std::str::from_utf8(elements.expect(OCTET_STRING)?).map_err(|_| Malformed)?;
    let mut listed = Elements(elements.expect(SEQUENCE)?);
    let mut attributes = Vec::new();
    while !listed.is_empty() {
        let mut attribute = Elements(listed.expect(SEQUENCE)?);
        let name = std::str::from_utf8(attribute.expect(OCTET_STRING)?).map_err(|_| Malformed)?;
        let (mut set, mut values) = (Elements(attribute.expect(SET)?), Vec::new());
        while !set.is_empty() {
            // A value that is not text is no name of a user or a group.
            values.extend(std::str::from_utf8(set.expect(OCTET_STRING)?).ok());
        }
        attributes.push((name, values));
    }
    Ok(DirectoryEntry { name, attributes })
}

impl DirectoryResult {
    pub(super) fn is_success(&self) -> bool {
        self.code == 0
    }

    /// Whether a search ended because there are more entries than requested.
    pub(super) fn is_size_limit(&self) -> bool {
        self.code == 4
    }

    /// Whether a bind failed because of the username or the password, including accounts that may not log in: no such
    /// object, invalid DN, inappropriate authentication, invalid credentials, insufficient rights, a violated
    /// constraint such as a locked account, and unwilling to perform.
    pub(super) fn is_wrong_login(&self) -> bool {
        matches!(self.code, 19 | 32 | 34 | 48 | 49 | 50 | 53)
    }

    /// The name of the code (RFC 4511, appendix A), for messages.
    pub(super) fn name(&self) -> &'static str {
        match self.code {
            1 => "operationsError",
            2 => "protocolError",
            3 => "timeLimitExceeded",
            4 => "sizeLimitExceeded",
            7 => "authMethodNotSupported",
            8 => "strongerAuthRequired",
            10 => "referral",
            13 => "confidentialityRequired",
            16 => "noSuchAttribute",
            18 => "inappropriateMatching",
            32 => "noSuchObject",
            34 => "invalidDNSyntax",
            48 => "inappropriateAuthentication",
            49 => "invalidCredentials",
            50 => "insufficientAccessRights",
            51 => "busy",
            52 => "unavailable",
            53 => "unwillingToPerform",
            _ => "an error",
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 4511, section 4.2
    #[test]
    fn requests_are_encoded() {
        assert_eq!(bind(1, "cn=a", b"pw"), b"0\x12\x02\x01\x01`\r\x02\x01\x03\x04\x04cn=a\x80\x02pw");
        assert_eq!(start_tls(2), b"0\x1d\x02\x01\x02w\x18\x80\x161.3.6.1.4.1.1466.20037");
        let base = search(3, "dc=x", SearchFor::Base, &["memberOf"]);
        let expected =
            b"03\x02\x01\x03c.\x04\x04dc=x\n\x01\0\n\x01\0\x02\x01\x02\x02\x01\0\x01\x01\0\x87\x0bobjectClass";
        assert_eq!(base, [&expected[..], b"0\n\x04\x08memberOf"].concat());
        let below = search(4, "dc=x", SearchFor::Below { attribute: "uid", value: "a)(*" }, &["uid", "cn"]);
        let filter = b"\xa3\x0b\x04\x03uid\x04\x04a)(*0\x09\x04\x03uid\x04\x02cn";
        assert!(below.ends_with(filter), "{below:?}");
        assert_eq!(below[13..16], [10, 1, 2], "the whole subtree");
    }

    #[test]
    fn messages_of_servers_are_parsed() {
        let done = |code, text: &str| ServerOperation::Done(DirectoryResult { code, text: text.to_owned() });
        let entry = |name, attributes| ServerOperation::Entry(DirectoryEntry { name, attributes });
        type Parsed = Result<(u32, ServerOperation<'static>), Malformed>;
        let cases: [(&[u8], Parsed); 9] = [
            (b"\x02\x01\x01a\x07\n\x01\0\x04\0\x04\0", Ok((1, done(0, "")))),
            (b"\x02\x01\x01a\x09\n\x01\x31\x04\0\x04\x02no", Ok((1, done(49, "no")))),
            (b"\x02\x01\0x\x07\n\x01\x34\x04\0\x04\0", Ok((0, done(52, "")))),
            (b"\x02\x01\x02e\x07\n\x01\x04\x04\0\x04\0", Ok((2, done(4, "")))),
            (b"\x02\x01\x02d\x06\x04\x02cn0\0", Ok((2, entry("cn", vec![])))),
            (
                b"\x02\x01\x02d\x14\x04\x02cn0\x0e0\x0c\x04\x01m1\x07\x04\x01a\x04\x02bc",
                Ok((2, entry("cn", vec![("m", vec!["a", "bc"])]))),
            ),
            (b"\x02\x01\x02s\x03\x04\x01a", Ok((2, ServerOperation::Reference))),
            (b"\x02\x01\x02`\0", Err(Malformed)),
            (b"\x02\x01\x02a\x02\n\0", Err(Malformed)),
        ];
        for (bytes, expected) in cases {
            let found = ServerMessage::parse(bytes).map(|message| (message.id, message.operation));
            assert_eq!(found, expected, "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            tag in prop_oneof![Just(b'a'), Just(b'd'), Just(b'e'), Just(b's'), any::<u8>()],
            bytes in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            drop(ServerMessage::parse(&bytes));
            let message = [&integer(INTEGER, 1)[..], &element(tag, &[&bytes])].concat();
            drop(ServerMessage::parse(&message));
        }
    }
}
