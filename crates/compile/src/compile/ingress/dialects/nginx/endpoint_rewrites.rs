//! The annotations about URLs and cookies in responses of the backend, as the directives of nginx that they become.

use super::config_map::NginxConfig;
use super::value_reader::{ValueReader, written};
use crate::snapshot::location_snippet::EndpointRewrites;
use crate::snapshot::regex::RegexLimit;

/// The annotations, and the keys of the ConfigMap with their names.
pub(super) const NAMES: [&str; 4] =
    ["proxy-cookie-domain", "proxy-cookie-path", "proxy-redirect-from", "proxy-redirect-to"];

/// The rewrites of an Ingress. A kind that is switched off is one that it does not have.
pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig, limit: RegexLimit) -> EndpointRewrites {
    let mut rewrites = EndpointRewrites::default();
    for (annotation, directive) in
        [("proxy-cookie-domain", "proxy_cookie_domain"), ("proxy-cookie-path", "proxy_cookie_path")]
    {
        let Some(value) = value(reader, config, annotation) else { continue };
        let words: Vec<&str> = value.split_whitespace().collect();
        let added = match words.len() {
            2 => rewrites.add_directive(directive, &words, limit).map_err(|refused| refused.message),
            _ => Err("it is not one text and its replacement".to_owned()),
        };
        if let Err(problem) = added {
            reader.note(annotation, &problem, "write off, or the text to replace, a space and the new text");
        }
    }
    let to = value(reader, config, "proxy-redirect-to");
    let from = value(reader, config, "proxy-redirect-from");
    match (from.as_deref().map(str::trim), to.as_deref().map(str::trim)) {
        (None, _) if written(reader.meta, "proxy-redirect-to").is_some() => {
            reader.note_without(&["proxy-redirect-to"], "proxy-redirect-from");
        }
        // The default is a URL that backends do not know: the one that nginx uses inside of ingress-nginx.
        (None | Some("default"), _) => {}
        (Some(_), None) => reader.note_without(&["proxy-redirect-from"], "proxy-redirect-to"),
        (Some(from), Some(to)) => {
            let has_one_word = [from, to].iter().all(|text| !text.contains(char::is_whitespace));
            let added = match has_one_word {
                true => rewrites.add_directive("proxy_redirect", &[from, to], limit).map_err(|refused| refused.message),
                false => Err("one of both URLs has a space".to_owned()),
            };
            if let Err(problem) = added {
                reader.note("proxy-redirect-from", &problem, "write how the URLs begin that are replaced");
            }
        }
    }
    rewrites
}

/// What the annotation says, or else the ConfigMap. `None` if it switches the rewrites off.
fn value(reader: &mut ValueReader<'_>, config: &NginxConfig, name: &'static str) -> Option<String> {
    let value = reader.text(name).or_else(|| config.endpoint_rewrites.get(name).map(|value| &**value));
    value.filter(|value| value.trim() != "off").map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;

    /// Whether there are rewrites, and how many warnings.
    fn found(annotations: &[(&str, &str)], config: &[(&str, &str)]) -> (bool, usize) {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
        let keys = config.iter().map(|(name, value)| ((*name).into(), (*value).into())).collect();
        let config = NginxConfig { endpoint_rewrites: keys, ..NginxConfig::default() };
        let mut reader = ValueReader::new(&meta);
        let rewrites = read(&mut reader, &config, RegexLimit::MEMORY_ONLY);
        assert!(reader.errors.is_empty());
        (!rewrites.is_empty(), reader.notes.len())
    }

    #[test]
    fn values_become_rewrites_or_warnings() {
        let from = ("proxy-redirect-from", "http://b/");
        for (annotations, config, expected) in [
            (&[][..], &[][..], (false, 0)),
            (&[("proxy-cookie-path", "/one/ /")], &[], (true, 0)),
            (&[("proxy-cookie-path", "/one/")], &[], (false, 1)),
            (&[("proxy-cookie-path", "/ \"/; Secure\"")], &[], (false, 1)),
            (&[("proxy-cookie-path", "off")], &[("proxy-cookie-path", "/a /")], (false, 0)),
            (&[], &[("proxy-cookie-path", "/a /")], (true, 0)),
            (&[("proxy-cookie-domain", "a.example b.example")], &[], (true, 0)),
            (&[from, ("proxy-redirect-to", "/")], &[], (true, 0)),
            (&[from], &[("proxy-redirect-to", "/")], (true, 0)),
            (&[from], &[], (false, 1)),
            (&[from, ("proxy-redirect-to", "off")], &[], (false, 1)),
            (&[("proxy-redirect-from", "default")], &[("proxy-redirect-to", "/")], (false, 0)),
            (
                &[("proxy-redirect-from", "off")],
                &[("proxy-redirect-from", "a"), ("proxy-redirect-to", "/")],
                (false, 0),
            ),
            (&[("proxy-redirect-to", "/")], &[], (false, 1)),
            (&[("proxy-redirect-from", "http://a http://b"), ("proxy-redirect-to", "/")], &[], (false, 1)),
        ] {
            assert_eq!(found(annotations, config), expected, "{annotations:?} {config:?}");
        }
    }
}
