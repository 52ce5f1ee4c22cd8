//! SCRAM-SHA-256 and SCRAM-SHA-512, by which a client proves that it knows a password and the broker that it knows it
//! as well: RFC 5802 and RFC 7677, without channel binding.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;

use aws_lc_rs::{constant_time, digest, hmac, pbkdf2, rand};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;

/// The hash of the mechanism.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum ScramHash {
    Sha256,
    Sha512,
}

/// An exchange whose first message was sent.
pub(super) struct ScramClient {
    hash: ScramHash,
    password: Arc<str>,
    nonce: String,
    /// The first message, without its header.
    first: String,
}

/// The signature that only a broker with the password can compute.
pub(super) struct BrokerSignature(Vec<u8>);

/// The broker has sent what it may not send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ScramError(pub(super) &'static str);

impl ScramClient {
    /// `is_token`: the password is that of a delegation token, whose id is the user.
    pub(super) fn new(hash: ScramHash, user: &str, password: Arc<str>, is_token: bool) -> Result<Self, ScramError> {
        let mut random = [0; 18];
        rand::fill(&mut random).map_err(|_| ScramError("no random numbers are available"))?;
        Ok(ScramClient::with_nonce(hash, user, password, is_token, BASE64_STANDARD.encode(random)))
    }

    fn with_nonce(hash: ScramHash, user: &str, password: Arc<str>, is_token: bool, nonce: String) -> Self {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        let extension = if is_token { ",tokenauth=true" } else { "" };
        let first = format!("n={user},r={nonce}{extension}");
        ScramClient { hash, password, nonce, first }
    }

    pub(super) fn first_message(&self) -> Vec<u8> {
        format!("{HEADER}{}", self.first).into_bytes()
    }

    /// The final message, after the first one of the broker. Takes milliseconds of a processor.
    pub(super) fn final_message(&self, challenge: &[u8]) -> Result<(Vec<u8>, BrokerSignature), ScramError> {
        let challenge = std::str::from_utf8(challenge).map_err(|_| ScramError("the challenge is no text"))?;
        let mut fields = challenge.split(',');
        let mut field = |name: &str| fields.next().and_then(|field| field.strip_prefix(name));
        let (Some(nonce), Some(salt), Some(iterations)) = (field("r="), field("s="), field("i=")) else {
            return Err(ScramError("the challenge is not that of the mechanism"));
        };
        if nonce.len() <= self.nonce.len() || !nonce.starts_with(&self.nonce) {
            return Err(ScramError("the challenge belongs to another exchange"));
        }
        let salt = BASE64_STANDARD.decode(salt).map_err(|_| ScramError("the salt is not valid"))?;
        let iterations: u32 = iterations.parse().map_err(|_| ScramError("the number of iterations is not valid"))?;
        let iterations = NonZeroU32::new(iterations).filter(|number| ITERATIONS.contains(&number.get()));
        let iterations = iterations.ok_or(ScramError("the number of iterations is below 4096 or above 65536"))?;
        let (hmac_algorithm, pbkdf2_algorithm, hash) = match self.hash {
            ScramHash::Sha256 => (hmac::HMAC_SHA256, pbkdf2::PBKDF2_HMAC_SHA256, &digest::SHA256),
            ScramHash::Sha512 => (hmac::HMAC_SHA512, pbkdf2::PBKDF2_HMAC_SHA512, &digest::SHA512),
        };
        let mut salted = vec![0; hash.output_len()];
        pbkdf2::derive(pbkdf2_algorithm, iterations, &salt, self.password.as_bytes(), &mut salted);
        let salted = hmac::Key::new(hmac_algorithm, &salted);
        let client_key = hmac::sign(&salted, b"Client Key");
        let stored_key = digest::digest(hash, client_key.as_ref());
        let without_proof = format!("c={},r={nonce}", BASE64_STANDARD.encode(HEADER));
        let signed = format!("{},{challenge},{without_proof}", self.first);
        let signature = hmac::sign(&hmac::Key::new(hmac_algorithm, stored_key.as_ref()), signed.as_bytes());
        let proof: Vec<u8> = client_key.as_ref().iter().zip(signature.as_ref()).map(|(key, sign)| key ^ sign).collect();
        let server_key = hmac::Key::new(hmac_algorithm, hmac::sign(&salted, b"Server Key").as_ref());
        let expected = BrokerSignature(hmac::sign(&server_key, signed.as_bytes()).as_ref().to_vec());
        Ok((format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)).into_bytes(), expected))
    }
}

impl BrokerSignature {
    /// Checks the final message of the broker.
    pub(super) fn verify(&self, last: &[u8]) -> Result<(), ScramError> {
        let signature = last.strip_prefix(b"v=").map(|rest| rest.split(|byte| *byte == b',').next().unwrap_or(rest));
        let signature = signature.and_then(|text| BASE64_STANDARD.decode(text).ok());
        let is_right =
            signature.is_some_and(|signature| constant_time::verify_slices_are_equal(&signature, &self.0).is_ok());
        if is_right { Ok(()) } else { Err(ScramError("the broker does not know the password")) }
    }
}

impl fmt::Debug for ScramClient {
    /// Omits the password.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("ScramClient").field("hash", &self.hash).finish_non_exhaustive()
    }
}

/// No channel binding, and no other identity.
const HEADER: &str = "n,,";
/// RFC 7677, section 4 requires the least one. The largest is four times that of Kafka's brokers, and bounds the time.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4096..=65_536;

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    const NONCE: &str = "rOprNGfwEbeRWgbNEkqO";
    const CHALLENGE: &str = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";

    fn example() -> ScramClient {
        ScramClient::with_nonce(ScramHash::Sha256, "user", Arc::from("pencil"), false, NONCE.to_owned())
    }

    #[test]
    fn messages_are_those_of_the_published_example() {
        let client = example();
        assert_eq!(client.first_message(), b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let (last, expected) = client.final_message(CHALLENGE.as_bytes()).unwrap();
        let text = "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ=";
        assert_eq!(String::from_utf8(last).unwrap(), text);
        expected.verify(b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=").unwrap();
        for wrong in [&b"v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="[..], b"v=", b"", b"e=other-error", b"v=%"] {
            assert_eq!(expected.verify(wrong), Err(ScramError("the broker does not know the password")));
        }
    }

    #[test]
    fn names_are_escaped_and_tokens_are_marked() {
        let client = ScramClient::with_nonce(ScramHash::Sha512, "a=b,c", Arc::from("pencil"), true, "xyz".to_owned());
        assert_eq!(client.first_message(), b"n,,n=a=3Db=2Cc,r=xyz,tokenauth=true");
        assert!(!format!("{client:?}").contains("pencil"));
        let nonces = [0, 1].map(|_| ScramClient::new(ScramHash::Sha512, "a", Arc::from("b"), false).unwrap().nonce);
        assert!(nonces[0].len() >= 24 && nonces[0] != nonces[1], "{nonces:?}");
    }

    #[test]
    fn challenges_of_impostors_are_refused() {
        let client = example();
        for challenge in [
            "",
            "s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqO,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=another,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=%,i=4096",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=1",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4294967295",
            "r=rOprNGfwEbeRWgbNEkqOx,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=-1",
        ] {
            assert!(client.final_message(challenge.as_bytes()).is_err(), "{challenge}");
        }
        assert!(client.final_message(&[0xFF]).is_err());
    }
}
