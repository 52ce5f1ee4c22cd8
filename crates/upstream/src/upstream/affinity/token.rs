//! The value of a session cookie or header: a list of pins, each to an endpoint of one backend.
//!
//! ```text
//!   base64url( version 1 │ scope 4 │ created 4 │ endpoint 8 │ tag 12 │ scope … )             sizes in bytes
//!   base64url( version 1 │ scope 4 │ created 4 │ endpoint 8 │ tag 12 │ renewed 4 │ scope … )
//! ```
//!
//! The second version is for values with a pin that was renewed, because its session would end if it were idle.
//!
//! A rule may have several backends, and rules may share a cookie. Therefore a value has a pin for each of them, up to
//! [`MAX_PINS`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use smallvec::SmallVec;

/// One pin, not yet verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    /// A hash of what configures the session, and of the backend.
    pub(super) scope: u32,
    /// Seconds since 1970.
    pub(super) created: u32,
    /// When the client last got the pin, in seconds since 1970; `created` if it was not renewed.
    pub(super) renewed: u32,
    /// The hash that names the endpoint.
    pub(super) endpoint: u64,
    pub(super) tag: [u8; TAG_SIZE],
}

/// The pins of a value, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AffinityToken {
    pins: SmallVec<[Pin; 1]>,
}

impl AffinityToken {
    /// `None` if the value is not a token. Whether its pins are valid is checked later.
    pub(super) fn parse(value: &[u8]) -> Option<Self> {
        if value.len() > MAX_ENCODED_SIZE {
            return None;
        }
        let mut buffer = [0; MAX_ENCODED_SIZE];
        let length = URL_SAFE_NO_PAD.decode_slice(value, &mut buffer).ok()?;
        let (version, pins) = buffer[..length].split_first()?;
        let size = match *version {
            VERSION => PIN_SIZE,
            VERSION_WITH_RENEWAL => RENEWED_PIN_SIZE,
            _ => return None,
        };
        let pins = pins.chunks(size).map(|bytes| (bytes.len() == size).then(|| Pin::from_bytes(bytes)));
        let pins: SmallVec<[Pin; 1]> = pins.collect::<Option<_>>()?;
        (pins.len() <= MAX_PINS).then_some(AffinityToken { pins })
    }

    /// The pin of a scope; the newest, should there be several.
    pub(super) fn pin(&self, scope: u32) -> Option<&Pin> {
        self.pins.iter().rev().find(|pin| pin.scope == scope)
    }

    /// The token with this pin instead of the one of its scope, or of the oldest one if there are too many.
    pub(super) fn with_pin(&self, pin: Pin) -> Self {
        let mut pins: SmallVec<[Pin; 1]> = self.pins.iter().filter(|other| other.scope != pin.scope).copied().collect();
        if pins.len() >= MAX_PINS {
            pins.remove(0);
        }
        pins.push(pin);
        AffinityToken { pins }
    }

    /// When the newest pin was created, in seconds since 1970; 0 if there is none.
    pub(super) fn last_created(&self) -> u32 {
        self.pins.iter().map(|pin| pin.created).max().unwrap_or_default()
    }

    pub(super) fn encode(&self) -> String {
        let has_renewed = self.pins.iter().any(|pin| pin.renewed != pin.created);
        let mut bytes = Vec::with_capacity(1 + self.pins.len() * RENEWED_PIN_SIZE);
        bytes.push(if has_renewed { VERSION_WITH_RENEWAL } else { VERSION });
        for Pin { scope, created, renewed, endpoint, tag } in &self.pins {
            bytes.extend(scope.to_be_bytes());
            bytes.extend(created.to_be_bytes());
            bytes.extend(endpoint.to_be_bytes());
            bytes.extend(tag);
            if has_renewed {
                bytes.extend(renewed.to_be_bytes());
            }
        }
        URL_SAFE_NO_PAD.encode(bytes)
    }
}

impl Pin {
    /// `bytes` has the size of a pin, with or without the time when it was renewed.
    fn from_bytes(bytes: &[u8]) -> Self {
        let mut pin = Pin { scope: 0, created: 0, renewed: 0, endpoint: 0, tag: [0; TAG_SIZE] };
        let number = |range: std::ops::Range<usize>| {
            bytes[range].iter().fold(0, |number: u64, byte| number << 8 | u64::from(*byte))
        };
        pin.scope = number(0..4) as u32;
        pin.created = number(4..8) as u32;
        pin.endpoint = number(8..16);
        pin.tag.copy_from_slice(&bytes[16..PIN_SIZE]);
        pin.renewed =
            if bytes.len() == RENEWED_PIN_SIZE { number(PIN_SIZE..RENEWED_PIN_SIZE) as u32 } else { pin.created };
        pin
    }
}

const VERSION: u8 = 1;
const VERSION_WITH_RENEWAL: u8 = 2;
/// The size of the tag: 96 bits are enough for a tag that only a proxy can verify (RFC 2104, section 5).
pub(super) const TAG_SIZE: usize = 12;
const PIN_SIZE: usize = 4 + 4 + 8 + TAG_SIZE;
const RENEWED_PIN_SIZE: usize = PIN_SIZE + 4;
/// As many as a rule may have backends.
const MAX_PINS: usize = 16;
const MAX_ENCODED_SIZE: usize = (1 + MAX_PINS * RENEWED_PIN_SIZE).div_ceil(3) * 4;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_read_as_they_were_written() {
        for renewed in [2, 3] {
            let pin = |scope| Pin { scope, created: 2, renewed, endpoint: u64::MAX - 3, tag: [7; TAG_SIZE] };
            let mut token = AffinityToken::default();
            for scope in 0..=u32::try_from(MAX_PINS).unwrap() {
                assert_eq!(AffinityToken::parse(token.encode().as_bytes()), Some(token.clone()));
                token = token.with_pin(pin(scope));
            }
            assert_eq!(token.pins.len(), MAX_PINS);
            assert_eq!((token.pin(0), token.pin(1)), (None, Some(&pin(1))));
        }
    }

    #[test]
    fn other_values_are_no_tokens() {
        let pin = Pin { scope: 1, created: 1, renewed: 1, endpoint: 1, tag: [1; TAG_SIZE] };
        let valid = AffinityToken::default().with_pin(pin).encode();
        let renewed = AffinityToken::default().with_pin(Pin { renewed: 2, ..pin }).encode();
        let too_long = "A".repeat(MAX_ENCODED_SIZE + 1);
        let too_many = [&[VERSION][..], &[1; (MAX_PINS + 1) * PIN_SIZE]].concat();
        let too_many = URL_SAFE_NO_PAD.encode(too_many);
        let other_version = format!("Aw{}", &valid[2..]);
        let without_renewal = format!("AQ{}", &renewed[2..]);
        let with_renewal = format!("Ag{}", &valid[2..]);
        let cut = &valid[..valid.len() - 2];
        for value in [
            "",
            "A",
            "Aw",
            "not base64!",
            "AQAA",
            &too_long,
            &too_many,
            &other_version,
            &without_renewal,
            &with_renewal,
            cut,
        ] {
            assert_eq!(AffinityToken::parse(value.as_bytes()), None, "{value}");
        }
        assert_eq!(AffinityToken::parse(&[0xff; 39]), None);
        assert!(AffinityToken::parse(valid.as_bytes()).is_some() && AffinityToken::parse(renewed.as_bytes()).is_some());
    }
}
