//! Hashes of passwords, as `htpasswd` and others write them, and the checks of passwords against them.
//!
//! ```text
//!   Secret ──parse──▶ PasswordHash        password of a request ──▶ verified before? ──▶ compare fingerprints
//!                                                                       └ no ──▶ PasswordChecks ──▶ another thread
//! ```
//!
//! A slow hash takes tens of milliseconds of a core, so it is computed once for each hash, and by few threads at a
//! time.

mod checks;
mod digest_login;
mod hash;
mod htpasswd;
mod md5_crypt;

pub use checks::{ChecksBusy, PasswordChecks};
pub use digest_login::{DigestOutcome, DigestUsers, InvalidDigestLine};
pub use hash::{InvalidPasswordHash, PasswordHash};
pub use htpasswd::{InvalidLine, LineProblem, parse_htpasswd};
