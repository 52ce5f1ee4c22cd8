//! The routes that are compared: without plugins, with a chain of plugins, and imitations of the chain.

use std::sync::Arc;

use crate::server::added_fields::AddedFields;
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

    /// Whether the route has a cache, so that the response to one request is sent for others.
    pub(super) fn is_cached(&self) -> bool {
        self.plugins.contains(&"proxy-cache")
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
        if self.kind != VariantKind::ImitatedByPeers {
            return "".into();
        }
        let fields: Vec<_> = self.added_fields.request.iter().map(accepted_from_client).collect();
        lines(&fields).into()
    }
}

/// Formats fields as header lines.
pub(super) fn lines(fields: &[(String, String)]) -> String {
    fields.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect()
}

/// The field that the client of an imitation sends: fields that Portico removes from the requests of untrusted clients
/// have another name of the same length, so that the endpoint receives the same number of bytes.
///
/// The alternative, `--trusted-ips` for the client, would let Portico pass the original names on. But then the plain
/// route would do other work than the one that it is compared with: it would extend the lists of addresses that the
/// client sends, and search them for the address of the client.
fn accepted_from_client((name, value): &(String, String)) -> (String, String) {
    let replaced = REPLACED_NAMES.into_iter().find(|(removed, _)| name.eq_ignore_ascii_case(removed));
    (replaced.map_or(name.as_str(), |(_, ordinary)| ordinary).to_owned(), value.clone())
}

/// Names that Portico removes from the requests of untrusted clients, each with an ordinary name of the same length.
const REPLACED_NAMES: [(&str, &str); 2] = [("x-real-ip", "x-added-1"), ("x-forwarded-path", "x-added-field-02")];

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

/// A route with a cache behind authentication. It is not compared with the others, whose requests reach the backend.
pub(super) fn cached() -> Variant {
    Variant::original("key-auth, proxy-cache", &["key-auth", "proxy-cache"], ClientCredential::Key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_of_an_imitation_send_as_many_bytes_under_names_that_are_not_removed() {
        let variants = variants(false);
        let imitation = variants.iter().find(|variant| variant.uses_verbose_backend()).unwrap();
        let field = |name: &str| (name.to_owned(), "1".to_owned());
        let request: Vec<_> = ["X-Real-IP", "X-Forwarded-Path", "x-plan"].map(field).into();
        let added_fields = AddedFields { request: request.clone(), ..AddedFields::default() };
        let sent = Variant { added_fields, ..imitation.clone() }.client_fields();
        assert_eq!(&*sent, "x-added-1: 1\r\nx-added-field-02: 1\r\nx-plan: 1\r\n");
        assert_eq!(sent.len(), lines(&request).len());
    }
}
