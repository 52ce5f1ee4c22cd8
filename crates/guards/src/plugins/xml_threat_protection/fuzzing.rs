//! Fuzzing of the XML scanner: an accepted document declares and expands nothing, has one root, and stays accepted
//! inside another element.

use crate::plugin_formats::xml::scanner::{XmlLimits, scan};

/// Limits that small inputs do not exceed.
pub(super) const WIDE: XmlLimits = XmlLimits {
    namespace_aware: true,
    depth: 1000,
    children: 10_000,
    attributes: 1000,
    namespaces: 1000,
    text: 1 << 20,
    attribute: 1 << 20,
    comment: 1 << 20,
    local_name: 1 << 20,
    prefix: 1 << 20,
    namespace_uri: 1 << 20,
    target: 1 << 20,
    instruction: 1 << 20,
    token: 1 << 20,
};

pub(crate) fn xml_threats(input: &[u8]) {
    let is_accepted = scan(input, &WIDE).is_ok();
    let unaware = XmlLimits { namespace_aware: false, ..WIDE };
    // Names without a meaning of prefixes are only checked less.
    assert!(!is_accepted || scan(input, &unaware).is_ok());
    let shallow = XmlLimits { depth: 2, children: 3, attributes: 1, text: 8, ..WIDE };
    assert!(is_accepted || scan(input, &shallow).is_err(), "a narrower limit accepts less");
    let has_prolog = input.starts_with(b"<?xml") || input.starts_with(b"\xEF\xBB\xBF");
    if is_accepted && !has_prolog {
        let wrapped = [b"<w>", input, b"</w>"].concat();
        assert!(scan(&wrapped, &WIDE).is_ok());
        assert!(scan(&[input, b"<w/>"].concat(), &WIDE).is_err(), "a document has one root");
        assert!(scan(&[b"<!DOCTYPE a>", input].concat(), &WIDE).is_err());
    }
}
