//! Hosts of routes: those that Kong accepts, as annotations of an Ingress write them.

/// The host as the annotation has it; `None` if Kong does not accept it. It is a name or an IPv4 address with an
/// optional port, an IPv6 address, or one in brackets with an optional port. A name may have a wildcard as its first or
/// last label.
pub(super) fn annotation_host(host: &str) -> Option<String> {
    let is_valid = match host.bytes().filter(|byte| *byte == b':').count() {
        0 | 1 => is_name_or_ipv4(host),
        _ if host.starts_with('[') => is_bracketed_ipv6(host),
        _ => return is_ipv6(host).then(|| format!("[{host}]")),
    };
    is_valid.then(|| host.to_owned())
}

fn is_name_or_ipv4(host: &str) -> bool {
    let (name, port) = match host.split_once(':') {
        Some((name, port)) => (name, Some(port)),
        None => (host, None),
    };
    if !port.is_none_or(is_port) {
        return false;
    }
    // Kong takes any text of digits and dots for an address.
    if name.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        let numbers: Vec<&str> = name.split('.').collect();
        return numbers.len() == 4 && numbers.iter().all(|number| number.len() <= 3 && number.parse::<u8>().is_ok());
    }
    let plain = name.strip_prefix("*.").or_else(|| name.strip_suffix(".*")).unwrap_or(name);
    // A name may end with a dot.
    let labels = plain.strip_suffix('.').unwrap_or(plain);
    let is_label = |label: &str| {
        let is_label_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        !label.is_empty() && !label.ends_with('-') && label.bytes().all(is_label_byte)
    };
    labels.split('.').all(is_label)
}

fn is_bracketed_ipv6(host: &str) -> bool {
    let Some((address, rest)) = host.strip_prefix('[').and_then(|host| host.split_once(']')) else { return false };
    is_ipv6(address) && (rest.is_empty() || rest.strip_prefix(':').is_some_and(is_port))
}

/// Kong's addresses have groups of hexadecimal digits only, and neither an IPv4 address at their end nor a zone.
fn is_ipv6(address: &str) -> bool {
    !address.contains('.') && address.parse::<std::net::Ipv6Addr>().is_ok()
}

fn is_port(port: &str) -> bool {
    port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts_that_kong_accepts() {
        for host in [
            "a.example",
            "A_1.example.",
            "-a.example",
            "*.a.example",
            "*.a.example:8080",
            "a.*",
            "a.example:0",
            "localhost:65535",
            "192.0.2.1",
            "192.0.2.001:80",
            "[::11]",
            "[2001:DB8::1]:321",
            "[1:2:3:4:5:6:7:8]",
        ] {
            assert_eq!(annotation_host(host).as_deref(), Some(host));
        }
        assert_eq!(annotation_host("::11").as_deref(), Some("[::11]"));
    }

    #[test]
    fn hosts_that_kong_rejects() {
        for host in [
            "",
            "*",
            "*.",
            "*a.example",
            "a.*.example",
            "*.*",
            "*.a.*",
            "a..example",
            ".example",
            "a-.example",
            "a b",
            "a/b",
            "a.example:",
            "a.example:x",
            "a.example:+1",
            "a.example:65536",
            "192.0.2",
            "256.0.2.1",
            "[::1",
            "[::1]:",
            "[::1]:80b",
            "[::1]:65536",
            "[::1]/96",
            "::1%eth0",
            "::ffff:192.0.2.1",
            "1:2:3",
            "a::b::c",
        ] {
            assert_eq!(annotation_host(host), None, "{host}");
        }
    }
}
