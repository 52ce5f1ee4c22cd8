//! One hash of a password.

use std::fmt;
use std::str::FromStr;
use std::sync::{LazyLock, OnceLock};

use argon2::{Argon2, Params, PasswordVerifier};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use sha_crypt::ShaCrypt;

use super::md5_crypt::Md5Hash;
use crate::plugin_api::login::BASE64;

/// The hash of a password, and whether the password has been seen.
pub struct PasswordHash {
    /// As configured.
    text: Box<str>,
    scheme: HashScheme,
    /// The fingerprint of the password, once it has been verified. From then on, passwords are compared by their
    /// fingerprints, so neither right nor wrong ones cost a slow hash.
    verified: OnceLock<[u8; 32]>,
}

enum HashScheme {
    /// The text is the hash.
    Bcrypt,
    /// Boxed, because it is large.
    Argon2(Box<argon2::PasswordHash>),
    Md5(Md5Hash),
    /// Boxed, because it is large.
    Sha2(Box<sha_crypt::PasswordHash>),
    /// The digest, and the salt that follows the password.
    Sha1([u8; 20], Box<[u8]>),
    Plain,
}

/// Why a text is not a usable hash. It does not contain the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPasswordHash {
    #[error("the format of the hash is not supported")]
    UnknownFormat,
    #[error("the hash is not a valid hash of {0}")]
    Malformed(&'static str),
    #[error("the cost of the bcrypt hash is {0}, and the highest is {MAX_BCRYPT_COST}")]
    BcryptCost(u32),
    #[error(
        "the Argon2 hash needs {memory} KiB in {passes} passes with {lanes} lanes; the highest are {MAX_ARGON2_MEMORY} \
         KiB, {MAX_ARGON2_PASSES} passes and {MAX_ARGON2_LANES} lanes"
    )]
    Argon2Cost { memory: u32, passes: u32, lanes: u32 },
    #[error("the hash has {0} rounds, and the most are {MAX_SHA2_ROUNDS}")]
    Sha2Rounds(u32),
}

impl InvalidPasswordHash {
    /// What would be right.
    pub const REMEDY: &'static str =
        "use a hash of bcrypt ($2y$, as of htpasswd -B), Argon2 ($argon2id$), apr1 ($apr1$) or SHA-512 ($6$)";
}

/// About a second of a core.
const MAX_BCRYPT_COST: u32 = 14;
const MAX_ARGON2_MEMORY: u32 = 64 * 1024;
const MAX_ARGON2_PASSES: u32 = 16;
const MAX_ARGON2_LANES: u32 = 16;
/// About half a second of a core.
const MAX_SHA2_ROUNDS: u32 = 1_000_000;
/// Each round takes as long as the password.
const MAX_SHA2_PASSWORD: usize = 128;
/// The length of passwords that are compared with hashes, in bytes. The time of some hashes grows with the length.
const MAX_PASSWORD: usize = 1024;
/// bcrypt ignores what follows these bytes.
const BCRYPT_BYTES: usize = 72;

/// Fingerprints are made with a key of the process, so that they are of no use elsewhere.
static FINGERPRINT_KEY: LazyLock<hmac::Key> = LazyLock::new(|| {
    hmac::Key::generate(hmac::HMAC_SHA256, &rand::SystemRandom::new()).expect("the system has random bytes")
});

impl PasswordHash {
    /// Parses a hash whose cost is within limits.
    pub fn parse(text: &str) -> Result<Self, InvalidPasswordHash> {
        let scheme = if let Some(digest) = text.strip_prefix("{SHA}") {
            let digest = BASE64.decode(digest).ok().and_then(|digest| digest.try_into().ok());
            HashScheme::Sha1(digest.ok_or(InvalidPasswordHash::Malformed("{SHA}"))?, Box::default())
        } else if let Some(salted) = text.strip_prefix("{SSHA}") {
            let salted = BASE64.decode(salted).ok();
            let parts = salted.as_ref().and_then(|salted| salted.split_first_chunk());
            let (digest, salt) = parts.ok_or(InvalidPasswordHash::Malformed("{SSHA}"))?;
            HashScheme::Sha1(*digest, salt.into())
        } else if text.starts_with("{PLAIN}") {
            HashScheme::Plain
        } else if text.starts_with("$apr1$") || text.starts_with("$1$") {
            HashScheme::Md5(Md5Hash::parse(text).ok_or(InvalidPasswordHash::Malformed("MD5"))?)
        } else if text.starts_with("$5$") || text.starts_with("$6$") {
            HashScheme::Sha2(Box::new(parse_sha2(text)?))
        } else if text.starts_with("$argon2") {
            HashScheme::Argon2(Box::new(parse_argon2(text)?))
        } else if ["$2a$", "$2b$", "$2y$"].iter().any(|version| text.starts_with(version)) {
            let parts = bcrypt::HashParts::from_str(text).map_err(|_| InvalidPasswordHash::Malformed("bcrypt"))?;
            match parts.get_cost() {
                ..4 => return Err(InvalidPasswordHash::Malformed("bcrypt")),
                4..=MAX_BCRYPT_COST => HashScheme::Bcrypt,
                cost => return Err(InvalidPasswordHash::BcryptCost(cost)),
            }
        } else {
            return Err(InvalidPasswordHash::UnknownFormat);
        };
        Ok(PasswordHash { text: text.into(), scheme, verified: OnceLock::new() })
    }

    /// Whether this is the password, if that is known without a slow hash.
    pub fn verify_fast(&self, password: &[u8]) -> Option<bool> {
        if password.len() > MAX_PASSWORD {
            return Some(false);
        }
        match &self.scheme {
            HashScheme::Sha1(expected, salt) => {
                let found = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[password, salt].concat());
                return Some(verify_slices_are_equal(expected, found.as_ref()).is_ok());
            }
            HashScheme::Plain => {
                let expected = self.text.strip_prefix("{PLAIN}").unwrap_or_default();
                return Some(verify_slices_are_equal(expected.as_bytes(), password).is_ok());
            }
            HashScheme::Sha2(_) if password.len() > MAX_SHA2_PASSWORD => return Some(false),
            HashScheme::Bcrypt | HashScheme::Argon2(_) | HashScheme::Md5(_) | HashScheme::Sha2(_) => {}
        }
        let verified = self.verified.get()?;
        Some(verify_slices_are_equal(verified, &self.fingerprint(password)).is_ok())
    }

    /// Whether this is the password. May take as long as the cost of the hash says.
    pub fn verify(&self, password: &[u8]) -> bool {
        if let Some(is_known) = self.verify_fast(password) {
            return is_known;
        }
        let is_right = match &self.scheme {
            // The algorithm repeats the password with a zero byte, so `a` would also be `a`, zero, `a`.
            HashScheme::Bcrypt => !password.contains(&0) && bcrypt::verify(password, &self.text).unwrap_or(false),
            HashScheme::Argon2(hash) => Argon2::default().verify_password(password, &**hash).is_ok(),
            HashScheme::Md5(hash) => hash.verify(password),
            HashScheme::Sha2(hash) => ShaCrypt::default().verify_password(password, &**hash).is_ok(),
            HashScheme::Sha1(..) | HashScheme::Plain => false,
        };
        if is_right {
            // Another thread may have verified the same password.
            self.verified.get_or_init(|| self.fingerprint(password));
        }
        is_right
    }

    /// Equal for passwords that have the same hash.
    fn fingerprint(&self, password: &[u8]) -> [u8; 32] {
        let significant = match &self.scheme {
            HashScheme::Bcrypt => &password[..password.len().min(BCRYPT_BYTES)],
            _ => password,
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(hmac::sign(&FINGERPRINT_KEY, significant).as_ref());
        fingerprint
    }
}

fn parse_argon2(text: &str) -> Result<argon2::PasswordHash, InvalidPasswordHash> {
    let malformed = || InvalidPasswordHash::Malformed("Argon2");
    let hash = argon2::PasswordHash::new(text).map_err(|_| malformed())?;
    let params = Params::try_from(&hash).map_err(|_| malformed())?;
    let is_complete = hash.salt.is_some() && hash.hash.is_some();
    if !is_complete || argon2::Algorithm::try_from(hash.algorithm.as_str()).is_err() {
        return Err(malformed());
    }
    let (memory, passes, lanes) = (params.m_cost(), params.t_cost(), params.p_cost());
    if memory > MAX_ARGON2_MEMORY || passes > MAX_ARGON2_PASSES || lanes > MAX_ARGON2_LANES {
        return Err(InvalidPasswordHash::Argon2Cost { memory, passes, lanes });
    }
    Ok(hash)
}

fn parse_sha2(text: &str) -> Result<sha_crypt::PasswordHash, InvalidPasswordHash> {
    let malformed = InvalidPasswordHash::Malformed("SHA-2");
    let hash = sha_crypt::PasswordHash::new(text).map_err(|_| malformed.clone())?;
    let mut fields = text.split('$').skip(2).peekable();
    if let Some(rounds) = fields.next_if(|field| field.starts_with("rounds=")) {
        let rounds = rounds.strip_prefix("rounds=").and_then(|rounds| rounds.parse().ok()).ok_or(malformed.clone())?;
        match rounds {
            sha_crypt::Params::ROUNDS_MIN..=MAX_SHA2_ROUNDS => {}
            ..sha_crypt::Params::ROUNDS_MIN => return Err(malformed),
            rounds => return Err(InvalidPasswordHash::Sha2Rounds(rounds)),
        }
    }
    let digest = fields.nth(1).unwrap_or_default();
    let is_complete = digest.len() == if text.starts_with("$5$") { 43 } else { 86 } && fields.next().is_none();
    if is_complete { Ok(hash) } else { Err(malformed) }
}

/// Equal if the hash is the same, whether its password has been seen or not.
impl PartialEq for PasswordHash {
    fn eq(&self, other: &Self) -> bool {
        verify_slices_are_equal(self.text.as_bytes(), other.text.as_bytes()).is_ok()
    }
}

impl Eq for PasswordHash {}

impl fmt::Debug for PasswordHash {
    /// Omits the hash, from which a short password can be guessed.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("PasswordHash")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// By crypt(3).
    const BCRYPT: &str = "$2y$04$abcdefghijklmnopqrstuu2r9OfJnfCsdneAXAGHnS4UpFFP8WIrW";
    /// By `openssl passwd`.
    const APR1: &str = "$apr1$abcdefgh$h9FWgUz3n9YxylKLlR5SQ/";
    /// By `openssl passwd`, as the next ones.
    const MD5: &str = "$1$abcdefgh$cHJi5PXp/ki/ktXzqlk6I1";
    const SHA256: &str = "$5$abcdefgh$gruCpC7VkOTspMQTTSAR8mtlO9Upms.fwqE5y16JVM.";
    const SHA512: &str =
        "$6$abcdefgh$ltjgWl6579NluT/Vi1nwEvcil.G5Nbc4NiXZaNGStk8PSwGfQv72N2CKPPrVACtLtip/cZ/1GM/O6IND4WQhG.";
    const SHA512_ROUNDS: &str = "$6$rounds=2000$abcdefgh$js.Oqma4t2Fwxd5k1k7HZc8PJANjCww6bXOf6rha5ucSTdmrEHzoB1xTT6hS\
                                 CKIARQkqP2BCwtC1eCAzLkvzb1";
    /// The digest of `secretsalt`, and `salt`.
    const SALTED_SHA: &str = "{SSHA}gVK8WC9YyFT1gMsQHTGCgT3sSv5zYWx0";
    /// From the tests of the reference implementation.
    const ARGON2ID: &str = "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4";
    const ARGON2I: &str = "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$iekCn0Y3spW+sCcFanM2xBT63UP2sghkUoHLIUpWRS8";

    #[test]
    fn passwords_are_verified_slowly_once() {
        let bcrypt_2b = BCRYPT.replace("$2y$", "$2b$");
        let hashes = [
            (BCRYPT, "secret"),
            (&bcrypt_2b, "secret"),
            (APR1, "secret"),
            (MD5, "secret"),
            (SHA256, "secret"),
            (SHA512, "secret"),
            (SHA512_ROUNDS, "secret"),
            ("{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=", "secret"),
            (SALTED_SHA, "secret"),
            ("{PLAIN}secret", "secret"),
            (ARGON2ID, "password"),
            (ARGON2I, "password"),
        ];
        for (text, password) in hashes {
            let hash = PasswordHash::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            let known = |is_right| text.starts_with('{').then_some(is_right);
            assert_eq!(hash.verify_fast(password.as_bytes()), known(true), "{text}");
            for wrong in [String::new(), password.to_uppercase(), format!("{password} "), password[1..].to_owned()] {
                assert!(!hash.verify(wrong.as_bytes()), "{text} {wrong:?}");
                assert_eq!(hash.verify_fast(wrong.as_bytes()), known(false), "{text}: no wrong password is stored");
            }
            assert!(hash.verify(password.as_bytes()), "{text}");
            assert_eq!(hash.verify_fast(password.as_bytes()), Some(true), "{text}");
            assert_eq!(hash.verify_fast(b"Secret"), Some(false), "{text}");
            assert!(!format!("{hash:?}").contains(&text[7..]), "{text}");
        }
    }

    #[test]
    fn what_bcrypt_ignores_is_ignored_with_fingerprints() {
        let long = "a".repeat(80);
        let hash = bcrypt::hash_with_salt(&long, 4, [7; 16]).unwrap().to_string();
        let hash = PasswordHash::parse(&hash).unwrap();
        let other_end = format!("{}b", &long[..79]);
        let other_begin = format!("b{}", &long[1..]);
        for _ in 0..2 {
            assert!(hash.verify(long.as_bytes()) && hash.verify(other_end.as_bytes()));
            assert!(!hash.verify(other_begin.as_bytes()));
        }
        assert!(!PasswordHash::parse(BCRYPT).unwrap().verify(b"secret\0secret"), "bcrypt would repeat the password");
    }

    #[test]
    fn long_passwords_are_wrong_at_once() {
        let hash = PasswordHash::parse(APR1).unwrap();
        assert_eq!((hash.verify_fast(&[b'a'; 1024]), hash.verify_fast(&[b'a'; 1025])), (None, Some(false)));
    }

    #[test]
    fn unusable_hashes_are_rejected() {
        let bcrypt_cost = |cost: &str| BCRYPT.replacen("$04$", cost, 1);
        let argon2 = |params: &str| ARGON2ID.replacen("m=256,t=2,p=1", params, 1);
        use InvalidPasswordHash::{Argon2Cost, BcryptCost, Malformed, Sha2Rounds, UnknownFormat};
        let cases = [
            (bcrypt_cost("$14$"), None),
            (bcrypt_cost("$15$"), Some(BcryptCost(15))),
            (bcrypt_cost("$03$"), Some(Malformed("bcrypt"))),
            (BCRYPT[..59].to_owned(), Some(Malformed("bcrypt"))),
            (argon2("m=65536,t=16,p=16"), None),
            (argon2("m=65537,t=2,p=1"), Some(Argon2Cost { memory: 65537, passes: 2, lanes: 1 })),
            (argon2("m=256,t=17,p=1"), Some(Argon2Cost { memory: 256, passes: 17, lanes: 1 })),
            (argon2("m=256,t=2,p=17"), Some(Argon2Cost { memory: 256, passes: 2, lanes: 17 })),
            (argon2("m=256,t=2,p=1,x=1"), Some(Malformed("Argon2"))),
            ("$argon2id$v=19$m=256,t=2,p=1".to_owned(), Some(Malformed("Argon2"))),
            (ARGON2ID.replacen("argon2id", "argon2x", 1), Some(Malformed("Argon2"))),
            ("{SHA}5en6".to_owned(), Some(Malformed("{SHA}"))),
            ("$apr1$salt".to_owned(), Some(Malformed("MD5"))),
            ("$1$salt$".to_owned(), Some(Malformed("MD5"))),
            ("{SSHA}5en6".to_owned(), Some(Malformed("{SSHA}"))),
            ("$6$salt$hash".to_owned(), Some(Malformed("SHA-2"))),
            (SHA512_ROUNDS.replace("2000", "1000000"), None),
            (SHA512_ROUNDS.replace("2000", "1000001"), Some(Sha2Rounds(1_000_001))),
            (SHA512_ROUNDS.replace("2000", "999"), Some(Malformed("SHA-2"))),
            (SHA256.replace("$5$", "$6$"), Some(Malformed("SHA-2"))),
            ("secret".to_owned(), Some(UnknownFormat)),
            (String::new(), Some(UnknownFormat)),
        ];
        for (text, expected) in cases {
            assert_eq!(PasswordHash::parse(&text).err(), expected, "{text}");
        }
    }

    proptest! {
        #[test]
        fn parsing_never_panics(
            prefix in prop_oneof![
                Just("$2y$"),
                Just("$argon2id$"),
                Just("$apr1$"),
                Just("$6$"),
                Just("$5$rounds="),
                Just("{SSHA}"),
                Just(""),
            ],
            rest in ".{0,70}",
        ) {
            drop(PasswordHash::parse(&format!("{prefix}{rest}")));
        }
    }
}
