//! Cookies that only Portico can read and change, for what plugins keep at the browser: sessions, logins in progress.
//!
//! ```text
//!   session ─ JSON ─▶ SealingKeys: AES-256-GCM-SIV ─ base64url ─▶ parts of a cookie each ─▶ Set-Cookie
//! ```
//!
//! Every replica with the same secret opens the cookies of the others. Nothing is stored at the proxy, so a cookie
//! stays valid until its timeouts, or until its key is no longer used.

mod attributes;
mod cookies;
mod sealing_keys;
mod session;
mod timeouts;

pub use attributes::{CookieAttributes, CookieSameSite, CookieSettings};
pub use cookies::{CookieParts, CookieTooLarge, SealedCookie, cookies, remove_cookies};
pub use sealing_keys::{SealingKeys, random_text};
pub use session::{OpenedSession, SessionCookies, SessionPlace, Stored, StoredPlace};
pub use timeouts::{SessionAge, SessionTimeouts, SessionTimes, unix_second};
