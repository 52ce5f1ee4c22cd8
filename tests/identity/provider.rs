//! The provider as a process, and requests of other clients to it.

use std::process::{Command, Stdio};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::harness::client::{ClientResponse, Connection};
use crate::harness::ports::free_port;
use crate::harness::program::{Program, node_packages, root};
use crate::harness::site::Site;
use crate::identity::browser::SHOP;

pub(crate) const CLIENT: &str = "shop";
/// Needs to be encoded in a form.
pub(crate) const SECRET: &str = "a+secret/of=the client";

/// A running `oidc-provider`, which is killed on drop.
pub(crate) struct OidcProvider {
    pub(crate) issuer: String,
    _process: Program,
}

/// How the provider is configured.
#[derive(Clone)]
pub(crate) struct ProviderOptions {
    /// Of the issuer.
    pub(crate) port: u16,
    /// Where logout tokens are sent.
    pub(crate) backchannel: String,
    /// Seconds until access tokens expire.
    pub(crate) access_seconds: u64,
    /// How many seconds its clock is ahead.
    pub(crate) clock_seconds: i64,
    /// The id of its signing key.
    pub(crate) key: &'static str,
}

impl ProviderOptions {
    /// For a site with one replica, or several of which this is the first.
    pub(crate) fn for_site(site: &Site) -> ProviderOptions {
        ProviderOptions {
            port: free_port([127, 0, 0, 1]),
            backchannel: format!("http://{}/ended", site.address_of("port")),
            access_seconds: 600,
            clock_seconds: 0,
            key: "first",
        }
    }

    pub(crate) fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts the provider, which accepts connections when this returns.
    pub(crate) fn start(&self) -> OidcProvider {
        let folder = node_packages("tests/identity");
        let options = json!({
            "port": self.port, "redirectUri": format!("{SHOP}/callback"), "postLogoutUri": format!("{SHOP}/bye"),
            "backchannelUri": self.backchannel, "accessSeconds": self.access_seconds,
            "clockSeconds": self.clock_seconds, "key": self.key,
        });
        let mut command = Command::new(format!("{folder}/node"));
        command.arg(root().join("tests/identity/provider.mjs")).args([&folder, &options.to_string()]);
        command.stdin(Stdio::null()).env("NODE_ENV", "test");
        let process = Program::start(command);
        let issuer = self.issuer();
        process.wait_stdout(|text| text.lines().any(|line| line == issuer).then_some(()));
        OidcProvider { issuer, _process: process }
    }
}

impl OidcProvider {
    /// The result of a token request of this client.
    pub(crate) fn token(&self, (id, secret): (&str, &str), form: &str) -> Value {
        self.post("/token", &basic(id, secret), form).json()
    }

    /// An access token of the client `robot`: a signed one for the resource of the shop's API, or an opaque one.
    pub(crate) fn robot_token(&self, is_signed: bool) -> String {
        let resource = if is_signed { "&resource=https%3A%2F%2Fapi.shop.example" } else { "" };
        let form = format!("grant_type=client_credentials&scope=read{resource}");
        let response = self.token(("robot", "robot secret"), &form);
        response["access_token"].as_str().unwrap_or_else(|| panic!("no token in {response}")).to_owned()
    }

    pub(crate) fn post(&self, path: &str, authorization: &str, form: &str) -> ClientResponse {
        let host = self.issuer.strip_prefix("http://").unwrap();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: {host}\r\n{authorization}content-type: application/x-www-form-urlencoded\r\n\
             content-length: {}\r\n\r\n{form}",
            form.len()
        );
        Connection::open(host).and_then(|mut connection| connection.send(&request)).unwrap()
    }
}

/// The credentials of a client as a header line. RFC 6749, section 2.3.1: both parts are encoded as in forms.
pub(crate) fn basic(id: &str, secret: &str) -> String {
    let secret = secret.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D").replace(' ', "%20");
    format!("authorization: Basic {}\r\n", STANDARD.encode(format!("{id}:{secret}")))
}
