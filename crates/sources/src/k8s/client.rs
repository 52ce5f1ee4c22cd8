//! Connects to the API server, from inside a Pod or with a kubeconfig. Every error names the file or flag that is wrong
//! and what would be right.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig, KubeconfigError};
use kube::{Client, Config};
use thiserror::Error;
use tower::layer::layer_fn;

use super::middleware::ApiMiddleware;

/// Where the address of the API server and the credentials come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// The service account of the Pod that this process runs in.
    InCluster,
    /// A kubeconfig; without a file, the one in `$KUBECONFIG` or in the home directory.
    Kubeconfig { file: Option<PathBuf>, context: Option<String> },
}

/// A client and the server it connects to.
#[derive(Clone)]
pub struct ApiConnection {
    pub client: Client,
    /// The URL of the API server.
    pub server: String,
    /// The context of the kubeconfig, if one is used.
    pub context: Option<String>,
}

/// Why no client could be created.
#[derive(Debug, Error)]
pub enum AccessError {
    #[error("{origin}: no kubeconfig was found; {remedy}")]
    Missing { origin: String, remedy: &'static str },
    #[error("{origin}: {file} cannot be read: {error}; name a file that exists and is readable")]
    Unreadable { origin: String, file: String, error: std::io::Error },
    #[error("{origin}: not a valid kubeconfig: {error}; correct the file")]
    NotKubeconfig { origin: String, error: String },
    #[error("{origin}: no context is given and current-context is not set; {remedy}")]
    NoContext { origin: String, remedy: String },
    #[error("{origin}: the file has no context {context}; {remedy}")]
    UnknownContext { origin: String, context: String, remedy: String },
    #[error("{origin}: context {context} names a cluster that is not in the file; add it under clusters")]
    UnknownCluster { origin: String, context: String },
    #[error("{origin}: the cluster of context {context} has no usable server: {error}; write https://HOST:PORT there")]
    NoServer { origin: String, context: String, error: String },
    #[error("{origin}: the credentials of context {context} cannot be used: {error}; correct them")]
    Credentials { origin: String, context: String, error: String },
    #[error(
        "the service account of this Pod cannot be used: {0}; set automountServiceAccountToken: true in the \
         Pod, or give --kubeconfig FILE"
    )]
    ServiceAccount(String),
}

impl Access {
    /// Creates a client. Reads all files again, so that a certificate or token that was replaced on disk takes effect.
    pub async fn connect(&self) -> Result<ApiConnection, AccessError> {
        let (config, context) = match self {
            Access::InCluster => {
                (Config::incluster().map_err(|error| AccessError::ServiceAccount(error_chain(&error)))?, None)
            }
            Access::Kubeconfig { context, .. } => {
                let kubeconfig = self.read_kubeconfig()?;
                let name = self.select_context(&kubeconfig, context.as_deref())?;
                (self.build_config(kubeconfig, &name).await?, Some(name))
            }
        };
        self.build_connection(config, context)
    }

    fn build_connection(&self, mut config: Config, context: Option<String>) -> Result<ApiConnection, AccessError> {
        // Callers retry and log failures themselves, because they know what the request was for.
        config.default_retry = false;
        config.connect_timeout = Some(CONNECT_TIMEOUT);
        // Ends a connection whose server or network path vanished without closing it. The timeout is longer than the
        // pause between bookmarks, which API servers send every minute but sometimes skip.
        config.read_timeout = Some(READ_TIMEOUT);
        config.reset_reader_on_write = true;
        let server = config.cluster_url.to_string().trim_end_matches('/').to_owned();
        let builder = ClientBuilder::try_from(config).map_err(|error| match &context {
            Some(context) => AccessError::Credentials {
                origin: self.to_string(),
                context: context.clone(),
                error: error_chain(&error),
            },
            None => AccessError::ServiceAccount(error_chain(&error)),
        })?;
        let client = builder.with_layer(&layer_fn(ApiMiddleware::new)).build();
        Ok(ApiConnection { client, server, context })
    }

    fn read_kubeconfig(&self) -> Result<Kubeconfig, AccessError> {
        let read = match self {
            Access::Kubeconfig { file: Some(file), .. } => Kubeconfig::read_from(file),
            Access::Kubeconfig { file: None, .. } | Access::InCluster => Kubeconfig::read(),
        };
        let origin = self.to_string();
        read.map_err(|error| match error {
            KubeconfigError::FindPath => {
                AccessError::Missing { origin, remedy: "give --kubeconfig FILE, or set KUBECONFIG" }
            }
            KubeconfigError::ReadConfig(error, file) => {
                AccessError::Unreadable { origin, file: file.display().to_string(), error }
            }
            error => AccessError::NotKubeconfig { origin, error: error_chain(&error) },
        })
    }

    fn select_context(&self, kubeconfig: &Kubeconfig, requested: Option<&str>) -> Result<String, AccessError> {
        let names: Vec<_> = kubeconfig.contexts.iter().map(|context| context.name.as_str()).collect();
        let remedy = match &*names {
            [] => "add one to the file, which has none".to_owned(),
            names => format!("give --context with one of {}", names.join(", ")),
        };
        let origin = self.to_string();
        let current = kubeconfig.current_context.as_deref().filter(|name| !name.is_empty());
        match requested.or(current) {
            None => Err(AccessError::NoContext { origin, remedy }),
            Some(name) if names.contains(&name) => Ok(name.to_owned()),
            Some(name) => Err(AccessError::UnknownContext { origin, context: name.to_owned(), remedy }),
        }
    }

    async fn build_config(&self, kubeconfig: Kubeconfig, context: &str) -> Result<Config, AccessError> {
        let options = KubeConfigOptions { context: Some(context.to_owned()), ..KubeConfigOptions::default() };
        let (origin, context) = (self.to_string(), context.to_owned());
        Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(|error| match error {
            KubeconfigError::LoadContext(_) | KubeconfigError::LoadClusterOfContext(_) => {
                AccessError::UnknownCluster { origin, context }
            }
            KubeconfigError::MissingClusterUrl | KubeconfigError::ParseClusterUrl(_) => {
                AccessError::NoServer { origin, context, error: error_chain(&error) }
            }
            error => AccessError::Credentials { origin, context, error: error_chain(&error) },
        })
    }

    /// What to do when the server does not respond, or responds with an error.
    pub(super) fn remedy(&self, error: &kube::Error) -> String {
        let origin = self.to_string();
        let text = request_error_text(error);
        match error {
            kube::Error::Api(status) if status.code == 401 => match self {
                Access::InCluster => {
                    "the token of the service account is rejected; check that the ServiceAccount exists".to_owned()
                }
                Access::Kubeconfig { .. } => {
                    format!("the credentials in {origin} are invalid or expired; renew them there")
                }
            },
            kube::Error::Api(status) if status.code == 403 => {
                "grant the ServiceAccount the permissions listed in manifests/, or use other credentials".to_owned()
            }
            kube::Error::Api(status) if status.code == 400 && text.contains("HTTPS server") => {
                format!("the server in {origin} expects TLS; write https:// there")
            }
            kube::Error::Api(_) => "Portico retries until the API server has recovered".to_owned(),
            kube::Error::Auth(_) => format!("correct the credentials in {origin}"),
            _ if text.contains("UnknownIssuer") || text.contains("certificate") => format!(
                "the certificate of the server cannot be verified with the certificate authority in {origin}; check \
                 the authority there, and the validity and the names of the certificate"
            ),
            _ => format!("check the address of the server in {origin}, and that the server is running"),
        }
    }
}

/// The name used in messages.
impl fmt::Display for Access {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Access::InCluster => formatter.write_str("the service account of this Pod"),
            Access::Kubeconfig { file: Some(file), .. } => write!(formatter, "--kubeconfig {}", file.display()),
            Access::Kubeconfig { file: None, .. } => match env::var_os("KUBECONFIG").filter(|path| !path.is_empty()) {
                Some(path) => write!(formatter, "KUBECONFIG {}", Path::new(&path).display()),
                None => formatter.write_str("the kubeconfig in the home directory"),
            },
        }
    }
}

impl fmt::Debug for ApiConnection {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("ApiConnection")
            .field("server", &self.server)
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

/// The error of a request, without the prefixes that kube's client adds.
pub(super) fn request_error_text(error: &kube::Error) -> String {
    match error {
        kube::Error::Service(error) => error_chain(&**error),
        kube::Error::HyperError(error) => error_chain(error),
        kube::Error::Auth(error) => error_chain(error),
        error => error_chain(error),
    }
}

/// An error with all its causes, in one line. Each cause appears once: libraries often repeat it in their own message.
pub(super) fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let sentence = error.to_string();
        if !text.contains(&sentence) {
            text += ": ";
            text += &sentence;
        }
        cause = error.source();
    }
    text.replace('\n', " ")
}

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const READ_TIMEOUT: Duration = Duration::from_secs(190);

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const GOOD: &str = "
        {current-context: here,
         contexts: [{name: here, context: {cluster: c, user: u}}, {name: lost, context: {cluster: d}}],
         clusters: [{name: c, cluster: {server: 'http://127.0.0.1:1/'}}], users: [{name: u, user: {token: t}}]}";

    async fn connect(text: &str, context: Option<&str>) -> Result<ApiConnection, String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        fs::write(&file, text).unwrap();
        let name = file.display().to_string();
        let access = Access::Kubeconfig { file: Some(file), context: context.map(str::to_owned) };
        access.connect().await.map_err(|error| error.to_string().replace(&name, "FILE"))
    }

    #[tokio::test]
    async fn kubeconfig_gives_server_and_context() {
        let connection = connect(GOOD, None).await.unwrap();
        assert_eq!((&*connection.server, connection.context.as_deref()), ("http://127.0.0.1:1", Some("here")));
    }

    #[tokio::test]
    async fn bad_kubeconfigs_are_reported_with_a_remedy() {
        let no_ca = GOOD.replace("'http://127.0.0.1:1/'", "'https://a', certificate-authority: /nowhere");
        let cases: &[(&str, Option<&str>, &str)] = &[
            ("[1]", None, "--kubeconfig FILE: not a valid kubeconfig: "),
            ("{}", None, "no context is given and current-context is not set; add one to the file, which has none"),
            (
                GOOD,
                Some("there"),
                "--kubeconfig FILE: the file has no context there; give --context with one of here, lost",
            ),
            (GOOD, Some("lost"), "context lost names a cluster that is not in the file; add it under clusters"),
            (&GOOD.replace("server: 'http://127.0.0.1:1/'", ""), None, "has no usable server"),
            (&GOOD.replace("http://127.0.0.1:1/", "a b"), None, "write https://HOST:PORT there"),
            (&no_ca, None, "/nowhere"),
        ];
        for (text, context, expected) in cases {
            let message = connect(text, *context).await.unwrap_err();
            assert!(message.contains(expected), "{text}\n{message}");
        }
        let nowhere = Access::Kubeconfig { file: Some("/nowhere/config".into()), context: None };
        let message = nowhere.connect().await.unwrap_err().to_string();
        assert!(message.starts_with("--kubeconfig /nowhere/config: /nowhere/config cannot be read: "), "{message}");
    }
}
