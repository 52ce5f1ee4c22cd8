//! When a request is sent to another endpoint, and how often: the annotations `proxy-next-upstream`,
//! `proxy-next-upstream-tries` and `proxy-next-upstream-timeout`.

use std::time::Duration;

use super::config_map::NginxConfig;
use super::value_reader::ValueReader;
use crate::snapshot::location_snippet::SnippetSettings;
use crate::snapshot::next_upstream::NextUpstream;
use crate::snapshot::timeouts_and_retries::RetryPolicy;

/// The settings of an Ingress, or else those of the ConfigMap.
#[derive(Debug)]
pub(super) struct Retries {
    on: NextUpstream,
    /// How often a request is sent; 0 without a limit.
    tries: u32,
    /// The seconds in which another attempt may begin; 0 without a limit.
    seconds: u64,
}

impl Retries {
    pub(super) fn read(reader: &mut ValueReader<'_>, config: &NginxConfig) -> Self {
        let on = reader.text("proxy-next-upstream").and_then(|text| NextUpstream::parse(text.split_whitespace()));
        let on = on.unwrap_or_else(|| config.next_upstream.clone());
        let tries = reader.number("proxy-next-upstream-tries").and_then(|tries| u32::try_from(tries).ok());
        let seconds = reader.number("proxy-next-upstream-timeout").and_then(|seconds| u64::try_from(seconds).ok());
        Retries {
            on: if config.retries_non_idempotent { on.with_non_idempotent() } else { on },
            tries: tries.unwrap_or(config.tries),
            seconds: seconds.unwrap_or(config.next_upstream_seconds),
        }
    }

    /// The retries of a rule. What its snippet says precedes the annotations.
    pub(super) fn policy(&self, snippet: Option<&SnippetSettings>) -> RetryPolicy {
        let tries = snippet.and_then(|snippet| snippet.max_attempts).unwrap_or(self.tries);
        let time = snippet.and_then(|snippet| snippet.next_upstream_time);
        let time = time.unwrap_or(Duration::from_secs(self.seconds));
        let on = snippet.and_then(|snippet| snippet.next_upstream.as_ref()).unwrap_or(&self.on);
        on.policy(retries_of(tries), (!time.is_zero()).then_some(time))
    }
}

/// How often a request is sent again. `tries`: how often it is sent, and 0 without a limit there, which here is the
/// largest number of attempts.
fn retries_of(tries: u32) -> u32 {
    match tries {
        0 => MAX_TRIES - 1,
        tries => tries.min(MAX_TRIES) - 1,
    }
}

/// The most attempts, in place of an unlimited number.
const MAX_TRIES: u32 = 10;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::api::ingress_nginx::PREFIX;
    use crate::snapshot::timeouts_and_retries::RetryScope;

    fn policy(annotations: &[(&str, &str)], config: &NginxConfig, snippet: Option<&SnippetSettings>) -> RetryPolicy {
        let annotations: serde_json::Map<_, _> =
            annotations.iter().map(|(name, value)| (format!("{PREFIX}{name}"), (*value).into())).collect();
        let meta = serde_json::from_value(json!({"namespace": "a", "name": "b", "annotations": annotations})).unwrap();
        let mut reader = ValueReader::new(&meta);
        Retries::read(&mut reader, config).policy(snippet)
    }

    #[test]
    fn annotations_precede_the_config_map() {
        let config = NginxConfig {
            next_upstream: NextUpstream::parse(["error", "http_502"]).unwrap(),
            next_upstream_seconds: 7,
            retries_non_idempotent: true,
            ..NginxConfig::default()
        };
        let (plain, default) = (NginxConfig::default(), RetryScope::default());
        let window = |seconds| Some(Duration::from_secs(seconds));
        let errors = RetryScope { timeouts: false, ..default };
        let of_config = RetryScope { non_idempotent: true, ..errors };
        for (annotations, config, retries, codes, scope) in [
            (&[][..], &plain, 2, &[][..], default),
            (&[("proxy-next-upstream-tries", "0")], &plain, 9, &[], default),
            (&[("proxy-next-upstream", " error  http_404 http_503")], &plain, 2, &[404, 503], errors),
            (&[("proxy-next-upstream", "off")], &plain, 0, &[], RetryScope { errors: false, ..errors }),
            (&[("proxy-next-upstream", "error, timeout")], &plain, 2, &[], default),
            (&[("proxy-next-upstream-timeout", "3")], &plain, 2, &[], RetryScope { window: window(3), ..default }),
            (&[("proxy-next-upstream-timeout", "3s")], &plain, 2, &[], default),
            (&[], &config, 2, &[502], RetryScope { window: window(7), ..of_config }),
            (
                &[("proxy-next-upstream", "error timeout"), ("proxy-next-upstream-timeout", "0")],
                &config,
                2,
                &[],
                RetryScope { timeouts: true, ..of_config },
            ),
        ] {
            let found = policy(annotations, config, None);
            assert_eq!((found.max_retries, &*found.codes, found.scope), (retries, codes, scope), "{annotations:?}");
        }
    }

    #[test]
    fn snippets_precede_annotations() {
        let annotations = [("proxy-next-upstream", "error"), ("proxy-next-upstream-timeout", "3")];
        let snippet = SnippetSettings {
            max_attempts: Some(5),
            next_upstream: NextUpstream::parse(["timeout"]),
            next_upstream_time: Some(Duration::ZERO),
            ..SnippetSettings::default()
        };
        let found = policy(&annotations, &NginxConfig::default(), Some(&snippet));
        assert_eq!((found.max_retries, found.scope), (4, RetryScope { errors: false, ..RetryScope::default() }));
    }
}
