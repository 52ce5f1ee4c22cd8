//! Logins of browsers at the provider. [`BrowserLogins`] begins and finishes them, [`LoginCookies`] keeps each of them
//! until the browser comes back, and [`AuthenticationLevel`] says how users must have logged in.

mod authentication_level;
mod browser_logins;
mod login_state;

pub(super) use self::authentication_level::AuthenticationLevel;
pub(super) use self::browser_logins::BrowserLogins;
pub(super) use self::login_state::LoginCookies;
