//! The text of a distinguished name as nginx writes it: RFC 2253, so the most specific part comes first, with the
//! abbreviations and the escapes of OpenSSL. All characters are ASCII.

use std::fmt::Write;

use x509_parser::asn1_rs::{Any, Tag};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// The name as text, such as `CN=anna,O=Shop`.
pub(super) fn name_text(name: &X509Name<'_>) -> String {
    let sets: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for set in sets.into_iter().rev() {
        let attributes: Vec<_> = set.iter().collect();
        for (index, attribute) in attributes.into_iter().rev().enumerate() {
            let is_first = text.is_empty();
            text.push_str(match index {
                _ if is_first => "",
                0 => ",",
                _ => "+",
            });
            push_attribute(&mut text, attribute);
        }
    }
    text
}

fn push_attribute(text: &mut String, attribute: &AttributeTypeAndValue<'_>) {
    let id = attribute.attr_type().to_id_string();
    let abbreviation = ABBREVIATIONS.iter().find(|(known, _)| *known == id);
    text.push_str(abbreviation.map_or(&id, |(_, abbreviation)| abbreviation));
    text.push('=');
    // The type of an unknown attribute is not known to be text.
    let value = abbreviation.and_then(|_| value_text(attribute));
    match value {
        Some(value) => push_escaped(text, &value),
        None => push_encoding(text, attribute.attr_value()),
    }
}

/// The value, if it is of a type that is text.
fn value_text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    let bytes = attribute.as_slice();
    match attribute.attr_value().tag() {
        Tag::NumericString | Tag::VisibleString | Tag::PrintableString | Tag::Utf8String | Tag::Ia5String => {
            std::str::from_utf8(bytes).ok().map(str::to_owned)
        }
        // In practice, its bytes are those of ISO 8859-1.
        Tag::T61String => Some(bytes.iter().copied().map(char::from).collect()),
        Tag::BmpString if bytes.len().is_multiple_of(2) => {
            let units = bytes.chunks_exact(2).map(|pair| u16::from_be_bytes([pair[0], pair[1]]));
            char::decode_utf16(units).collect::<Result<_, _>>().ok()
        }
        Tag::UniversalString if bytes.len().is_multiple_of(4) => {
            let units = bytes.chunks_exact(4).map(|unit| u32::from_be_bytes([unit[0], unit[1], unit[2], unit[3]]));
            units.map(char::from_u32).collect()
        }
        _ => None,
    }
}

fn push_escaped(text: &mut String, value: &str) {
    let last = value.len().saturating_sub(1);
    for (index, byte) in value.bytes().enumerate() {
        match byte {
            b',' | b'+' | b'"' | b'\\' | b'<' | b'>' | b';' => text.extend(['\\', char::from(byte)]),
            b'#' if index == 0 => text.push_str("\\#"),
            b' ' if index == 0 || index == last => text.push_str("\\ "),
            0x20..=0x7e => text.push(char::from(byte)),
            _ => {
                text.push('\\');
                push_hex(text, byte);
            }
        }
    }
}

/// A number sign, and the DER encoding in hexadecimal digits.
fn push_encoding(text: &mut String, value: &Any<'_>) {
    text.push('#');
    let tag = u8::try_from(value.tag().0).unwrap_or(u8::MAX) & 0x1f;
    push_hex(text, (value.class() as u8) << 6 | u8::from(value.header.is_constructed()) << 5 | tag);
    let length = value.data.len();
    match u8::try_from(length) {
        Ok(short @ ..=0x7f) => push_hex(text, short),
        _ => {
            let bytes = length.to_be_bytes();
            let bytes = &bytes[bytes.iter().take_while(|byte| **byte == 0).count()..];
            push_hex(text, 0x80 | u8::try_from(bytes.len()).unwrap_or_default());
            bytes.iter().for_each(|byte| push_hex(text, *byte));
        }
    }
    value.data.iter().for_each(|byte| push_hex(text, *byte));
}

fn push_hex(text: &mut String, byte: u8) {
    write!(text, "{byte:02X}").expect("writing to a String does not fail");
}

const ABBREVIATIONS: &[(&str, &str)] = &[
    ("0.9.2342.19200300.100.1.1", "UID"),
    ("0.9.2342.19200300.100.1.25", "DC"),
    ("1.2.840.113549.1.9.1", "emailAddress"),
    ("1.2.840.113549.1.9.2", "unstructuredName"),
    ("1.3.6.1.4.1.311.60.2.1.1", "jurisdictionL"),
    ("1.3.6.1.4.1.311.60.2.1.2", "jurisdictionST"),
    ("1.3.6.1.4.1.311.60.2.1.3", "jurisdictionC"),
    ("2.5.4.10", "O"),
    ("2.5.4.11", "OU"),
    ("2.5.4.12", "title"),
    ("2.5.4.13", "description"),
    ("2.5.4.15", "businessCategory"),
    ("2.5.4.17", "postalCode"),
    ("2.5.4.3", "CN"),
    ("2.5.4.4", "SN"),
    ("2.5.4.41", "name"),
    ("2.5.4.42", "GN"),
    ("2.5.4.43", "initials"),
    ("2.5.4.44", "generationQualifier"),
    ("2.5.4.46", "dnQualifier"),
    ("2.5.4.5", "serialNumber"),
    ("2.5.4.6", "C"),
    ("2.5.4.65", "pseudonym"),
    ("2.5.4.7", "L"),
    ("2.5.4.8", "ST"),
    ("2.5.4.9", "street"),
    ("2.5.4.97", "organizationIdentifier"),
];

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DistinguishedName, DnType, DnValue, KeyPair};

    use super::*;

    fn subject(names: Vec<(DnType, DnValue)>) -> String {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        for (name, value) in names {
            params.distinguished_name.push(name, value);
        }
        let certificate = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        name_text(x509_parser::parse_x509_certificate(certificate.der()).unwrap().1.subject())
    }

    fn text(text: &str) -> DnValue {
        DnValue::Utf8String(text.to_owned())
    }

    #[test]
    fn most_specific_part_comes_first() {
        let names = vec![
            (DnType::CountryName, DnValue::PrintableString("DE".try_into().unwrap())),
            (DnType::OrganizationName, text("Shop")),
            (DnType::CommonName, text("anna")),
        ];
        assert_eq!(subject(names), "CN=anna,O=Shop,C=DE");
        assert_eq!(subject(Vec::new()), "");
    }

    // RFC 2253, section 2.4
    #[test]
    fn no_value_looks_like_two() {
        for (value, expected) in [
            ("Shop,CN=admin", "O=Shop\\,CN=admin"),
            ("Shop+CN=admin", "O=Shop\\+CN=admin"),
            ("\"<a>;\\", "O=\\\"\\<a\\>\\;\\\\"),
            (" a b ", "O=\\ a b\\ "),
            ("#a#", "O=\\#a#"),
            ("a\r\nb\u{0}", "O=a\\0D\\0Ab\\00"),
            ("Zoë", "O=Zo\\C3\\AB"),
        ] {
            assert_eq!(subject(vec![(DnType::OrganizationName, text(value))]), expected, "{value:?}");
        }
        let unknown = DnType::CustomDnType(vec![1, 3, 6, 1, 4, 1, 99]);
        assert_eq!(subject(vec![(unknown, text("a,b"))]), "1.3.6.1.4.1.99=#0C03612C62");
    }
}
