//! A server of secrets with the HTTP API of HashiCorp Vault and OpenBao, and how to log in to it.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The server, as a KongVault configures it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultServer {
    /// The object with the configuration: `KongVault/shop`.
    pub object: String,
    /// A name, or an IP address without brackets.
    pub host: String,
    pub port: u16,
    pub is_secure: bool,
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The value of `X-Vault-Namespace`.
    pub namespace: Option<String>,
    /// The path of the secrets engine.
    pub mount: String,
    pub kv: KvVersion,
    pub login: VaultLogin,
    /// How long a value is used before it is read again. `None`: it is read once.
    pub ttl: Option<Duration>,
    /// How long to wait after a failure.
    pub retry_after: Duration,
    /// How long the last value is used after its `ttl` while the server does not respond. `None`: without end.
    pub resurrect_ttl: Option<Duration>,
}

/// The version of the key-value secrets engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KvVersion {
    V1,
    V2,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum VaultLogin {
    Token(VaultToken),
    /// The token of the service account of this Pod is exchanged for one of the server.
    Kubernetes {
        role: String,
        auth_path: String,
        token_file: PathBuf,
    },
}

/// A text that no output shows.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct VaultToken(Arc<str>);

impl VaultToken {
    pub fn new(text: &str) -> Self {
        VaultToken(Arc::from(text))
    }

    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for VaultToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("VaultToken")
    }
}
