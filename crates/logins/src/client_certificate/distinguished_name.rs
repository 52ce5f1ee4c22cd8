//! The text of a distinguished name: in the order of the certificate, with the escapes of RFC 4514, so that no value
//! can look like several of them.

use std::fmt::Write;

use x509_parser::asn1_rs::Tag;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

use crate::plugin_api::consumers::hex;

/// The name as text, such as `O=Shop, CN=anna`.
pub(super) fn name_text(name: &X509Name<'_>) -> String {
    let mut text = String::new();
    for (index, set) in name.iter_rdn().enumerate() {
        text.push_str(if index == 0 { "" } else { ", " });
        for (index, attribute) in set.iter().enumerate() {
            text.push_str(if index == 0 { "" } else { " + " });
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    match oid2abbrev(attribute.attr_type(), oid_registry()) {
        Ok(short) => text.push_str(short),
        Err(_) => text.push_str(&attribute.attr_type().to_id_string()),
    }
    text.push('=');
    match value_text(attribute) {
        Some(value) => push_escaped(text, &value),
        // Section 2.4: what is not text is a number sign and hexadecimal digits.
        None => {
            text.push('#');
            text.push_str(&hex(attribute.as_slice()));
        }
    }
}

/// The value, if it is of a type that is text.
fn value_text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::NumericString
        | Tag::VisibleString
        | Tag::PrintableString
        | Tag::GeneralString
        | Tag::T61String
        | Tag::Utf8String
        | Tag::Ia5String => std::str::from_utf8(bytes).ok().map(str::to_owned),
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        _ => None,
    }
}

/// Section 2.4. Controls are escaped, too, because a header cannot contain them.
pub(super) fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (index, character) in value.char_indices() {
        match character {
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', character]),
            '#' if index == 0 => text.push_str("\\#"),
            ' ' if index == 0 || index == last => text.push_str("\\ "),
            '\0'..='\x1f' | '\x7f' => {
                write!(text, "\\{:02X}", u32::from(character)).expect("writing to a String does not fail");
            }
            character => text.push(character),
        }
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{DnType, DnValue};

    use super::*;
    use crate::client_certificate::test_authority::TestAuthority;

    fn subject(names: Vec<(DnType, DnValue)>) -> String {
        let certificate = TestAuthority::new("ca").issue(|params| {
            for (name, value) in names {
                params.distinguished_name.push(name, value);
            }
        });
        name_text(x509_parser::parse_x509_certificate(&certificate).unwrap().1.subject())
    }

    // RFC 4514, section 2.4
    #[test]
    fn a_comma_in_a_name_makes_no_other_subject_of_it() {
        let text = |text: &str| DnValue::Utf8String(text.to_owned());
        let (organization, common) = (|| DnType::OrganizationName, || DnType::CommonName);
        let administrator = subject(vec![(organization(), text("Shop")), (common(), text("admin"))]);
        assert_eq!(administrator, "O=Shop, CN=admin");
        for (value, expected) in [
            ("Shop, CN=admin", "O=Shop\\, CN=admin"),
            ("Shop + CN=admin", "O=Shop \\+ CN=admin"),
            ("Acme, \"Inc.\" <a>; \\", "O=Acme\\, \\\"Inc.\\\" \\<a\\>\\; \\\\"),
            (" a b ", "O=\\ a b\\ "),
            (" ", "O=\\ "),
            ("#a#", "O=\\#a#"),
            ("a\u{0}b\n", "O=a\\00b\\0A"),
            ("Zoë = 1", "O=Zoë = 1"),
        ] {
            assert_eq!(subject(vec![(organization(), text(value))]), expected, "{value:?}");
        }
        let unknown = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99]);
        assert_eq!(subject(vec![(unknown, text("a,b"))]), "1.3.6.1.4.1.99=a\\,b");
    }
}
