//! Comparison of the verification with an independent implementation.

use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::DecodingKey;
use proptest::prelude::*;

use super::signing::Signer;
use super::*;

/// A 1024-bit key, which is too short and which libraries no longer generate.
const SHORT_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCq+1MLuoR8fig27gEvpQafjC4u
z1FNcVtGpHTakt3ihDXqIic4dvZWbV2GS+xL5sJp9piS56bpNCXNpRWDHm5+isVg
FKDNgjjdEt1J4aMXA4euQGIlGHMvSPJG73Oz3SyRA1kshfTZawjB49tmNfJy0Box
/Uy23QQbfyMYiles8wIDAQAB
-----END PUBLIC KEY-----";

fn key_of(signer: &Signer, algorithm: Algorithm) -> PublicKey {
    PublicKey::from_pem(algorithm, signer.public_pem().as_bytes()).unwrap()
}

// docs/kong-compatibility.md, 4.16
#[test]
fn every_algorithm_accepts_only_valid_signatures() {
    let message = b"header.claims";
    let mut signers: Vec<(KeyFamily, Signer)> = Vec::new();
    for algorithm in Algorithm::ALL {
        if !signers.iter().any(|(family, _)| *family == algorithm.family()) {
            signers.push((algorithm.family(), Signer::for_algorithm(algorithm)));
        }
        let (_, signer) = signers.iter().find(|(family, _)| *family == algorithm.family()).unwrap();
        let signature = signer.sign(algorithm, message);
        let verifies = |message: &[u8], signature: &[u8]| match signer {
            Signer::Secret(secret) => hmac_verifies(algorithm, secret, message, signature),
            Signer::Pair(..) => key_of(signer, algorithm).verifies(message, signature),
        };
        assert!(verifies(message, &signature), "{algorithm}");
        assert!(!verifies(b"header.claimz", &signature), "{algorithm}");
        assert!(!verifies(message, &signature[1..]), "{algorithm}");
        assert!(!verifies(message, b""), "{algorithm}");
        assert!(!verifies(message, &vec![0; signature.len()]), "{algorithm}: a signature of zeros");
        let mut changed = signature.clone();
        changed[signature.len() / 2] ^= 1;
        assert!(!verifies(message, &changed), "{algorithm}");
        for other in
            Algorithm::ALL.into_iter().filter(|other| *other != algorithm && other.family() == algorithm.family())
        {
            let other_signature = signer.sign(other, message);
            assert!(!verifies(message, &other_signature), "{algorithm} accepted a signature of {other}");
        }
    }
}

// docs/kong-compatibility.md, 3.7
#[test]
fn unfit_keys_are_rejected_with_a_remedy() {
    let rsa = Signer::for_algorithm(Algorithm::Rs256);
    let curve = Signer::for_algorithm(Algorithm::Es256);
    let (rsa_pem, curve_pem) = (rsa.public_pem(), curve.public_pem());
    let certificate = rcgen::generate_simple_self_signed(vec!["a.example".to_owned()]).unwrap().cert.pem();
    let broken_end_line = rsa_pem.replace("-----END", "----END");
    let with_comment = format!("a note\r\n{}", curve_pem.replace('\n', "\r\n"));
    let cases: [(Algorithm, &str, Option<&str>); 14] = [
        (Algorithm::Rs512, &rsa_pem, None),
        (Algorithm::Ps256, &rsa_pem, None),
        (Algorithm::Es256, &with_comment, None),
        (Algorithm::Es256, &rsa_pem, Some("for ES256; use a key of the curve P-256")),
        (Algorithm::Es384, &curve_pem, Some("P-384")),
        (Algorithm::Es512, &curve_pem, Some("P-521")),
        (Algorithm::Rs256, &curve_pem, Some("RSA key")),
        (Algorithm::EdDsa, &curve_pem, Some("Ed25519")),
        (Algorithm::Hs256, &rsa_pem, Some("set `secret`")),
        (Algorithm::Rs256, &rsa.private_pem(), Some("openssl pkey -pubout")),
        (Algorithm::Rs256, &certificate, Some("openssl x509")),
        (Algorithm::Rs256, &broken_end_line, Some("BEGIN PUBLIC KEY")),
        (Algorithm::Rs256, "", Some("BEGIN PUBLIC KEY")),
        (Algorithm::Rs256, SHORT_RSA, Some("fewer than 2048")),
    ];
    for (algorithm, pem, expected) in cases {
        let error = PublicKey::from_pem(algorithm, pem.as_bytes()).err().map(|error| error.to_string());
        assert_eq!(error.is_some(), expected.is_some(), "{algorithm} {pem}: {error:?}");
        assert!(error.unwrap_or_default().contains(expected.unwrap_or_default()), "{algorithm} {pem}");
    }
    assert_eq!(
        HmacSecret::new(Algorithm::Rs256, b"x".to_vec()).err(),
        Some(InvalidKey::NeedsPublicKey { algorithm: Algorithm::Rs256 })
    );
    assert_eq!(HmacSecret::new(Algorithm::Hs256, Vec::new()).err(), Some(InvalidKey::EmptySecret));
}

#[test]
fn pkcs1_public_keys_are_accepted() {
    let signer = Signer::for_algorithm(Algorithm::Rs256);
    let Signer::Pair(_, pair) = &signer else { panic!("an RSA signer has a key pair") };
    let der = STANDARD.encode(pair.public_key_raw());
    let pem = format!("-----BEGIN RSA PUBLIC KEY-----\n{der}\n-----END RSA PUBLIC KEY-----\n");
    let key = PublicKey::from_pem(Algorithm::Rs256, pem.as_bytes()).unwrap();
    assert!(key.verifies(b"m", &signer.sign(Algorithm::Rs256, b"m")));
}

#[test]
fn keys_compare_by_value_and_debug_hides_secrets() {
    let signer = Signer::for_algorithm(Algorithm::Rs256);
    assert_eq!(key_of(&signer, Algorithm::Rs256), key_of(&signer, Algorithm::Rs256));
    assert_ne!(key_of(&signer, Algorithm::Rs256), key_of(&signer, Algorithm::Rs384));
    let secret = |bytes: &[u8]| HmacSecret::new(Algorithm::Hs256, bytes).unwrap();
    assert_eq!(secret(b"geheim"), secret(b"geheim"));
    assert_ne!(secret(b"geheim"), secret(b"geheiz"));
    assert_ne!(secret(b"geheim"), secret(b"geheim\n"));
    let debug_text = format!("{:?} {:?}", secret(b"geheim"), VerificationKey::Secret(secret(b"geheim")));
    assert_eq!(debug_text, "HmacSecret { algorithm: Hs256, .. } VerificationKey(Hs256)");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For algorithms that both implementations support, the results are the same.
    #[test]
    fn verification_agrees_with_jsonwebtoken(
        algorithm_index in 0..Algorithm::ALL.len(),
        flipped_bits in proptest::option::of((0_usize..200, 1_u8..)),
        uses_other_key in any::<bool>(),
    ) {
        use std::sync::OnceLock;
        static SIGNERS: OnceLock<Vec<(Signer, Signer)>> = OnceLock::new();
        let signer_pair = |algorithm| (Signer::for_algorithm(algorithm), Signer::for_algorithm(algorithm));
        let algorithm = Algorithm::ALL[algorithm_index];
        let Ok(jwt_algorithm) = algorithm.name().parse::<jsonwebtoken::Algorithm>() else { return Ok(()) };
        let one_algorithm_per_family = [Algorithm::Rs256, Algorithm::Es256, Algorithm::Es384, Algorithm::EdDsa];
        let signers = SIGNERS.get_or_init(|| one_algorithm_per_family.into_iter().map(signer_pair).collect());
        let is_of_family = |known: &Algorithm| known.family() == algorithm.family();
        let Some(family_index) = one_algorithm_per_family.iter().position(is_of_family) else { return Ok(()) };
        let (signer, other_signer) = &signers[family_index];
        let mut signature = if uses_other_key { other_signer } else { signer }.sign(algorithm, b"message");
        if let Some((index, bits)) = flipped_bits {
            let index = index % signature.len();
            signature[index] ^= bits;
        }
        let pem = signer.public_pem();
        let reference_key = match algorithm.family() {
            KeyFamily::Rsa => DecodingKey::from_rsa_pem(pem.as_bytes()),
            KeyFamily::Ed25519 => DecodingKey::from_ed_pem(pem.as_bytes()),
            _ => DecodingKey::from_ec_pem(pem.as_bytes()),
        };
        let encoded = URL_SAFE_NO_PAD.encode(&signature);
        let reference = jsonwebtoken::crypto::verify(&encoded, b"message", &reference_key.unwrap(), jwt_algorithm);
        let expected = reference.unwrap_or(false);
        prop_assert_eq!(key_of(signer, algorithm).verifies(b"message", &signature), expected);
        prop_assert_eq!(expected, flipped_bits.is_none() && !uses_other_key);
    }

    #[test]
    fn parsing_pem_never_panics(
        text in "\\PC{0,80}",
        body in "[A-Za-z0-9+/=]{0,120}",
        index in 0..Algorithm::ALL.len(),
    ) {
        let algorithm = Algorithm::ALL[index];
        for pem in [text, format!("-----BEGIN PUBLIC KEY-----\n{body}\n-----END PUBLIC KEY-----")] {
            prop_assert!(PublicKey::from_pem(algorithm, pem.as_bytes()).is_err());
        }
    }
}
