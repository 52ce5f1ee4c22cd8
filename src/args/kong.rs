//! Flags about what clients and backends of Kong are used to.

use clap::{Args, ValueEnum};

use crate::version::VERSION;

#[derive(Debug, Args)]
#[command(next_help_heading = "Kong")]
pub(super) struct KongArgs {
    /// Write Via, Server and X-Kong-... under every route, or under none; without it under those of Ingress and under routes
    /// with plugins or annotations of Kong
    #[arg(long, value_enum, value_name = "WHEN", env = "PORTICO_KONG_HEADERS")]
    kong_headers: Option<KongHeaders>,

    /// What Via and Server name; kong/3.9.1 for clients that look for it
    #[arg(long, value_name = "NAME/VERSION", default_value_t = usual(), env = "PORTICO_PRODUCT_TOKEN")]
    #[arg(value_parser = product)]
    product_token: String,

    /// Show the metrics that Kong's dashboards know, of all routes, as if a prometheus plugin with all of its families were
    /// attached to everything
    #[arg(long, env = "PORTICO_KONG_METRICS")]
    kong_metrics: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KongHeaders {
    On,
    Off,
}

/// What Kong's clients see, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KongOptions {
    /// None leaves it to the route.
    pub headers: Option<KongHeaders>,
    /// One word without commas, brackets and quotes.
    pub product: String,
    /// Whether requests of all routes are counted as Kong's prometheus plugin would.
    pub metrics: bool,
}

impl KongArgs {
    pub(super) fn resolve(self) -> KongOptions {
        KongOptions { headers: self.kong_headers, product: self.product_token, metrics: self.kong_metrics }
    }
}

fn usual() -> String {
    format!("portico/{VERSION}")
}

fn product(text: &str) -> Result<String, String> {
    let is_part = |byte: u8| byte.is_ascii_graphic() && !b",;()\"\\".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_part) {
        return Err(
            "must be a name and a version, such as kong/3.9.1, without spaces, commas, brackets and quotes".into()
        );
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_be_named() {
        for (text, good) in [("kong/3.9.1", true), (&*usual(), true), ("", false), ("a b", false), ("a,b", false)] {
            assert_eq!(product(text).is_ok(), good, "{text}");
        }
    }
}
