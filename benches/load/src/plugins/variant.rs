//! The routes that are compared.

use std::sync::Arc;

/// A route, and what its clients and its endpoint send.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// The names of its plugins.
    pub(super) plugins: &'static [&'static str],
    pub(super) shows: Shows,
    kind: Kind,
    /// Lines of heads that are not the plugins': added by the client or a filter, and by the endpoint or a filter.
    pub(super) learned: Learned,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Own,
    /// Client and endpoint send what a chain adds.
    Sent,
    /// Filters of the route add it.
    Filtered,
}

/// What a client shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shows {
    Nothing,
    Key,
    /// The same token each time.
    Token,
    /// One that was never seen before.
    NewToken,
}

/// What a chain adds: fields with their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Learned {
    pub(super) request: Vec<(String, String)>,
    pub(super) answer: Vec<(String, String)>,
}

impl Variant {
    fn own(name: &'static str, plugins: &'static [&'static str], shows: Shows) -> Self {
        Variant { name, plugins, shows, kind: Kind::Own, learned: Learned::default() }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.kind == Kind::Own && self.plugins.is_empty()
    }

    /// Whether it has the bytes of the chain and not its plugins.
    pub(super) fn imitates(&self) -> bool {
        self.kind != Kind::Own
    }

    pub(super) fn is_chain(&self) -> bool {
        self.plugins == CHAIN
    }

    pub(super) fn needs_new_tokens(&self) -> bool {
        self.shows == Shows::NewToken
    }

    /// Whether the endpoint sends the fields of the answer.
    pub(super) fn has_own_backend(&self) -> bool {
        self.kind == Kind::Sent
    }

    /// What the filters of the route add, if that is how it imitates.
    pub(super) fn filters(&self) -> Option<&Learned> {
        (self.kind == Kind::Filtered).then_some(&self.learned)
    }

    /// What the client sends besides what it shows of itself.
    pub(super) fn sends(&self) -> Arc<str> {
        if self.kind == Kind::Sent { lines(&self.learned.request).into() } else { "".into() }
    }
}

/// As they stand in a head.
pub(super) fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The chain whose cost is looked at first.
const CHAIN: &[&str] = &["key-auth", "rate-limiting", "correlation-id"];

/// The plain one comes first.
pub(super) fn variants(each: bool) -> Vec<Variant> {
    let mut variants = vec![
        Variant::own("plain", &[], Shows::Nothing),
        Variant::own("key-auth, rate-limiting, correlation-id", CHAIN, Shows::Key),
        Variant { kind: Kind::Sent, ..Variant::own("plain, same bytes sent to it", &[], Shows::Key) },
        Variant { kind: Kind::Filtered, ..Variant::own("plain, same bytes written by filters", &[], Shows::Key) },
        Variant::own("jwt RS256, token known", &["jwt"], Shows::Token),
        Variant::own("jwt RS256, token new", &["jwt"], Shows::NewToken),
    ];
    if each {
        variants.extend([
            Variant::own("key-auth alone", &["key-auth"], Shows::Key),
            Variant::own("rate-limiting alone", &["rate-limiting"], Shows::Nothing),
            Variant::own("correlation-id alone", &["correlation-id"], Shows::Nothing),
        ]);
    }
    variants
}
