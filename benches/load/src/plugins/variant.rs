//! The routes that are compared: without plugins, with a chain of plugins, and imitations of the chain.

use std::sync::Arc;

use crate::server::objects;

/// A route, and what its clients and its backend send.
#[derive(Clone, Debug)]
pub(super) struct Variant {
    pub(super) name: &'static str,
    /// Names of the plugins.
    pub(super) plugins: &'static [&'static str],
    pub(super) credential: ClientCredential,
    kind: VariantKind,
    /// In an imitation: the fields that client and backend, or filters, add instead of the chain. Otherwise empty.
    pub(super) added_fields: AddedFields,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum VariantKind {
    /// The route has only its plugins, if any.
    Original,
    /// Client and backend send the fields that the chain adds.
    ImitatedByPeers,
    /// Filters of the route add the fields that the chain adds.
    ImitatedByFilters,
}

/// Credential sent by the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClientCredential {
    Nothing,
    Key,
    /// The same JWT in each request.
    Token,
    /// A new JWT in each request.
    NewToken,
}

/// Header fields that the chain adds.
#[derive(Clone, Debug, Default)]
pub(super) struct AddedFields {
    pub(super) request: Vec<(String, String)>,
    pub(super) response: Vec<(String, String)>,
}

impl Variant {
    fn original(name: &'static str, plugins: &'static [&'static str], credential: ClientCredential) -> Self {
        Variant { name, plugins, credential, kind: VariantKind::Original, added_fields: AddedFields::default() }
    }

    /// Whether the route has no plugins and imitates none.
    pub(super) fn is_plain(&self) -> bool {
        self.kind == VariantKind::Original && self.plugins.is_empty()
    }

    /// Whether the endpoint and the client receive as many bytes as with the chain, without its plugins.
    pub(super) fn imitates(&self) -> bool {
        self.kind != VariantKind::Original
    }

    pub(super) fn is_chain(&self) -> bool {
        self.plugins == CHAIN
    }

    pub(super) fn needs_new_tokens(&self) -> bool {
        self.credential == ClientCredential::NewToken
    }

    /// Whether the route leads to the backend that adds the chain's response fields itself.
    pub(super) fn uses_verbose_backend(&self) -> bool {
        self.kind == VariantKind::ImitatedByPeers
    }

    /// The fields added by filters, if the variant imitates the chain with filters.
    pub(super) fn filters(&self) -> Option<&AddedFields> {
        (self.kind == VariantKind::ImitatedByFilters).then_some(&self.added_fields)
    }

    /// Header lines that the client sends in addition to its credential.
    pub(super) fn client_fields(&self) -> Arc<str> {
        if self.kind == VariantKind::ImitatedByPeers { lines(&self.added_fields.request).into() } else { "".into() }
    }
}

/// Formats fields as header lines.
pub(super) fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The chain that is compared with its imitations: key-auth, rate-limiting and correlation-id.
const CHAIN: &[&str] = objects::CHAIN.split_at(3).0;

/// All variants; the plain route is first. With `each_plugin`, also each plugin of the chain alone.
pub(super) fn variants(each_plugin: bool) -> Vec<Variant> {
    let mut variants = vec![
        Variant::original("plain", &[], ClientCredential::Nothing),
        Variant::original("key-auth, rate-limiting, correlation-id", CHAIN, ClientCredential::Key),
        Variant {
            kind: VariantKind::ImitatedByPeers,
            ..Variant::original("plain, fields sent by client and endpoint", &[], ClientCredential::Key)
        },
        Variant {
            kind: VariantKind::ImitatedByFilters,
            ..Variant::original("plain, fields added by filters", &[], ClientCredential::Key)
        },
        Variant::original("jwt RS256, token known", &["jwt"], ClientCredential::Token),
        Variant::original("jwt RS256, token new", &["jwt"], ClientCredential::NewToken),
    ];
    if each_plugin {
        variants.extend([
            Variant::original("key-auth alone", &["key-auth"], ClientCredential::Key),
            Variant::original("rate-limiting alone", &["rate-limiting"], ClientCredential::Nothing),
            Variant::original("correlation-id alone", &["correlation-id"], ClientCredential::Nothing),
        ]);
    }
    variants
}
