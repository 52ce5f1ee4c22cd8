//! Kinds of groups that Portico reads, but which another program serves.

/// What an object of a kind of Kong Operator stands for, and what takes its place. `None` for another kind.
pub(super) fn replacement_of_operator_kind(kind: &str) -> Option<&'static str> {
    let (_, replacement) = OPERATOR_KINDS.iter().find(|(known, _)| match known.strip_suffix('*') {
        Some(start) => kind.starts_with(start),
        None => kind == *known,
    })?;
    Some(replacement)
}

/// Kinds with which Kong Operator configures a control plane of Kong. A `*` stands for any end.
const OPERATOR_KINDS: &[(&str, &str)] = &[
    ("KongCACertificate", "write a Secret with the label konghq.com/ca-cert"),
    ("KongCertificate", "write a Secret, and name it in a listener or in spec.tls of an Ingress"),
    ("KongCredential*", "write a Secret with the label konghq.com/credential, and name it in the KongConsumer"),
    ("KongDataPlaneClientCertificate", "remove it: there is no control plane to authenticate at"),
    ("KongKey*", "give the keys to the plugin that verifies tokens"),
    ("KongPluginBinding", "name the KongPlugin in annotation konghq.com/plugins of the object"),
    ("KongReferenceGrant", "write a ReferenceGrant"),
    ("KongRoute", "write an HTTPRoute or an Ingress"),
    ("KongSNI", "write the host in a listener or in spec.tls of an Ingress"),
    ("KongService", "write a Service; annotations have the settings of its requests"),
    ("KongTarget", "write an EndpointSlice, or annotation portico.dev/address of the Service"),
    ("KongUpstream", "write a KongUpstreamPolicy, and name it in annotation konghq.com/upstream-policy"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_of_the_operator_have_a_replacement() {
        for (kind, is_known) in [
            ("KongService", true),
            ("KongCredentialAPIKey", true),
            ("KongKeySet", true),
            ("KongUpstreamPolicies", false),
            ("KongPlugni", false),
        ] {
            assert_eq!(replacement_of_operator_kind(kind).is_some(), is_known, "{kind}");
        }
    }
}
