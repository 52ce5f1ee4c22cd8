//! Sessions of users: how a request finds and continues its own, and what ends them.
//!
//! ```text
//!   request ─▶ UserSessions ─ ended? ─▶ RevokedSessions ◀─ logout token ─┐
//!                  └ expired? ─▶ TokenRefreshes, shared ─▶ one refresh   Logouts ◀─ logout
//! ```

mod logout;
mod revoked_sessions;
mod seen_logout_tokens;
mod session_refresh;
mod token_refresh;
mod user_sessions;

pub(super) use self::logout::Logouts;
pub(super) use self::revoked_sessions::{LogoutReceiver, RevokedSessions};
pub(super) use self::session_refresh::RefreshFailure;
pub(super) use self::token_refresh::TokenRefreshes;
pub(super) use self::user_sessions::UserSessions;
