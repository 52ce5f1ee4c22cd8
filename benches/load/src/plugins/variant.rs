//! The compared routes.

use std::sync::Arc;

/// A route and what its clients and its endpoint send.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Names of the plugins.
    pub(super) plugins: &'static [&'static str],
    pub(super) credential: ClientCredential,
    kind: VariantKind,
    /// Header lines without plugins: added by the client or a filter, and by the endpoint or a filter.
    pub(super) added_fields: AddedFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VariantKind {
    Own,
    /// Client and endpoint send what the chain adds.
    Sent,
    /// Filters of the route add it.
    Filtered,
}

/// Credential sent by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientCredential {
    Nothing,
    Key,
    /// The same token in each request.
    Token,
    /// A new token in each request.
    NewToken,
}

/// Header fields that the chain adds.
#[derive(Clone, Debug, Default)]
pub(super) struct AddedFields {
    pub(super) request: Vec<(String, String)>,
    pub(super) answer: Vec<(String, String)>,
}

impl Variant {
    fn own(name: &'static str, plugins: &'static [&'static str], credential: ClientCredential) -> Self {
        Variant { name, plugins, credential, kind: VariantKind::Own, added_fields: AddedFields::default() }
    }

    pub(super) fn is_plain(&self) -> bool {
        self.kind == VariantKind::Own && self.plugins.is_empty()
    }

    /// Whether it has the bytes of the chain without its plugins.
    pub(super) fn imitates(&self) -> bool {
        self.kind != VariantKind::Own
    }

    pub(super) fn is_chain(&self) -> bool {
        self.plugins == CHAIN
    }

    pub(super) fn needs_new_tokens(&self) -> bool {
        self.credential == ClientCredential::NewToken
    }

    /// Whether the endpoint sends the response fields of the chain.
    pub(super) fn has_own_backend(&self) -> bool {
        self.kind == VariantKind::Sent
    }

    /// The fields added by filters, if the variant imitates the chain with filters.
    pub(super) fn filters(&self) -> Option<&AddedFields> {
        (self.kind == VariantKind::Filtered).then_some(&self.added_fields)
    }

    /// Header lines that the client sends in addition to its credential.
    pub(super) fn client_fields(&self) -> Arc<str> {
        if self.kind == VariantKind::Sent { lines(&self.added_fields.request).into() } else { "".into() }
    }
}

/// Formats fields as header lines.
pub(super) fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The most important chain.
const CHAIN: &[&str] = &["key-auth", "rate-limiting", "correlation-id"];

/// The plain route is first.
pub(super) fn variants(each: bool) -> Vec<Variant> {
    let mut variants = vec![
        Variant::own("plain", &[], ClientCredential::Nothing),
        Variant::own("key-auth, rate-limiting, correlation-id", CHAIN, ClientCredential::Key),
        Variant { kind: VariantKind::Sent, ..Variant::own("plain, same bytes sent to it", &[], ClientCredential::Key) },
        Variant {
            kind: VariantKind::Filtered,
            ..Variant::own("plain, same bytes written by filters", &[], ClientCredential::Key)
        },
        Variant::own("jwt RS256, token known", &["jwt"], ClientCredential::Token),
        Variant::own("jwt RS256, token new", &["jwt"], ClientCredential::NewToken),
    ];
    if each {
        variants.extend([
            Variant::own("key-auth alone", &["key-auth"], ClientCredential::Key),
            Variant::own("rate-limiting alone", &["rate-limiting"], ClientCredential::Nothing),
            Variant::own("correlation-id alone", &["correlation-id"], ClientCredential::Nothing),
        ]);
    }
    variants
}
