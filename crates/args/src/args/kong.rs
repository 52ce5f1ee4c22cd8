//! Flags for compatibility with clients and backends of Kong.

use clap::builder::BoolishValueParser;
use clap::{Args, ValueEnum};

use crate::version::VERSION;

#[derive(Debug, Args)]
#[command(next_help_heading = "Kong")]
pub(super) struct KongArgs {
    /// Write Via, Server and X-Kong-... on responses of every route, or of none; default: routes of Ingresses and
    /// routes with Kong plugins or annotations
    #[arg(long, value_enum, value_name = "WHEN", env = "PORTICO_KONG_HEADERS")]
    kong_headers: Option<KongHeadersArg>,

    /// Product name in Via and Server; kong/3.9.1 for clients that check it
    #[arg(long, value_name = "NAME/VERSION", default_value_t = default_product_token(), env = "PORTICO_PRODUCT_TOKEN")]
    #[arg(value_parser = parse_product_token)]
    product_token: String,

    /// Export the metrics of Kong's dashboards for all routes, as if a global prometheus plugin with all metric
    /// families were configured
    #[arg(long, env = "PORTICO_KONG_METRICS", value_parser = BoolishValueParser::new())]
    kong_metrics: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KongHeadersArg {
    On,
    Off,
}

/// Kong compatibility, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KongOptions {
    /// `None`: decided per route.
    pub headers: Option<KongHeadersArg>,
    /// Name and version in `Via` and `Server`, without spaces, commas, brackets and quotes.
    pub product: String,
    /// Count the requests of all routes as Kong's prometheus plugin would.
    pub metrics: bool,
}

impl KongArgs {
    pub(super) fn resolve(self) -> KongOptions {
        KongOptions { headers: self.kong_headers, product: self.product_token, metrics: self.kong_metrics }
    }
}

fn default_product_token() -> String {
    format!("portico/{VERSION}")
}

fn parse_product_token(text: &str) -> Result<String, String> {
    let is_allowed = |byte: u8| byte.is_ascii_graphic() && !b",;()\"\\".contains(&byte);
    if text.is_empty() || !text.bytes().all(is_allowed) {
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
    fn product_tokens_are_validated() {
        for (text, is_valid) in
            [("kong/3.9.1", true), (&*default_product_token(), true), ("", false), ("a b", false), ("a,b", false)]
        {
            assert_eq!(parse_product_token(text).is_ok(), is_valid, "{text}");
        }
    }
}
