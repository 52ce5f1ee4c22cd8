//! Flags for where this process is, by which near endpoints are preferred.

use clap::Args;

#[derive(Debug, Args)]
#[command(next_help_heading = "Sources")]
pub(super) struct LocationArgs {
    /// Zone that this process is in, for Services whose endpoints in the same zone are preferred; the EndpointSlice
    /// with the Pod of this process precedes it
    #[arg(long, value_name = "NAME", env = "PORTICO_ZONE", value_parser = parse_zone)]
    zone: Option<String>,

    /// Node that this process runs on, for Services whose endpoints on the same node are preferred; the EndpointSlice
    /// with the Pod of this process precedes it; default: the environment variable NODE_NAME
    #[arg(long, value_name = "NAME", env = "PORTICO_NODE", value_parser = parse_node)]
    node: Option<String>,
}

/// Where this process is, as far as the flags say it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LocationOptions {
    pub zone: Option<String>,
    pub node: Option<String>,
}

impl LocationArgs {
    pub(super) fn resolve(self) -> LocationOptions {
        let LocationArgs { zone, node } = self;
        LocationOptions { zone, node }
    }
}

/// The name of a zone, which is the value of a label.
fn parse_zone(text: &str) -> Result<String, String> {
    let is_inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let has_valid_ends = |text: &str| {
        let is_end = |byte: Option<u8>| byte.is_some_and(|byte| byte.is_ascii_alphanumeric());
        is_end(text.bytes().next()) && is_end(text.bytes().last())
    };
    match text.len() <= 63 && text.bytes().all(is_inner) && has_valid_ends(text) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a zone; write the label topology.kubernetes.io/zone of the node".to_owned()),
    }
}

/// The name of a node, which is a DNS name.
fn parse_node(text: &str) -> Result<String, String> {
    let is_label = |label: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(is_inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    match text.len() <= 253 && text.split('.').all(is_label) {
        true => Ok(text.to_owned()),
        false => Err("not the name of a node; write its metadata.name, as kubectl get nodes shows it".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_kubernetes() {
        for zone in ["eu-central-1a", "A_1.b", "z"] {
            assert_eq!(parse_zone(zone), Ok(zone.to_owned()));
        }
        for zone in ["", "-a", "a.", "a b", "é", &"a".repeat(64)] {
            assert!(parse_zone(zone).is_err(), "{zone}");
        }
        for node in ["worker-1", "ip-10-0-0-1.eu-central-1.compute.internal", "1"] {
            assert_eq!(parse_node(node), Ok(node.to_owned()));
        }
        for node in ["", "a..b", "-a", "a-", "A", "a_b", "a.", &"a".repeat(254)] {
            assert!(parse_node(node).is_err(), "{node}");
        }
    }
}
