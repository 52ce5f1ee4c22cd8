//! Manifests with a secret in every place that can hold one, and the secrets.

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::json;

use crate::harness::objects::GATEWAY;
use crate::harness::site::Site;

/// The secrets. Each value names the place of the secret.
pub(crate) struct TestSecrets {
    /// Lines of the private key of the certificate in use.
    key_lines: Vec<String>,
    jwt: String,
}

impl TestSecrets {
    pub(crate) const CONSUMER_KEY: &str = "zq-key-of-alice-5c1d";
    pub(crate) const PASSWORD: &str = "zq-password-of-alice-5c1d";
    pub(crate) const SIGNING_SECRET: &str = "zq-signing-secret-of-alice-5c1d-that-is-long-enough";
    pub(crate) const TOKEN: &str = "zq-token-of-the-kubeconfig-5c1d";
    pub(crate) const COOKIE: &str = "zq-cookie-of-a-session-5c1d";
    pub(crate) const BODY: &str = "zq-body-of-a-request-5c1d";
    pub(crate) const DIRECTORY_LOGIN: &str = "zq-login-of-a-directory-5c1d";
    pub(crate) const CURRENT_KEY: &str = "zq-current-key-of-all-sessions-5c1d";
    pub(crate) const FORMER_KEY: &str = "zq-former-key-of-all-sessions-5c1d";
    pub(crate) const BROKEN_KEY: &str = "zq-broken-key-5c1d";
    pub(crate) const WRONG_TOKEN: &str = "zq-authorization-that-is-wrong-5c1d";

    pub(crate) fn new(site: &Site) -> TestSecrets {
        let pem = String::from_utf8(base64(&site.filled("@key@"))).expect("PEM is UTF-8");
        let key_lines =
            pem.lines().filter(|line| !line.starts_with('-') && line.len() > 20).map(str::to_owned).collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("the time is after 1970");
        let claims = json!({"iss": "alice-tokens", "exp": now.as_secs() + 600});
        let key = EncodingKey::from_secret(TestSecrets::SIGNING_SECRET.as_bytes());
        let jwt = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).expect("signing succeeds");
        TestSecrets { key_lines, jwt }
    }

    /// A token of the consumer alice.
    pub(crate) fn jwt(&self) -> &str {
        &self.jwt
    }

    /// All secrets with their places.
    pub(crate) fn all(&self) -> impl Iterator<Item = (&'static str, String)> {
        let signature = self.jwt.rsplit('.').next().expect("a token has three parts").to_owned();
        let lines = self.key_lines.iter().map(|line| ("a line of the private key", line.clone()));
        let fixed = IN_MANIFESTS.iter().chain(IN_REQUESTS).map(|(place, word)| (*place, (*word).to_owned()));
        fixed.chain([("the signature of a signed token", signature)]).chain(lines)
    }
}

const IN_REQUESTS: &[(&str, &str)] = &[
    ("a cookie in a request", TestSecrets::COOKIE),
    ("the body in a request", TestSecrets::BODY),
    ("a wrong token in a request", TestSecrets::WRONG_TOKEN),
    ("a password for a directory in a request", TestSecrets::DIRECTORY_LOGIN),
    ("the current key of sessions in a Secret of Portico", TestSecrets::CURRENT_KEY),
    ("the former key of sessions in a Secret of Portico", TestSecrets::FORMER_KEY),
    ("a broken key of sessions in a Secret of Portico", TestSecrets::BROKEN_KEY),
    ("a token in a kubeconfig", TestSecrets::TOKEN),
];

const IN_MANIFESTS: &[(&str, &str)] = &[
    ("a credential of key-auth", TestSecrets::CONSUMER_KEY),
    ("a credential of basic-auth", TestSecrets::PASSWORD),
    ("a credential of jwt", TestSecrets::SIGNING_SECRET),
    ("a credential of hmac-auth", "zq-hmac-secret-of-alice-5c1d"),
    ("a line of an htpasswd file", "zq-htpasswd-line-5c1d"),
    ("an invalid hash of a password", "zq-password-hash-5c1d"),
    ("an invalid digest of a key", "zq-key-digest-5c1d"),
    ("a secret of webhooks", "zq-webhook-secret-5c1d"),
    ("a malformed secret of webhooks", "zq-broken-webhook-secret-5c1d"),
    ("a password of a directory", "zq-directory-password-5c1d"),
    ("a credential with a misspelled field", "zq-misspelt-credential-5c1d"),
    ("a credential without a type", "zq-untyped-credential-5c1d"),
    ("an invalid public key for jwt", "zq-no-public-key-5c1d"),
    ("a Secret that nothing refers to", "zq-unused-secret-5c1d"),
    ("an invalid private key", "zq-no-private-key-5c1d"),
    ("a password of Redis in a plugin", "zq-redis-password-5c1d"),
    ("a password of Redis in a KongClusterPlugin", "zq-global-redis-password-5c1d"),
    ("the Secret of configFrom", "zq-config-from-5c1d"),
    ("the malformed Secret of configFrom", "zq-broken-config-from-5c1d"),
    ("the address of a server in the Secret of configFrom", "127.83.67.29"),
    ("a rejected host from a Secret", "zq host from a Secret 5c1d"),
    ("a rejected host in the Secret of configFrom", "zq host of configFrom 5c1d"),
    ("a rejected address in the Secret of a configPatch", "zq-address-5c1d"),
    ("the Secret of a configPatch", "zq-config-patch-5c1d"),
    ("a secret of sessions from a Secret", "zq-session-secret-5c1d-that-is-long-enough"),
    ("a password of Redis for sessions from a Secret", "zq-session-redis-password-5c1d"),
    ("a client secret from a Secret", "zq-client-secret-5c1d"),
    ("a secret of logins from a Secret", "zq-login-secret-5c1d-that-is-long-enough"),
    ("the URL of a provider from a Secret", "zq-provider-5c1d"),
    ("the URL of a key set from a Secret", "zq-key-set-5c1d"),
    ("a password of a directory from a Secret", "zq-advanced-directory-password-5c1d"),
    ("an unknown field of a plugin", "zq-unknown-field-5c1d"),
    ("a field of a plugin with a wrong type", "zq-wrong-type-5c1d"),
    ("a secret instead of an enum value of a plugin", "zq-wrong-choice-5c1d"),
    ("a token of a vault", "zq-vault-token-5c1d"),
    ("a field of a custom entity", "zq-custom-entity-5c1d"),
    ("a license", "zq-license-5c1d"),
];

fn base64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::prelude::BASE64_STANDARD.decode(text).expect("the site encodes base64")
}

/// Names and texts of the manifest files, with placeholders.
pub(crate) fn manifests(site: &Site, redis_port: u16) -> Vec<(&'static str, String)> {
    let https = "    - name: https
      protocol: HTTPS
      port: @other@
      tls:
        certificateRefs:
          - name: secure
          - name: broken-key
---
apiVersion: v1";
    let gateway = GATEWAY.replacen("---\napiVersion: v1", https, 1);
    assert_ne!(gateway, GATEWAY, "site {}", site.address());
    let routes = [
        "keys",
        "passwords",
        "tokens",
        "signed",
        "hooks",
        "directory",
        "counted",
        "from",
        "patched",
        "typo",
        "sealed",
        "stored",
        "login",
        "advanced",
    ]
    .map(route)
    .join("---\n");
    vec![
        ("gateway", gateway),
        ("routes", routes),
        ("secrets", SECRETS.to_owned()),
        ("consumers", CONSUMERS.to_owned()),
        ("plugins", PLUGINS.replace("@redis@", &redis_port.to_string())),
    ]
}

/// A route whose path is its name, with the plugin of the same name. The route `typo` has all invalid plugins, too.
fn route(name: &str) -> String {
    let plugins = match name {
        "typo" => {
            "typo,keys,wrong-type,wrong-choice,broken-from,broken-hooks,wrong-server,wrong-receiver,wrong-address"
                .to_owned()
        }
        name => name.to_owned(),
    };
    format!(
        "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: {name}
  annotations: {{konghq.com/plugins: \"{plugins}\"}}
spec:
  parentRefs: [{{name: good}}]
  rules:
    - matches: [{{path: {{type: PathPrefix, value: /{name}}}}}]
      backendRefs: [{{name: echo, port: 80}}]
"
    )
}

const SECRETS: &str = "apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: secure}
data: {tls.crt: @certificate@, tls.key: @key@}
---
apiVersion: v1
kind: Secret
type: kubernetes.io/tls
metadata: {name: broken-key}
data: {tls.crt: @certificate@}
stringData: {tls.key: zq-no-private-key-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: unused}
stringData: {password: zq-unused-secret-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-key, labels: {konghq.com/credential: key-auth}}
stringData: {key: zq-key-of-alice-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-key-again, labels: {konghq.com/credential: key-auth}}
stringData: {key: zq-key-of-alice-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-password, labels: {konghq.com/credential: basic-auth}}
stringData: {username: alice, password: zq-password-of-alice-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-token, labels: {konghq.com/credential: jwt}}
stringData: {key: alice-tokens, algorithm: HS256, secret: zq-signing-secret-of-alice-5c1d-that-is-long-enough}
---
apiVersion: v1
kind: Secret
metadata: {name: alice-signer, labels: {konghq.com/credential: hmac-auth}}
stringData: {username: alice, secret: zq-hmac-secret-of-alice-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: users, labels: {konghq.com/credential: basic-auth}}
stringData: {htpasswd: 'bob:zq-htpasswd-line-5c1d'}
---
apiVersion: v1
kind: Secret
metadata: {name: broken-hash, labels: {konghq.com/credential: basic-auth}}
stringData: {username: bob, password_hash: zq-password-hash-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: broken-digest, labels: {konghq.com/credential: key-auth}}
stringData: {key_sha256: zq-key-digest-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: misspelt, labels: {konghq.com/credential: key-auth}}
stringData: {kee: zq-misspelt-credential-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: untyped}
stringData: {key: zq-untyped-credential-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: no-public-key, labels: {konghq.com/credential: jwt}}
stringData: {key: broken-tokens, algorithm: RS256, rsa_public_key: zq-no-public-key-5c1d}
---
apiVersion: v1
kind: Secret
metadata: {name: config}
stringData:
  whole: '{\"minute\": 1000, \"policy\": \"redis\",
    \"redis\": {\"host\": \"127.83.67.29\", \"port\": 1, \"password\": \"zq-config-from-5c1d\"}}'
  broken: '{\"minute\": 5, \"policy\": \"redis\", \"redis\": {\"password\": \"zq-broken-config-from-5c1d\"'
  password: '\"zq-config-patch-5c1d\"'
  session: zq-session-secret-5c1d-that-is-long-enough
  session-redis: zq-session-redis-password-5c1d
  client: zq-client-secret-5c1d
  login: zq-login-secret-5c1d-that-is-long-enough
  provider: https://127.0.0.1:1/zq-provider-5c1d
  key-set: https://127.0.0.1:1/zq-key-set-5c1d
  directory: zq-advanced-directory-password-5c1d
  server: zq host from a Secret 5c1d
  receiver: '{\"host\": \"zq host of configFrom 5c1d\", \"port\": 9000}'
  address: '[\"zq-address-5c1d\"]'
";

const CONSUMERS: &str = "apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata: {name: alice, annotations: {kubernetes.io/ingress.class: kong}}
username: alice
credentials: [alice-key, alice-password, alice-token, alice-signer]
---
apiVersion: configuration.konghq.com/v1
kind: KongConsumer
metadata: {name: broken, annotations: {kubernetes.io/ingress.class: kong}}
username: broken
credentials: [misspelt, untyped, no-public-key, alice-key-again, users, broken-hash, broken-digest]
---
apiVersion: configuration.konghq.com/v1alpha1
kind: KongVault
metadata: {name: hcv, annotations: {kubernetes.io/ingress.class: kong}}
spec: {backend: hcv, prefix: hcv, config: {host: vault.example, token: zq-vault-token-5c1d}}
---
apiVersion: configuration.konghq.com/v1alpha1
kind: KongCustomEntity
metadata: {name: entity}
spec: {type: degraphql_routes, controllerName: kong, fields: {uri: /x, query: zq-custom-entity-5c1d}}
---
apiVersion: configuration.konghq.com/v1alpha1
kind: KongLicense
metadata: {name: license}
rawLicenseString: zq-license-5c1d
";

const PLUGINS: &str = "apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: keys}
plugin: key-auth
config: {hide_credentials: false}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: passwords}
plugin: basic-auth
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: tokens}
plugin: jwt
config: {claims_to_verify: [exp]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: signed}
plugin: hmac-auth
config: {enforce_headers: [date]}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: hooks}
plugin: standard-webhooks
config: {secret_v1: zq-webhook-secret-5c1d}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: broken-hooks}
plugin: standard-webhooks
config: {secret_v1: whsec_zq-broken-webhook-secret-5c1d}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: directory}
plugin: ldap-auth
config:
  ldap_host: 127.0.0.1
  ldap_port: 1
  base_dn: dc=example
  attribute: uid
  header_type: basic
  bind_dn: cn=portico,dc=example
  ldap_password: zq-directory-password-5c1d
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: counted}
plugin: rate-limiting
config: {minute: 1000, policy: redis, redis: {host: 127.0.0.1, port: @redis@, password: zq-redis-password-5c1d}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: from}
plugin: rate-limiting
configFrom: {secretKeyRef: {name: config, key: whole}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: broken-from}
plugin: rate-limiting
configFrom: {secretKeyRef: {name: config, key: broken}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: patched}
plugin: rate-limiting
config: {minute: 1000, policy: redis, redis: {host: 127.0.0.1, port: 1}}
configPatches:
- path: /redis/password
  valueFrom: {secretKeyRef: {name: config, key: password}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: sealed}
plugin: session
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: stored}
plugin: session
config:
  secret: {secretKeyRef: {name: config, key: session}}
  storage: redis
  redis: {host: 127.0.0.1, port: 1, password: {secretKeyRef: {name: config, key: session-redis}}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: login}
plugin: openid-connect
config:
  issuer: {secretKeyRef: {name: config, key: provider}}
  bearer_issuers:
  - issuer: https://tokens.example
    jwks_uri: {secretKeyRef: {name: config, key: key-set}}
    audiences: [shop]
  client_id: [shop]
  client_secret: [{secretKeyRef: {name: config, key: client}}]
  session_secret: {secretKeyRef: {name: config, key: login}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: advanced}
plugin: ldap-auth-advanced
config:
  ldap_host: 127.0.0.1
  ldap_port: 1
  base_dn: dc=example
  attribute: uid
  header_type: basic
  bind_dn: cn=portico,dc=example
  ldap_password: {secretKeyRef: {name: config, key: directory}}
  log_search_results: true
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: typo}
plugin: rate-limiting
config:
  minute: 5
  policy: redis
  redis: {host: 127.0.0.1, passwort: zq-unknown-field-5c1d}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: wrong-type}
plugin: rate-limiting
config:
  minute: 5
  redis: zq-wrong-type-5c1d
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: wrong-choice}
plugin: rate-limiting
config: {minute: 5, policy: zq-wrong-choice-5c1d}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: wrong-server}
plugin: tcp-log
config: {host: {secretKeyRef: {name: config, key: server}}, port: 9000}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: wrong-receiver}
plugin: tcp-log
configFrom: {secretKeyRef: {name: config, key: receiver}}
---
apiVersion: configuration.konghq.com/v1
kind: KongPlugin
metadata: {name: wrong-address}
plugin: ip-restriction
config: {}
configPatches:
- path: /deny
  valueFrom: {secretKeyRef: {name: config, key: address}}
---
apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata:
  name: everywhere
  annotations: {kubernetes.io/ingress.class: kong}
  labels: {global: \"true\"}
plugin: rate-limiting
config: {minute: 1000, policy: redis, redis: {host: 127.0.0.1, port: 1, password: zq-global-redis-password-5c1d}}
---
apiVersion: configuration.konghq.com/v1
kind: KongClusterPlugin
metadata:
  name: metrics
  annotations: {kubernetes.io/ingress.class: kong}
  labels: {global: \"true\"}
plugin: prometheus
config: {per_consumer: true, status_code_metrics: true}
";
