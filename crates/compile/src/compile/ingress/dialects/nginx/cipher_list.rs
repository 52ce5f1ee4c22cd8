//! Lists of cipher suites as OpenSSL writes them, which are about TLS 1.2: names of suites and of groups, with commands
//! that add, remove and sort. Portico has six suites of TLS 1.2; a list selects some of them, in its order.

use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;
use rustls::{CipherSuite, SupportedCipherSuite};

/// What a list selects.
#[derive(Debug, Default, PartialEq)]
pub(super) struct CipherList {
    /// Suites of TLS 1.2, the preferred first.
    pub suites: Vec<SupportedCipherSuite>,
    /// The first entries that would add suites, of which none is supported.
    unknown: Vec<Box<str>>,
    has_more_unknown: bool,
}

impl CipherList {
    /// A clause about the entries that select no suite. `None` if there are none.
    pub(super) fn unknown_in_words(&self) -> Option<String> {
        if self.unknown.is_empty() {
            return None;
        }
        let names: Vec<&str> = self.unknown.iter().map(|name| &**name).collect();
        let more = if self.has_more_unknown { " and others" } else { "" };
        Some(format!("no cipher suite that is supported is named by {}{more}", names.join(", ")))
    }
}

/// A suite with the names that it has in OpenSSL.
struct KnownSuite {
    id: CipherSuite,
    name: &'static str,
    /// The name of RFC 5289 or RFC 7905, which newer releases of OpenSSL know as well.
    standard_name: &'static str,
    key: SuiteKey,
    cipher: SuiteCipher,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SuiteKey {
    Ecdsa,
    Rsa,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum SuiteCipher {
    Aes256,
    ChaCha20,
    Aes128,
}

impl KnownSuite {
    const fn new(
        id: CipherSuite,
        name: &'static str,
        standard_name: &'static str,
        key: SuiteKey,
        cipher: SuiteCipher,
    ) -> Self {
        KnownSuite { id, name, standard_name, key, cipher }
    }

    fn has_256_bits(&self) -> bool {
        self.cipher != SuiteCipher::Aes128
    }

    /// Whether a name is that of the suite, or of a group with it.
    fn is(&self, name: &str) -> bool {
        let is_aes = self.cipher != SuiteCipher::ChaCha20;
        match name {
            "ALL" | "HIGH" | "TLSv1.2" | "ECDHE" | "EECDH" | "kECDHE" | "kEECDH" => true,
            "ECDSA" | "aECDSA" => self.key == SuiteKey::Ecdsa,
            // RSA alone is the exchange of keys by RSA, which no suite has.
            "aRSA" => self.key == SuiteKey::Rsa,
            "AES" | "AESGCM" | "FIPS" => is_aes,
            "AES128" => self.cipher == SuiteCipher::Aes128,
            "AES256" => self.cipher == SuiteCipher::Aes256,
            "CHACHA20" => self.cipher == SuiteCipher::ChaCha20,
            name => name == self.name || name == self.standard_name,
        }
    }

    /// Whether the suite has all names of an entry, such as `ECDHE+AESGCM`.
    fn is_of(&self, entry: &str) -> bool {
        entry.split('+').all(|name| self.is(name))
    }

    fn supported(&self) -> Option<SupportedCipherSuite> {
        ALL_CIPHER_SUITES.iter().find(|suite| suite.suite() == self.id).copied()
    }
}

/// Reads a list.
pub(super) fn parse(text: &str) -> CipherList {
    let (mut list, mut selected) = (CipherList::default(), Vec::new());
    let (mut is_killed, mut security_level) = ([false; SUITES.len()], 0);
    let entries = text.split([':', ',', ' ', ';']).filter(|entry| !entry.is_empty());
    for (position, entry) in entries.enumerate() {
        let (command, names) = match entry.split_at_checked(1) {
            Some((command @ ("!" | "-" | "+" | "@"), names)) => (command, names),
            _ if position == 0 && entry == "DEFAULT" => ("", "ALL"),
            _ => ("", entry),
        };
        let matches = |index: &usize| SUITES[*index].is_of(names);
        match command {
            "!" | "-" => {
                selected.retain(|index| !matches(index));
                if command == "!" {
                    (0..SUITES.len()).filter(matches).for_each(|index| is_killed[index] = true);
                }
            }
            "+" => {
                let (moved, kept): (Vec<usize>, Vec<usize>) =
                    selected.iter().copied().partition(|index| matches(index));
                selected = kept;
                selected.extend(moved);
            }
            "@" => match names.strip_prefix("SECLEVEL=") {
                Some(level) => security_level = level.parse().unwrap_or(security_level),
                None if names == "STRENGTH" => selected.sort_by_key(|index| !SUITES[*index].has_256_bits()),
                None => {}
            },
            _ => {
                if !(0..SUITES.len()).any(|index| matches(&index)) {
                    list.add_unknown(names);
                }
                let added: Vec<usize> = (0..SUITES.len())
                    .filter(|index| matches(index) && !is_killed[*index] && !selected.contains(index))
                    .collect();
                selected.extend(added);
            }
        }
    }
    // Level 4 requires 192 bits.
    let suites = selected.into_iter().filter(|index| security_level < 4 || SUITES[*index].has_256_bits());
    list.suites = suites.filter_map(|index| SUITES[index].supported()).collect();
    list
}

impl CipherList {
    fn add_unknown(&mut self, name: &str) {
        // Lists of OpenSSL do not configure the suites of TLS 1.3, though many name them.
        if name.starts_with("TLS_AES_") || name.starts_with("TLS_CHACHA20_") {
            return;
        }
        match self.unknown.iter().any(|known| **known == *name) {
            true => {}
            false if self.unknown.len() < MAX_UNKNOWN => self.unknown.push(name.into()),
            false => self.has_more_unknown = true,
        }
    }
}

/// All suites of TLS 1.3, the preferred first.
pub(super) fn suites_of_tls13() -> Vec<SupportedCipherSuite> {
    ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_some()).copied().collect()
}

/// How to correct a list.
pub(super) const REMEDY: &str = "name suites of ECDHE with AESGCM or CHACHA20, such as ECDHE-RSA-AES128-GCM-SHA256";

/// How many entries a message names.
const MAX_UNKNOWN: usize = 5;

/// In the order of OpenSSL.
const SUITES: [KnownSuite; 6] = [
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
        SuiteKey::Ecdsa,
        SuiteCipher::Aes256,
    ),
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
        "ECDHE-RSA-AES256-GCM-SHA384",
        "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
        SuiteKey::Rsa,
        SuiteCipher::Aes256,
    ),
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-ECDSA-CHACHA20-POLY1305",
        "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
        SuiteKey::Ecdsa,
        SuiteCipher::ChaCha20,
    ),
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
        "ECDHE-RSA-CHACHA20-POLY1305",
        "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
        SuiteKey::Rsa,
        SuiteCipher::ChaCha20,
    ),
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
        SuiteKey::Ecdsa,
        SuiteCipher::Aes128,
    ),
    KnownSuite::new(
        CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        "ECDHE-RSA-AES128-GCM-SHA256",
        "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
        SuiteKey::Rsa,
        SuiteCipher::Aes128,
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    /// The selected suites: `E` or `R` for the key, then `256`, `128` or `C` for ChaCha20.
    fn selected(text: &str) -> String {
        let of_suite = |suite: &SupportedCipherSuite| {
            let known = SUITES.iter().find(|known| known.id == suite.suite()).unwrap();
            let key = if known.key == SuiteKey::Ecdsa { "E" } else { "R" };
            let cipher = match known.cipher {
                SuiteCipher::Aes256 => "256",
                SuiteCipher::ChaCha20 => "C",
                SuiteCipher::Aes128 => "128",
            };
            key.to_owned() + cipher
        };
        parse(text).suites.iter().map(of_suite).collect::<Vec<_>>().join(" ")
    }

    // The outputs of `openssl ciphers -tls1_2` with these suites.
    #[test]
    fn lists_select_suites_in_their_order() {
        for (text, expected) in [
            ("DEFAULT", "E256 R256 EC RC E128 R128"),
            ("ALL:!aNULL", "E256 R256 EC RC E128 R128"),
            ("HIGH:!aRSA", "E256 EC E128"),
            ("HIGH:!aNULL:!MD5", "E256 R256 EC RC E128 R128"),
            ("ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384", "R128 E256"),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "R128"),
            ("ECDHE+AESGCM:ECDHE+CHACHA20", "E256 R256 E128 R128 EC RC"),
            ("EECDH+ECDSA+AESGCM", "E256 E128"),
            ("ALL:+AES128:-CHACHA20", "E256 R256 E128 R128"),
            ("ALL:-AES:ECDHE-RSA-AES128-GCM-SHA256", "EC RC R128"),
            ("ALL:!AES:ECDHE-RSA-AES128-GCM-SHA256", "EC RC"),
            ("!AES128:ALL", "E256 R256 EC RC"),
            ("AES128:AES256:CHACHA20:@STRENGTH", "E256 R256 EC RC E128 R128"),
            ("DEFAULT:@SECLEVEL=2", "E256 R256 EC RC E128 R128"),
            ("DEFAULT:@SECLEVEL=4", "E256 R256 EC RC"),
            ("AESGCM+aRSA, CHACHA20+aRSA", "R256 R128 RC"),
            ("AES128-SHA:DHE-RSA-AES128-GCM-SHA256", ""),
            ("RSA:kRSA:SHA256:MEDIUM", ""),
            ("ALL:DEFAULT", "E256 R256 EC RC E128 R128"),
            ("aRSA:DEFAULT", "R256 RC R128"),
            ("TLS_AES_128_GCM_SHA256", ""),
            ("aes128", ""),
            ("!ALL", ""),
            ("", ""),
            (":::", ""),
            ("+", ""),
            ("ä", ""),
        ] {
            assert_eq!(selected(text), expected, "{text:?}");
        }
    }

    #[test]
    fn entries_without_a_suite_are_named() {
        for (text, expected) in [
            ("ALL:!RC4:!aNULL:-MD5:+SHA1", None),
            ("ECDHE-RSA-AES128-GCM-SHA256:TLS_AES_128_GCM_SHA256", None),
            ("AES128-SHA:ALL:AES128-SHA", Some("AES128-SHA")),
            ("EDH+AESGCM:ALL", Some("EDH+AESGCM")),
            ("a:b:c:d:e:f", Some("a, b, c, d, e and others")),
        ] {
            let expected = expected.map(|names| format!("no cipher suite that is supported is named by {names}"));
            assert_eq!(parse(text).unknown_in_words(), expected, "{text:?}");
        }
    }

    #[test]
    fn every_suite_of_tls12_is_known() {
        let known: Vec<CipherSuite> =
            ALL_CIPHER_SUITES.iter().filter(|suite| suite.tls13().is_none()).map(|suite| suite.suite()).collect();
        assert_eq!(known.len(), SUITES.len());
        for suite in &SUITES {
            assert!(known.contains(&suite.id) && suite.id.as_str() == Some(suite.standard_name), "{}", suite.name);
        }
        assert_eq!(suites_of_tls13().len(), ALL_CIPHER_SUITES.len() - SUITES.len());
    }
}
