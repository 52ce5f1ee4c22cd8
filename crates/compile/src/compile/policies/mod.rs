//! Policies: what they apply to, which of several takes effect, and the verdicts on them.
//!
//! ```text
//!   BackendPolicy           backend_policy/ ────┐
//!   BackendTLSPolicy        backend_tls.rs ─────┤     ┌ target.rs      an object, or a section of it
//!   XBackendTrafficPolicy   backend_traffic.rs ─┴─────┼ precedence.rs  target ─▶ the policy in effect
//!     └ session_persistence.rs ─▶ cookie.rs           └ acceptance.rs  the condition Accepted
//!   users.rs  policies, and what else has an entry in its status for each Gateway through which it has an effect
//! ```
//!
//! Whatever a policy applies to reads its settings through precedence.rs: `backend` does so for Services. The policies
//! for a target are found in the dependency index of the store, so that an edit looks at its own targets only.
//!
//! A kind of policies is one file or folder here, which implements [`target::TargetedPolicy`], and its rows in
//! `policy_kinds`. A kind of targets is a variant of [`target::TargetKind`].

pub(super) mod backend_policy;
pub(super) mod backend_tls;
pub(super) mod backend_traffic;
pub(super) mod cookie;
pub(super) mod precedence;
pub(super) mod session_persistence;
pub(super) mod target;
pub(super) mod users;

mod acceptance;
