//! Every known annotation has an effect on an HTTPRoute, or a diagnostic that says that it has none.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::api::Kind;
use crate::api::kong::annotations::{
    CA_CERTIFICATES_CONFIG_MAPS, CA_CERTIFICATES_SECRETS, CLIENT_CERT, CONNECT_TIMEOUT, FORCE_SSL_REDIRECT,
    HEADERS_SEPARATOR, HOST_ALIASES, HOST_HEADER, HTTPS_REDIRECT_STATUS_CODE, METHODS, OVERRIDE, PATH, PATH_HANDLING,
    PLUGINS, PRESERVE_HOST, PROTOCOL, PROTOCOLS, READ_TIMEOUT, REGEX_PREFIX, REGEX_PRIORITY, REQUEST_BUFFERING,
    RESPONSE_BUFFERING, RETRIES, REWRITE, SERVICE_UPSTREAM, SNIS, STRIP_PATH, TAGS, TLS_VERIFY, TLS_VERIFY_DEPTH,
    UPSTREAM_POLICY, WRITE_TIMEOUT,
};
use crate::compile::addresses::{AddressProvider, AddressState, GatewayAddressPool};
use crate::compile::kong::known_annotations::{ROUTE_ANNOTATIONS, SERVICE_ANNOTATIONS};
use crate::compile::testing::TestInputs;
use crate::compile::{Compiler, addressable_gateways};
use crate::plugin_api::PluginRegistry;
use crate::store::{AnyObject, Batch, Store};

/// Annotations that the annotation needs to have an effect.
type Context = &'static [(&'static str, &'static str)];

const TLS: Context = &[(PROTOCOL, "https")];
const VERIFIED_TLS: Context = &[(PROTOCOL, "https"), (TLS_VERIFY, "true")];

/// A value that changes what the annotation decides, and the annotations that it needs.
fn sample(key: &str) -> Option<(&'static str, Context)> {
    Some(match key {
        PLUGINS | UPSTREAM_POLICY | OVERRIDE => ("missing", &[]),
        STRIP_PATH | FORCE_SSL_REDIRECT | SERVICE_UPSTREAM => ("true", &[]),
        PRESERVE_HOST | REQUEST_BUFFERING | RESPONSE_BUFFERING => ("false", &[]),
        PROTOCOLS => ("https", &[]),
        HTTPS_REDIRECT_STATUS_CODE => ("301", &[(PROTOCOLS, "https")]),
        REGEX_PRIORITY => ("5", &[]),
        METHODS => ("GET", &[]),
        SNIS | HOST_ALIASES | HOST_HEADER => ("other.example", &[]),
        HEADERS_SEPARATOR => (";", &[]),
        REGEX_PREFIX => ("/@", &[]),
        PATH_HANDLING => ("v1", &[]),
        REWRITE | PATH => ("/other", &[]),
        PROTOCOL => ("grpc", &[]),
        CONNECT_TIMEOUT | WRITE_TIMEOUT | READ_TIMEOUT => ("1234", &[]),
        RETRIES => ("7", &[]),
        CLIENT_CERT => ("missing", TLS),
        TLS_VERIFY => ("true", TLS),
        TLS_VERIFY_DEPTH => ("3", VERIFIED_TLS),
        CA_CERTIFICATES_SECRETS | CA_CERTIFICATES_CONFIG_MAPS => ("missing", VERIFIED_TLS),
        _ => return None,
    })
}

/// Annotations without an effect, of which no diagnostic is needed: other tools read the tags of Kong's entities.
const WITHOUT_EFFECT: &[&str] = &[TAGS];

/// The snapshot, the endpoints and the verdicts of an HTTPRoute and its Service with these annotations.
fn outcome(of_route: &[(&str, &str)], of_service: &[(&str, &str)]) -> String {
    let annotations = |pairs: &[(&str, &str)]| -> Value {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect::<serde_json::Map<_, _>>().into()
    };
    let mut inputs = TestInputs::new(PluginRegistry { kinds: &[], internal: &[] });
    let objects = [
        (Kind::GatewayClass, json!({"metadata": {"name": "c"}, "spec": {"controllerName": inputs.controllers[0]}})),
        (
            Kind::Gateway,
            json!({
                "metadata": {"namespace": "a", "name": "g"},
                "spec": {"gatewayClassName": "c", "listeners": [{"name": "x", "port": 80, "protocol": "HTTP"}]},
            }),
        ),
        (
            Kind::Service,
            json!({
                "metadata": {"namespace": "a", "name": "s", "annotations": annotations(of_service)},
                "spec": {"clusterIP": "192.0.2.1", "ports": [{"port": 80}]},
            }),
        ),
        (
            Kind::HttpRoute,
            json!({
                "metadata": {"namespace": "a", "name": "r", "annotations": annotations(of_route)},
                "spec": {
                    "parentRefs": [{"name": "g"}],
                    "hostnames": ["a.example"],
                    "rules": [{
                        "matches": [{"path": {"type": "PathPrefix", "value": "/p"}}],
                        "backendRefs": [{"name": "s", "port": 80}],
                    }],
                },
            }),
        ),
    ];
    let upserts = objects.into_iter().map(|(kind, object)| AnyObject::parse(kind, object).unwrap()).collect();
    let (mut store, mut compiler) = (Store::default(), Compiler::default());
    let changes = store.apply(Batch { upserts, removes: vec![] });
    let gateways: Vec<_> = addressable_gateways(&store, &inputs.controllers).collect();
    let provider = AddressProvider::Pool(GatewayAddressPool::loopback(vec![]));
    inputs.addresses.assign(&provider, &AddressState::default(), gateways.into_iter());
    let compiled = inputs.compile(&mut compiler, &store, &changes);
    let mut text = serde_json::to_string(&compiled.snapshot.dump()).unwrap();
    assert!(text.contains("a.example"), "the route is not served: {text} {:?}", compiler.verdicts());
    write!(text, "{:?} {:?}", compiled.endpoints, compiler.verdicts()).unwrap();
    text
}

#[test]
fn every_annotation_has_an_effect_on_an_http_route_or_a_diagnostic() {
    let mut without_effect = Vec::new();
    for (keys, is_of_route) in [(ROUTE_ANNOTATIONS, true), (SERVICE_ANNOTATIONS, false)] {
        for key in keys.iter().filter(|key| !WITHOUT_EFFECT.contains(key)) {
            let Some((value, context)) = sample(key) else { panic!("{key} needs a value in `sample`") };
            let annotated = [context, &[(*key, value)]].concat();
            let outcomes = [context, &annotated]
                .map(|annotations| if is_of_route { outcome(annotations, &[]) } else { outcome(&[], annotations) });
            if outcomes[0] == outcomes[1] {
                without_effect.push(*key);
            }
        }
    }
    assert!(
        without_effect.is_empty(),
        "nothing changes with {without_effect:?}: add them to `FORWARDING_ANNOTATIONS` or `read_rule`, or report them in \
         `ineffective_annotations`"
    );
}
