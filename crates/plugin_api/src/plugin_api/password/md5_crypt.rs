//! The hashes `$apr1$` of Apache's htpasswd and `$1$` of crypt(3): a thousand rounds of MD5 with a salt.

use aws_lc_rs::constant_time::verify_slices_are_equal;

use crate::md5::md5;

/// What hashes begin with, and what is hashed with the password.
const MAGICS: [&str; 2] = ["$apr1$", "$1$"];
const ROUNDS: usize = 1000;
const MAX_SALT: usize = 8;
const ALPHABET: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// The bytes of the digest in the order of the text. Each group of three is four characters; the last byte,
/// [`LAST_BYTE`], is two.
const ORDER: [[usize; 3]; 5] = [[0, 6, 12], [1, 7, 13], [2, 8, 14], [3, 9, 15], [4, 10, 5]];
const LAST_BYTE: usize = 11;

/// A hash with its salt.
pub(super) struct Md5Hash {
    magic: &'static str,
    salt: Box<[u8]>,
    digest: [u8; 16],
}

impl Md5Hash {
    /// Parses `$apr1$SALT$DIGEST`, or the same with `$1$`.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (magic, rest) = MAGICS.into_iter().find_map(|magic| Some((magic, text.strip_prefix(magic)?)))?;
        let (salt, digest) = rest.split_once('$')?;
        if salt.is_empty() || salt.len() > MAX_SALT {
            return None;
        }
        Some(Md5Hash { magic, salt: salt.as_bytes().into(), digest: decode(digest.as_bytes())? })
    }

    pub(super) fn verify(&self, password: &[u8]) -> bool {
        verify_slices_are_equal(&self.digest, &md5_crypt(self.magic, password, &self.salt)).is_ok()
    }
}

fn md5_crypt(magic: &str, password: &[u8], salt: &[u8]) -> [u8; 16] {
    let inner = md5(&[password, salt, password]);
    let mut first: Vec<&[u8]> = vec![password, magic.as_bytes(), salt];
    for start in (0..password.len()).step_by(inner.len()) {
        first.push(&inner[..inner.len().min(password.len() - start)]);
    }
    // One byte for each bit of the length.
    let mut length = password.len();
    while length > 0 {
        first.push(if length & 1 == 1 { &[0] } else { &password[..1] });
        length >>= 1;
    }
    let mut digest = md5(&first);
    for round in 0..ROUNDS {
        let is_odd = round % 2 == 1;
        let before = digest;
        let mut parts: [&[u8]; 4] = [&[]; 4];
        parts[0] = if is_odd { password } else { &before };
        if round % 3 != 0 {
            parts[1] = salt;
        }
        if round % 7 != 0 {
            parts[2] = password;
        }
        parts[3] = if is_odd { &before } else { password };
        digest = md5(&parts);
    }
    digest
}

/// Decodes 22 characters of six bits each, of which the first ones are the lowest bits of a group.
fn decode(text: &[u8]) -> Option<[u8; 16]> {
    if text.len() != 22 {
        return None;
    }
    let mut digest = [0; 16];
    for (group, characters) in text.chunks(4).enumerate() {
        let mut bits: u32 = 0;
        for (index, character) in characters.iter().enumerate() {
            let value = ALPHABET.iter().position(|known| known == character)?;
            bits |= u32::try_from(value).ok()? << (6 * index);
        }
        match ORDER.get(group) {
            Some(positions) => {
                for (position, byte) in positions.iter().zip(&bits.to_be_bytes()[1..]) {
                    digest[*position] = *byte;
                }
            }
            None => digest[LAST_BYTE] = u8::try_from(bits).ok()?,
        }
    }
    Some(digest)
}
