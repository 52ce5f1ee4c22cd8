//! Browsers that reject cookies with `SameSite=None`, or take it for `SameSite=Strict`, by their `User-Agent`.
//!
//! <https://www.chromium.org/updates/same-site/incompatible-clients/>

use http::HeaderMap;
use http::header::USER_AGENT;

/// Whether the client is known not to support the value. A client without the field counts as one that does.
pub(super) fn lacks_same_site_none(headers: &HeaderMap) -> bool {
    headers.get(USER_AGENT).is_some_and(|agent| is_affected(&String::from_utf8_lossy(agent.as_bytes())))
}

fn is_affected(agent: &str) -> bool {
    let is_of_ios = ["iPhone", "iPad", "iPod"].iter().any(|device| agent.contains(device));
    let has_old_ios = || ["OS 12_", "OS 12 "].iter().any(|version| agent.contains(version));
    // Chrome on the same system has no `Version/`.
    let is_safari = || agent.contains("Version/") && agent.contains("Safari/") && !agent.contains("Chrom");
    let has_old_mac = || agent.contains("Macintosh; Intel Mac OS X 10_14");
    has_old_chrome(agent) || is_of_ios && has_old_ios() || has_old_mac() && is_safari()
}

fn has_old_chrome(agent: &str) -> bool {
    let after = ["Chrome/", "Chromium/"].iter().find_map(|name| Some(agent.split_once(name)?.1));
    let version = after.and_then(|after| after.split(|character: char| !character.is_ascii_digit()).next());
    version.and_then(|version| version.parse().ok()).is_some_and(|version: u32| (51..=66).contains(&version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_old_browsers_are_affected() {
        for (agent, expected) in [
            ("Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/51.0.2704 Safari/537.36", true),
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/66.0.3359 Safari/537.36", true),
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/67.0.3396 Safari/537.36", false),
            ("Mozilla/5.0 (Windows NT 10.0) AppleWebKit/537.36 Chrome/510.0 Safari/537.36", false),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 12_4 like Mac OS X) Version/12.1 Safari/604.1", true),
            ("Mozilla/5.0 (iPad; CPU OS 12_0 like Mac OS X) CriOS/80.0 Safari/604.1", true),
            ("Mozilla/5.0 (iPhone; CPU iPhone OS 13_1 like Mac OS X) Version/13.0 Safari/604.1", false),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/605.1 Version/12.1.2 Safari/605.1", true),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_14_6) AppleWebKit/537.36 Chrome/80.0 Safari/537.36", false),
            ("Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15) AppleWebKit/605.1 Version/13.0 Safari/605.1", false),
            ("curl/8.0", false),
            ("", false),
        ] {
            assert_eq!(is_affected(agent), expected, "{agent}");
        }
        assert!(!lacks_same_site_none(&HeaderMap::new()));
    }
}
