//! The examples on the pages of the authentication plugins run as they are shown: each protects a route, lets valid
//! clients in, and rejects all others. Only what cannot exist in a test is replaced: public servers, and certificates
//! without a known key.

mod partner;

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::harness::client::{ClientResponse, Connection};
use crate::harness::eventually;
use crate::harness::program::{Program, output, portico, root, run_arguments};
use crate::harness::site::Site;
use crate::ldap::slapd::SlapdProcess;
use crate::pages::page::Page;
use crate::redis::server::Authority;
use partner::{CODE_CLIENT, OPAQUE_TOKEN, Partner, UPSTREAM_TOKEN};

/// The plugins whose examples run. Those of a page are in the namespace of the page's name.
const PAGES: [&str; 19] = [
    "acl",
    "basic-auth",
    "forward-auth",
    "header-cert-auth",
    "hmac-auth",
    "internal-identity",
    "jwt",
    "jwt-signer",
    "key-auth",
    "ldap-auth",
    "ldap-auth-advanced",
    "mtls-auth",
    "oauth2",
    "oauth2-introspection",
    "opa",
    "openid-connect",
    "session",
    "standard-webhooks",
    "upstream-oauth",
];

/// What the texts of examples are replaced by.
const REPLACED: [(&str, &str); 4] = [
    ("uri: https://issuer.example", "uri: http://partner.default.svc"),
    ("_url: https://issuer.example", "_url: http://partner.default.svc"),
    ("endpoint: https://issuer.example", "endpoint: http://partner.default.svc"),
    ("https://login.example", "http://partner.default.svc"),
];
/// The groups of the directory of the suite `ldap` are directly below its suffix.
const REPLACED_IN_LDAP: [(&str, &str); 2] =
    [("ldap.example.com", "partner.default.svc"), ("ou=groups,dc=example,dc=com", "dc=example,dc=com")];

/// The running program with a route `/PAGE` for each page.
struct Examples {
    site: Site,
    authority: Authority,
    partner: Partner,
    _program: Program,
    _directory: SlapdProcess,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_of_pages_protect_routes() {
    let authority = Authority::new();
    let directory = SlapdProcess::start_with_tls(&authority, "partner.default.svc").await;
    // The rest waits for sockets and processes.
    tokio::task::spawn_blocking(move || {
        let examples = Examples::start(authority, directory);
        examples.credentials();
        examples.signatures();
        examples.certificates();
        examples.decisions_of_servers();
        examples.tokens();
        examples.sessions_and_logins();
        examples.identities_for_endpoints();
    })
    .await
    .unwrap();
}

impl Examples {
    fn start(authority: Authority, directory: SlapdProcess) -> Examples {
        let site = Site::new();
        let partner = Partner::start(&format!("127.0.0.1:{}", site.port("open")));
        site.save("authority.pem", &authority.pem());
        site.save("manifests/base.yaml", &BASE.replace("LDAPS", &directory.tls_port.to_string()));
        for page in PAGES {
            let mut objects = example(page);
            objects.extend(surroundings(page));
            objects.push(echo(&site));
            for object in &mut objects {
                object["metadata"]["namespace"] = page.into();
                if object["metadata"]["name"] == "client-authority" {
                    object["stringData"]["tls.crt"] = authority.pem().into();
                }
            }
            let text: Vec<String> = objects.iter().map(Value::to_string).collect();
            // Not filled in: hmac-auth has an `@` that is no placeholder.
            site.save_bytes(&format!("manifests/{page}.yaml"), text.join("\n---\n").as_bytes());
        }
        let mut command = portico(&site);
        command.args(run_arguments(&site)).args(["--ingress-class", "kong", "--trusted-ips", "127.0.0.0/8"]);
        command.args(["--access-log", "off"]).env("SSL_CERT_FILE", site.path("authority.pem"));
        let program = Program::start(command);
        let messages = program.wait_started();
        assert!(!messages.contains("error["), "{messages}");
        Examples { site, authority, partner, _program: program, _directory: directory }
    }

    fn send(&self, method: &str, target: &str, fields: &str, body: &str) -> ClientResponse {
        let host = self.site.address_of("port");
        let length = if body.is_empty() { String::new() } else { format!("content-length: {}\r\n", body.len()) };
        let request = format!("{method} {target} HTTP/1.1\r\nhost: {host}\r\n{fields}{length}\r\n{body}");
        Connection::open(&host).and_then(|mut connection| connection.send(&request)).unwrap()
    }

    fn get(&self, target: &str, fields: &str) -> ClientResponse {
        self.send("GET", target, fields, "")
    }

    /// Sends a request over TLS with `curl`. Returns the status and the body. `arguments`: the target, and options.
    fn send_over_tls(&self, arguments: &[String]) -> (u16, String) {
        let port = self.site.port("guarded");
        let mut command = Command::new("curl");
        command.args(["--silent", "--insecure", "--noproxy", "*", "--write-out", "\n%{http_code}"]);
        command.args(["--resolve", &format!("shop.example:{port}:{}", self.site.address())]);
        command.arg(format!("https://shop.example:{port}{}", arguments[0])).args(&arguments[1..]);
        let shown = String::from_utf8(output(command).stdout).unwrap();
        let (body, status) = shown.rsplit_once('\n').unwrap();
        (status.parse().unwrap(), body.to_owned())
    }

    /// Requests that get 200 and are of a consumer, followed by those that are rejected.
    fn expect(&self, page: &str, valid: &str, consumer: Option<&str>, rejected: &[(&str, u16)]) -> Value {
        for (fields, status) in rejected {
            let response = self.get(&format!("/{page}"), fields);
            assert_eq!(response.status, *status, "{page}: {fields}: {}", response.body);
        }
        let response = self.get(&format!("/{page}"), valid);
        assert_eq!(response.status, 200, "{page}: {}{}", response.head, response.body);
        let request = response.json();
        assert_eq!(header(&request, "x-consumer-username"), consumer, "{page}: {request}");
        request
    }

    fn credentials(&self) {
        let anna = |page: &str| format!("anna.{page}");
        let key = self.expect(
            "key-auth",
            &key_of("key-auth"),
            Some(&anna("key-auth")),
            &[("", 401), ("apikey: wrong\r\n", 401)],
        );
        assert_eq!(header(&key, "apikey"), None, "{key}");
        let (valid, wrong) = (basic("anna.basic-auth:a-password"), basic("anna.basic-auth:wrong"));
        let request = self.expect("basic-auth", &valid, Some(&anna("basic-auth")), &[("", 401), (&wrong, 401)]);
        assert_eq!(header(&request, "authorization"), None, "{request}");
        let member = self.expect("acl", KEY_OF_STAFF, Some("staff.acl"), &[("", 401), (&key_of("acl"), 403)]);
        assert_eq!(header(&member, "x-consumer-groups"), Some("staff"));
        for (page, scheme) in [("ldap-auth", "basic"), ("ldap-auth-advanced", "ldap")] {
            let login = |text: &str| format!("authorization: {scheme} {}\r\n", BASE64_STANDARD.encode(text));
            let (valid, wrong) = (login("anna:annas-password"), login("anna:wrong"));
            // Bert is not in the group.
            let other = login("bert:berts-password");
            self.expect(page, &valid, None, &[("", 401), (&wrong, 401), (&other, 403)]);
        }
    }

    fn signatures(&self) {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let signed = |secret: &str, target: &str| {
            let text = format!("date: {date}\n@request-target: get {target}");
            let parameters = "username=\"anna\", algorithm=\"hmac-sha256\", headers=\"date @request-target\"";
            let signature = hmac_sha256(secret.as_bytes(), &text);
            format!("date: {date}\r\nauthorization: hmac {parameters}, signature=\"{signature}\"\r\n")
        };
        let rejected = [signed("wrong", "/hmac-auth"), signed("only-for-trying-it-out", "/other")];
        let rejected = [("", 401), (&*rejected[0], 401), (&*rejected[1], 401)];
        let valid = signed("only-for-trying-it-out", "/hmac-auth");
        self.expect("hmac-auth", &valid, Some("anna.hmac-auth"), &rejected);

        let (secret, body) = (BASE64_STANDARD.decode("b25seS1mb3ItdHJ5aW5nLWl0LW91dA==").unwrap(), "{\"paid\": true}");
        let time = now();
        let fields = |body: &str| {
            let signature = hmac_sha256(&secret, &format!("msg_2f8a.{time}.{body}"));
            format!("webhook-id: msg_2f8a\r\nwebhook-timestamp: {time}\r\nwebhook-signature: v1,{signature}\r\n")
        };
        let status = |fields: &str| self.send("POST", "/standard-webhooks", fields, body).status;
        assert_eq!((status(&fields(body)), status(&fields("{}")), status("")), (200, 400, 400));
    }

    fn certificates(&self) {
        let stranger = Authority::new();
        let in_header = |authority: &Authority| {
            let (certificate, _) = authority.issue("anna.header-cert-auth");
            format!("x-client-cert: {}\r\n", utf8_percent_encode(&certificate, NON_ALPHANUMERIC))
        };
        let (valid, wrong) = (in_header(&self.authority), in_header(&stranger));
        self.expect("header-cert-auth", &valid, Some("anna.header-cert-auth"), &[("", 401), (&wrong, 401)]);

        let status = |authority: Option<&Authority>| {
            let mut arguments = vec!["/mtls-auth".to_owned()];
            if let Some(authority) = authority {
                let (certificate, key) = authority.issue("anna.mtls-auth");
                self.site.save("client.pem", &format!("{certificate}{key}"));
                arguments.extend(["--cert".to_owned(), self.site.path("client.pem").display().to_string()]);
            }
            let (status, body) = self.send_over_tls(&arguments);
            (status, body.contains("anna.mtls-auth"))
        };
        assert_eq!(status(Some(&self.authority)), (200, true));
        for authority in [None, Some(&stranger)] {
            assert_eq!(status(authority), (401, false));
        }
    }

    fn decisions_of_servers(&self) {
        let allowed = self.expect("forward-auth", "x-allowed: yes\r\nx-auth-user: root\r\n", None, &[("", 403)]);
        assert_eq!(header(&allowed, "x-auth-user"), Some("anna"), "{allowed}");
        self.expect("opa", "x-allowed: yes\r\n", None, &[("", 403)]);
    }

    fn tokens(&self) {
        let token = |changes: Value| {
            let mut claims =
                json!({"iss": "https://issuer.example", "aud": "shop", "sub": "anna.jwt", "exp": now() + 600});
            claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
            bearer(&self.partner.key.sign(&claims))
        };
        let (expired, other) = (token(json!({"exp": now() - 1})), token(json!({"aud": "other"})));
        self.expect("jwt", &token(json!({})), Some("anna.jwt"), &[("", 401), (&expired, 401), (&other, 401)]);
        let valid = token(json!({}));
        let request = self.expect("jwt-signer", &valid, None, &[("", 401), (&expired, 401)]);
        let signed = header(&request, "authorization").unwrap();
        assert!(!valid.contains(signed), "{signed}");
        assert_eq!(claims(signed)["sub"], "anna.jwt");

        let opaque = bearer(OPAQUE_TOKEN);
        let request = self.expect("oauth2-introspection", &opaque, None, &[("", 401), (&bearer("unknown"), 401)]);
        assert_eq!(header(&request, "x-credential-client-id"), Some("robot"));

        let get_token = |secret: &str| {
            let form = format!("grant_type=client_credentials&client_id=reports&client_secret={secret}");
            self.send_over_tls(&["/oauth2/oauth2/token".to_owned(), "--data".to_owned(), form])
        };
        assert_eq!(get_token("wrong").0, 400);
        let (status, issued) = get_token("only-for-trying-it-out");
        assert_eq!(status, 200, "{issued}");
        let issued: Value = serde_json::from_str(&issued).unwrap();
        let issued = bearer(issued["access_token"].as_str().unwrap());
        self.expect("oauth2", &issued, Some("anna.oauth2"), &[("", 401), (&bearer("unknown"), 401)]);
    }

    fn sessions_and_logins(&self) {
        let response = self.get("/session", &format!("{}{HTTPS}", key_of("session")));
        assert_eq!(response.status, 200, "{}", response.body);
        let cookie = response.field("set-cookie").unwrap();
        assert!(cookie.starts_with("__Host-session=") && cookie.contains("; Secure"), "{cookie}");
        let cookie = format!("cookie: {}\r\n{HTTPS}", cookie.split(';').next().unwrap());
        let forged = cookie.replace("=1.", "=1.A");
        let of_guest = self.expect("session", &forged, Some("guest.session"), &[]);
        assert_eq!(header(&of_guest, "x-anonymous-consumer"), Some("true"));
        self.expect("session", &cookie, Some("anna.session"), &[]);

        let login = eventually("the document of the provider is known", || {
            Some(self.get("/openid-connect", "accept: text/html\r\n")).filter(|response| response.status == 302)
        });
        let location = login.field("location").unwrap();
        assert!(location.starts_with("http://partner.default.svc/realms/shop/auth?"), "{location}");
        for parameter in ["client_id=shop", "redirect_uri=https%3A%2F%2Fshop.example%2Fcallback", "code_challenge="] {
            assert!(location.contains(parameter), "{parameter}: {location}");
        }
        assert_eq!(self.send("POST", "/openid-connect", "", "").status, 401);
        assert_eq!(self.get("/openid-connect", &bearer("a.b.c")).status, 401);
    }

    fn identities_for_endpoints(&self) {
        let request = self.expect(
            "internal-identity",
            &key_of("internal-identity"),
            Some("anna.internal-identity"),
            &[("", 401)],
        );
        let token = claims(header(&request, "authorization").unwrap());
        assert_eq!(
            (&token["iss"], &token["consumer"]["username"]),
            (&json!("https://gateway.example"), &json!("anna.internal-identity"))
        );
        let request = self.expect("upstream-oauth", "authorization: Bearer of-the-client\r\n", None, &[]);
        assert_eq!(header(&request, "authorization"), Some(&*format!("Bearer {UPSTREAM_TOKEN}")), "{request}");
    }
}

/// The objects of the first block of a page.
fn example(page: &str) -> Vec<Value> {
    let mut page = Page::read(root(), &format!("docs/plugins/{page}.md"));
    let is_directory = page.path.contains("ldap");
    let block = &mut page.blocks[0];
    for (text, replacement) in REPLACED.iter().chain(REPLACED_IN_LDAP.iter().filter(|_| is_directory)) {
        block.text = block.text.replace(text, replacement);
    }
    block.objects().unwrap_or_else(|error| panic!("{}: {error}", page.path))
}

/// The route of a page, and what its example says that it needs: consumers, credentials, and other plugins.
fn surroundings(page: &str) -> Vec<Value> {
    let key_auth = |config: Value| kong("KongPlugin", "other", json!({ "plugin": "key-auth", "config": config }));
    let credential = |kind: &str, data: Value| secret("credential", &[("konghq.com/credential", kind)], data);
    let key = || credential("key-auth", json!({ "key": format!("key-of-{page}") }));
    let anna = |credentials: &[&str]| consumer(&format!("anna.{page}"), credentials);
    let mut names = vec![example(page)[0]["metadata"]["name"].as_str().unwrap().to_owned()];
    let mut objects = match page {
        "key-auth" => vec![anna(&["credential"]), key()],
        "basic-auth" => {
            let login = json!({ "username": "anna.basic-auth", "password": "a-password" });
            vec![anna(&["credential"]), credential("basic-auth", login)]
        }
        "hmac-auth" => {
            let signer = json!({ "username": "anna", "secret": "only-for-trying-it-out" });
            vec![anna(&["credential"]), credential("hmac-auth", signer)]
        }
        "oauth2" => {
            let client =
                json!({ "name": "Reports", "client_id": "reports", "client_secret": "only-for-trying-it-out" });
            vec![anna(&["credential"]), credential("oauth2", client)]
        }
        "acl" => vec![
            anna(&["credential"]),
            key(),
            consumer("staff.acl", &["staff-key", "staff-group"]),
            secret("staff-key", &[("konghq.com/credential", "key-auth")], json!({ "key": "key-of-staff" })),
            secret("staff-group", &[("konghq.com/credential", "acl")], json!({ "group": "staff" })),
            key_auth(json!({})),
        ],
        "internal-identity" => vec![anna(&["credential"]), key(), key_auth(json!({}))],
        "session" => vec![
            anna(&["credential"]),
            key(),
            consumer("guest.session", &[]),
            key_auth(json!({ "anonymous": "guest.session" })),
            secret("session-secret", &[], json!({ "secret": "\"create-one-with-openssl-rand-hex-32\"" })),
        ],
        "openid-connect" => {
            let secrets = json!({
                "client_secret": json!([CODE_CLIENT]).to_string(),
                "session_secret": "\"create-one-with-openssl-rand-hex-32\"",
            });
            vec![secret("login", &[], secrets)]
        }
        "ldap-auth-advanced" => vec![secret("directory", &[], json!({ "ldap_password": "\"only-for-tests\"" }))],
        _ => vec![anna(&[])],
    };
    if objects.iter().any(|object| object["metadata"]["name"] == "other") {
        names.push("other".to_owned());
    }
    objects.push(json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": { "name": page, "annotations": { "konghq.com/plugins": names.join(", ") } },
        "spec": { "parentRefs": [{ "name": "web", "namespace": "default" }], "rules": [{
            "matches": [{ "path": { "value": format!("/{page}") } }],
            "backendRefs": [{ "name": "echo", "port": 80 }],
        }] },
    }));
    objects
}

/// The Service of the echo server.
fn echo(site: &Site) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "echo", "annotations": { "portico.dev/address": site.address().to_string() } },
        "spec": { "ports": [{ "port": 80, "targetPort": site.port("echo") }] },
    })
}

fn kong(kind: &str, name: &str, mut fields: Value) -> Value {
    fields["apiVersion"] = "configuration.konghq.com/v1".into();
    fields["kind"] = kind.into();
    fields["metadata"] = json!({ "name": name, "annotations": { "kubernetes.io/ingress.class": "kong" } });
    fields
}

fn consumer(username: &str, credentials: &[&str]) -> Value {
    kong("KongConsumer", username, json!({ "username": username, "credentials": credentials }))
}

fn secret(name: &str, labels: &[(&str, &str)], data: Value) -> Value {
    let labels: serde_json::Map<_, _> =
        labels.iter().map(|(name, value)| ((*name).to_owned(), Value::from(*value))).collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": name, "labels": labels }, "stringData": data })
}

/// The value of a header of the request that the endpoint got.
fn header<'r>(request: &'r Value, name: &str) -> Option<&'r str> {
    request["headers"][name][0].as_str()
}

/// The key of anna on this page. All are different, because a key belongs to one consumer of the cluster.
fn key_of(page: &str) -> String {
    format!("apikey: key-of-{page}\r\n")
}

fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}\r\n")
}

fn basic(login: &str) -> String {
    format!("authorization: Basic {}\r\n", BASE64_STANDARD.encode(login))
}

/// The claims of the token in a header, which are not verified.
fn claims(header: &str) -> Value {
    let part = header.split('.').nth(1).unwrap_or_else(|| panic!("{header} has no token"));
    serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}

fn hmac_sha256(secret: &[u8], text: &str) -> String {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    BASE64_STANDARD.encode(hmac::sign(&key, text.as_bytes()))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

const KEY_OF_STAFF: &str = "apikey: key-of-staff\r\n";
/// What a trusted proxy in front of Portico reports.
const HTTPS: &str = "x-forwarded-proto: https\r\n";

const BASE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata:
  name: portico
spec:
  controllerName: portico.dev/gateway-controller
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata:
  name: web
spec:
  gatewayClassName: portico
  listeners:
    - name: http
      protocol: HTTP
      port: @port@
      allowedRoutes: { namespaces: { from: All } }
    - name: https
      protocol: HTTPS
      port: @guarded@
      allowedRoutes: { namespaces: { from: All } }
      tls:
        certificateRefs: [{ name: shop }]
---
apiVersion: v1
kind: Secret
metadata:
  name: shop
type: kubernetes.io/tls
data:
  tls.crt: @certificate@
  tls.key: @key@
---
apiVersion: v1
kind: Service
metadata:
  name: partner
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - name: ldaps
      port: 636
      targetPort: LDAPS
    - name: http
      port: 80
      targetPort: @open@
---
apiVersion: v1
kind: Service
metadata:
  name: auth
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 80
      targetPort: @open@
---
apiVersion: v1
kind: Service
metadata:
  name: opa
  annotations:
    portico.dev/address: 127.0.0.1
spec:
  ports:
    - port: 8181
      targetPort: @open@
";
