//! What decides about defaults besides flags.

use std::io::IsTerminal;
use std::num::NonZeroUsize;
use std::path::Path;

/// Facts about the terminal and the machine, gathered once so that parsing is a pure function.
#[derive(Clone, Copy, Debug)]
pub struct Environment {
    pub stdout_is_terminal: bool,
    pub stderr_is_terminal: bool,
    /// `NO_COLOR` is set and not empty.
    pub no_color: bool,
    pub cores: NonZeroUsize,
    /// This process runs in a Pod, with a service account.
    pub in_cluster: bool,
}

impl Environment {
    pub fn detect() -> Self {
        Environment {
            stdout_is_terminal: std::io::stdout().is_terminal(),
            stderr_is_terminal: std::io::stderr().is_terminal(),
            no_color: std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()),
            cores: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            in_cluster: std::env::var_os("KUBERNETES_SERVICE_HOST").is_some_and(|value| !value.is_empty())
                && Path::new(SERVICE_ACCOUNT_TOKEN).exists(),
        }
    }
}

const SERVICE_ACCOUNT_TOKEN: &str = "/var/run/secrets/kubernetes.io/serviceaccount/token";
