//! Names and label values made from a Gateway's name, which may be longer than they may.

/// The name of a Gateway's Service, as the Gateway API wants generated names to begin: `GATEWAY-CLASS`.
///
/// A Service's name is a single label of at most 63 characters that begins with a letter; a Gateway's name may have dots,
/// begin with a digit, and be four times as long. What had to be changed gets a hash of the whole, so that no two Gateways
/// end up with one name.
pub(super) fn service(gateway: &str, class: &str) -> String {
    let plain = format!("{gateway}-{class}");
    let letter = plain.starts_with(|c: char| c.is_ascii_lowercase());
    if letter && plain.len() <= LONGEST && !plain.contains('.') {
        return plain;
    }
    service_apart(gateway, class)
}

/// Another name for the same, if somebody else has that one: two Gateways and their classes may be joined to one text.
pub(super) fn service_apart(gateway: &str, class: &str) -> String {
    let start = if gateway.starts_with(|c: char| c.is_ascii_lowercase()) { "" } else { "gateway-" };
    shortened(&format!("{start}{gateway}-{class}").replace('.', "-"), &format!("{gateway}/{class}"))
}

/// The value of a label that names an object.
pub(super) fn label(name: &str) -> String {
    if name.len() <= LONGEST { name.to_owned() } else { shortened(name, name) }
}

/// `text` cut so that a hash of `whole` fits behind it.
fn shortened(text: &str, whole: &str) -> String {
    let kept: String = text.chars().take(LONGEST - HASH - 1).collect();
    format!("{}-{:0HASH$x}", kept.trim_end_matches(['-', '.', '_']), hash(whole) >> (64 - 4 * HASH))
}

/// FNV-1a of 64 bits. Not for what strangers could profit from making equal, but the same for ever: it is in names.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// Characters of a label of the domain name system, and of a label's value.
const LONGEST: usize = 63;
/// Hexadecimal digits of a hash in a name.
const HASH: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_whatever_the_gateway_is_called() {
        let long = "g".repeat(253);
        let dotted = format!("{}.{}", "g".repeat(51), "g".repeat(200));
        let (most, more) = ("g".repeat(55), "g".repeat(56));
        // What the name is, or how it begins before a hash.
        let cases = [
            ("web", Ok("web-portico".to_owned())),
            ("web-example", Ok("web-example-portico".to_owned())),
            (&most, Ok(format!("{most}-portico"))),
            (&more, Err("g".repeat(52))),
            (&long, Err("g".repeat(52))),
            (&dotted, Err("g".repeat(51))),
            ("web.example", Err("web-example-portico".to_owned())),
            ("1", Err("gateway-1-portico".to_owned())),
        ];
        for (gateway, expected) in cases {
            let name = service(gateway, "portico");
            assert!(name.len() <= 63, "{name}");
            match expected {
                Ok(expected) => assert_eq!(name, expected),
                Err(start) => {
                    let hash = name.strip_prefix(&*start).and_then(|rest| rest.strip_prefix('-')).unwrap_or(&name);
                    assert!(hash.len() == HASH && hash.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
                }
            }
        }
        assert_ne!(service(&long, "a"), service(&long, "b"));
        assert_ne!(service("a.b", "c"), service("a-b", "c"));
        assert_eq!(service("a-b", "c"), service("a", "b-c"));
        assert_ne!(service_apart("a-b", "c"), service_apart("a", "b-c"));
    }

    #[test]
    fn label_values_fit() {
        let (long, dotted) = ("g".repeat(253), format!("{}.{}", "g".repeat(51), "g".repeat(20)));
        assert_eq!(label("web.example"), "web.example");
        for name in [long.as_str(), &dotted] {
            let value = label(name);
            assert!(value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{value}");
        }
        assert_ne!(label(&long), label(&"g".repeat(252)));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
