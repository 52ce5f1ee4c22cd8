//! References to values of vaults in configurations.

use percent_encoding::percent_decode_str;

/// A reference: `{vault://PREFIX/PATH}`, `{vault://PREFIX/PATH/KEY}` or `{vault://PREFIX/PATH/KEY#VERSION}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultReference {
    /// Selects the vault.
    pub prefix: String,
    /// The name or path of the secret.
    pub path: String,
    /// The part of the secret; `None` for the whole secret.
    pub key: Option<String>,
    pub version: Option<u32>,
}

/// The prefix of the variables of the vault `env` that exists without a KongVault.
pub const DEFAULT_ENVIRONMENT_PREFIX: &str = "PORTICO_VAULT_";

const START: &str = "{vault://";

impl VaultReference {
    /// Whether a text is meant as a reference, so that it must not be used as it is.
    pub fn is_meant(text: &str) -> bool {
        text.contains(START)
    }

    /// Parses a text that is meant as a reference. As in Kong, the last of several segments is the key.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let inner = text.trim().strip_prefix(START).ok_or("it is a part of a longer text, which it cannot be")?;
        let inner = inner.strip_suffix('}').ok_or("it does not end with a closing brace")?;
        let (inner, version) = match inner.split_once('#') {
            Some((inner, version)) => (inner, Some(version.parse().map_err(|_| "its version is not a number")?)),
            None => (inner, None),
        };
        if inner.contains('?') {
            return Err("it has options, which only the KongVault may have");
        }
        let mut segments = inner.split('/').map(decode);
        let prefix = segments.next().flatten().filter(|prefix| !prefix.is_empty()).ok_or("it has no prefix")?;
        let segments: Option<Vec<String>> = segments.collect();
        let mut segments = segments.ok_or("its path is not UTF-8")?;
        // A segment with a slash or dots could leave the path that the vault allows.
        let is_allowed = |segment: &String| {
            !matches!(&**segment, "" | "." | "..") && !segment.chars().any(|char| char == '/' || char.is_control())
        };
        if segments.is_empty() {
            return Err("it has no path");
        }
        if !segments.iter().all(is_allowed) {
            return Err("a segment of its path is empty, has a slash or a control character, or consists of dots");
        }
        let key = if segments.len() > 1 { segments.pop() } else { None };
        Ok(VaultReference { prefix, path: segments.join("/"), key, version })
    }

    /// The name of the environment variable that has the secret, in a vault whose variables begin with `prefix`.
    pub fn environment_variable(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.path).replace(['-', '/'], "_").to_ascii_uppercase()
    }
}

fn decode(segment: &str) -> Option<String> {
    percent_decode_str(segment).decode_utf8().ok().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    // docs/kong-compatibility.md, 1.9
    #[test]
    fn last_of_several_segments_is_the_key() {
        for (text, expected) in [
            ("{vault://env/redis-password}", ("env", "redis-password", None, None)),
            ("{vault://env/redis/password}", ("env", "redis", Some("password"), None)),
            ("{vault://hcv/customer/acme/name#3}", ("hcv", "customer/acme", Some("name"), Some(3))),
            (" {vault://a/b%20c/d} ", ("a", "b c", Some("d"), None)),
        ] {
            let VaultReference { prefix, path, key, version } = VaultReference::parse(text).unwrap();
            assert!(VaultReference::is_meant(text));
            assert_eq!((&*prefix, &*path, key.as_deref(), version), expected, "{text}");
        }
    }

    #[test]
    fn malformed_references_are_rejected() {
        for (text, expected) in [
            ("{vault://env/a", "closing brace"),
            ("{vault://env/a}x", "closing brace"),
            ("Authorization:Bearer {vault://env/a}", "a part of a longer text"),
            ("{vault://env}", "no path"),
            ("{vault:///a}", "no prefix"),
            ("{vault://env/a//b}", "a segment of its path"),
            ("{vault://hcv/../sys/b}", "a segment of its path"),
            ("{vault://hcv/%2e%2e/b}", "a segment of its path"),
            ("{vault://hcv/a%2Fb/c}", "a segment of its path"),
            ("{vault://hcv/a%0ab/c}", "a segment of its path"),
            ("{vault://env/a?prefix=SSL_}", "options"),
            ("{vault://env/a#x}", "version"),
            ("{vault://env/%ff}", "UTF-8"),
        ] {
            let problem = VaultReference::parse(text).unwrap_err();
            assert!(problem.contains(expected), "{text}: {problem}");
        }
        assert!(!VaultReference::is_meant("vault://env/a"));
    }
}
