//! The prefixes of the annotations in this process, which a flag may replace. What is not read is not stored, so they
//! are known before objects are parsed.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use super::PREFIX;

static PREFIXES: OnceLock<Box<[Box<str>]>> = OnceLock::new();

/// Replaces the prefix of ingress-nginx by these domains, if there are any. Call it before objects are parsed.
pub fn set_prefixes(domains: &[String]) {
    if !domains.is_empty() {
        PREFIXES.get_or_init(|| domains.iter().map(|domain| format!("{domain}/").into()).collect());
    }
}

/// The prefixes, with the slash at their end; of several with the same annotation, the first one decides.
pub fn prefixes() -> impl Iterator<Item = &'static str> + Clone {
    let configured = PREFIXES.get().map(|prefixes| &**prefixes).unwrap_or_default();
    let default = configured.is_empty().then_some(PREFIX);
    configured.iter().map(|prefix| &**prefix).chain(default)
}

/// Whether a flag has replaced the prefix.
pub fn has_other_prefixes() -> bool {
    PREFIXES.get().is_some()
}

/// The key of one of the annotations of an object, as it is written there.
pub fn written_key<'m>(annotations: &'m BTreeMap<Arc<str>, Arc<str>>, name: &str) -> Option<&'m str> {
    prefixes().find_map(|prefix| annotations.get_key_value(&*format!("{prefix}{name}"))).map(|(key, _)| &**key)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of all tests, only those of the running program have other prefixes.
    #[test]
    fn the_prefix_of_ingress_nginx_is_the_default() {
        set_prefixes(&[]);
        assert!(prefixes().eq([PREFIX]) && !has_other_prefixes());
        let key = format!("{PREFIX}auth-url");
        let keys = [&*key, "web.example/auth-signin"];
        let annotations = keys.into_iter().map(|key| (Arc::from(key), Arc::from("a"))).collect();
        assert_eq!(written_key(&annotations, "auth-url"), Some(&*key));
        assert_eq!(written_key(&annotations, "auth-signin"), None);
    }
}
