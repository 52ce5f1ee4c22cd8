//! The plugins: one file each, and this list. Nothing else knows them.

mod acl;
mod basic_auth;
mod jwt;
mod key_auth;

use crate::plugin::{AnyKind, Entry, Registry};

/// In alphabetical order. `plugin::Entry::<file::Kind>::NEW` is the line that a new file needs here, besides its `mod`.
const KINDS: &[&dyn AnyKind] = &[
    &Entry::<acl::Acl>::NEW,
    &Entry::<basic_auth::BasicAuth>::NEW,
    &Entry::<jwt::Jwt>::NEW,
    &Entry::<key_auth::KeyAuth>::NEW,
];

/// All plugins there are.
pub const REGISTRY: Registry = Registry(KINDS);
