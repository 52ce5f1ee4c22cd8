//! Names of Services and values of labels: derived from the names of Gateways and classes, within the API's limits.

/// The name of a Gateway's Service: `GATEWAY-CLASS`. The Gateway API requires generated names to start with that.
///
/// A Service's name is a single DNS label of at most 63 characters that starts with a letter; a Gateway's name may
/// contain dots, start with a digit and be four times as long. A changed name gets a hash of the original, so that no
/// two Gateways share one.
pub(super) fn service_name(gateway: &str, class: &str) -> String {
    let plain = format!("{gateway}-{class}");
    let starts_with_letter = plain.starts_with(|c: char| c.is_ascii_lowercase());
    if starts_with_letter && plain.len() <= MAX_LENGTH && !plain.contains('.') {
        return plain;
    }
    unique_service_name(gateway, class)
}

/// The name with a hash, for a Gateway whose `GATEWAY-CLASS` is not a valid name, or is taken: different pairs of
/// Gateway and class may give the same text.
pub(super) fn unique_service_name(gateway: &str, class: &str) -> String {
    let prefix = if gateway.starts_with(|c: char| c.is_ascii_lowercase()) { "" } else { "gateway-" };
    shortened(&format!("{prefix}{gateway}-{class}").replace('.', "-"), &format!("{gateway}/{class}"))
}

/// The value of a label that names an object.
pub(super) fn label_value(name: &str) -> String {
    if name.len() <= MAX_LENGTH { name.to_owned() } else { shortened(name, name) }
}

/// The start of `text` and a hash of `whole`, together at most as long as the limit.
fn shortened(text: &str, whole: &str) -> String {
    let kept: String = text.chars().take(MAX_LENGTH - HASH_DIGITS - 1).collect();
    format!("{}-{:0HASH_DIGITS$x}", kept.trim_end_matches(['-', '.', '_']), hash(whole) >> (64 - 4 * HASH_DIGITS))
}

/// 64-bit FNV-1a. Not resistant to deliberate collisions, but stable, as names require.
pub(super) fn hash(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3))
}

/// The maximum length of a DNS label, and of a label's value.
const MAX_LENGTH: usize = 63;
/// Hexadecimal digits of a hash in a name.
const HASH_DIGITS: usize = 10;

#[cfg(test)]
mod tests {
    use super::*;

    enum Expected {
        /// The whole name.
        Plain(String),
        /// The part of the name before `-` and the hash.
        Hashed(String),
    }

    #[test]
    fn service_names_are_valid_for_any_gateway_name() {
        use Expected::{Hashed, Plain};
        let (at_limit, over_limit) = ("g".repeat(55), "g".repeat(56));
        let maximal = "g".repeat(253);
        let dotted = format!("{}.{}", "g".repeat(51), "g".repeat(200));
        let cases = [
            ("web", Plain("web-portico".to_owned())),
            ("web-example", Plain("web-example-portico".to_owned())),
            (&at_limit, Plain(format!("{at_limit}-portico"))),
            (&over_limit, Hashed("g".repeat(52))),
            (&maximal, Hashed("g".repeat(52))),
            (&dotted, Hashed("g".repeat(51))),
            ("web.example", Hashed("web-example-portico".to_owned())),
            ("1", Hashed("gateway-1-portico".to_owned())),
        ];
        for (gateway, expected) in cases {
            let name = service_name(gateway, "portico");
            assert!(name.len() <= 63, "{name}");
            match expected {
                Plain(expected) => assert_eq!(name, expected),
                Hashed(start) => {
                    let Some(hash) = name.strip_prefix(&format!("{start}-")) else { panic!("{name}") };
                    assert!(hash.len() == HASH_DIGITS && hash.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
                }
            }
        }
        assert_ne!(service_name(&maximal, "a"), service_name(&maximal, "b"));
        assert_ne!(service_name("a.b", "c"), service_name("a-b", "c"));
        assert_eq!(service_name("a-b", "c"), service_name("a", "b-c"));
        assert_ne!(unique_service_name("a-b", "c"), unique_service_name("a", "b-c"));
    }

    #[test]
    fn label_values_fit() {
        let (long, dotted) = ("g".repeat(253), format!("{}.{}", "g".repeat(51), "g".repeat(20)));
        assert_eq!(label_value("web.example"), "web.example");
        for name in [long.as_str(), &dotted] {
            let value = label_value(name);
            assert!(value.len() <= 63 && value.chars().all(|c| c.is_ascii_alphanumeric() || c == '-'), "{value}");
        }
        assert_ne!(label_value(&long), label_value(&"g".repeat(252)));
    }

    #[test]
    fn the_hash_never_changes() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
