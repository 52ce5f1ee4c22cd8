//! What the annotations of an Ingress ask for, after the defaults for values that the original does not accept.

use super::model::TestIngress;

/// Settings that all paths of an Ingress share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Settings {
    pub(crate) rewrite_target: Option<String>,
    pub(crate) use_regex: bool,
    pub(crate) app_root: Option<String>,
    pub(crate) ssl_redirect: bool,
    pub(crate) force_ssl_redirect: bool,
    pub(crate) preserve_trailing_slash: bool,
    pub(crate) redirect: Option<Redirect>,
    pub(crate) forwarded_prefix: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redirect {
    pub(crate) code: u16,
    pub(crate) url: String,
}

impl Settings {
    pub(crate) fn of(ingress: &TestIngress) -> Settings {
        let text = |name: &str| ingress.annotation(name).filter(|value| is_path_with_captures(value));
        let flag = |name: &str, default| ingress.annotation(name).and_then(parse_bool).unwrap_or(default);
        Settings {
            rewrite_target: text("rewrite-target").map(str::to_owned),
            use_regex: flag("use-regex", false),
            app_root: text("app-root").filter(|path| path.starts_with('/')).map(str::to_owned),
            ssl_redirect: flag("ssl-redirect", true),
            force_ssl_redirect: flag("force-ssl-redirect", false),
            preserve_trailing_slash: flag("preserve-trailing-slash", false),
            redirect: redirect(ingress),
            forwarded_prefix: text("x-forwarded-prefix").map(str::to_owned),
        }
    }

    /// Without annotations: those of the default server.
    pub(crate) fn none() -> Settings {
        Settings {
            rewrite_target: None,
            use_regex: false,
            app_root: None,
            ssl_redirect: false,
            force_ssl_redirect: false,
            preserve_trailing_slash: false,
            redirect: None,
            forwarded_prefix: None,
        }
    }
}

/// The temporal redirect has precedence over the permanent one.
fn redirect(ingress: &TestIngress) -> Option<Redirect> {
    let code = |name: &str, highest: u16, default: u16| {
        let code = ingress.annotation(name).and_then(|code| code.parse().ok());
        code.filter(|code| (300..=highest).contains(code)).unwrap_or(default)
    };
    if let Some(url) = ingress.annotation("temporal-redirect") {
        // Another scheme drops the whole group, also a permanent redirect.
        let code = code("temporal-redirect-code", 307, 302);
        return url.starts_with("http").then(|| Redirect { code, url: url.to_owned() });
    }
    let url = ingress.annotation("permanent-redirect")?;
    Some(Redirect { code: code("permanent-redirect-code", 308, 301), url: url.to_owned() })
}

/// Booleans as Go reads them.
fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// The characters of paths that may have captures. Others, as a query, make the value absent.
fn is_path_with_captures(value: &str) -> bool {
    value.chars().all(|character| character.is_ascii_alphanumeric() || "-._~/:$".contains(character))
}

#[cfg(test)]
mod tests {
    use super::super::expectations::ingress;
    use super::*;

    #[test]
    fn values_that_are_not_accepted_are_absent() {
        let settings = |annotations: &[(&str, &str)]| Settings::of(&ingress("a", "h", annotations, &[]));
        assert!(settings(&[]).ssl_redirect);
        assert!(settings(&[("ssl-redirect", "no")]).ssl_redirect);
        assert!(!settings(&[("ssl-redirect", "F")]).ssl_redirect);
        assert!(!settings(&[("use-regex", "yes")]).use_regex);
        assert_eq!(settings(&[("rewrite-target", "/a?b")]).rewrite_target, None);
        assert_eq!(settings(&[("rewrite-target", "https://h/$1")]).rewrite_target.as_deref(), Some("https://h/$1"));
        assert_eq!(settings(&[("app-root", "https://h/")]).app_root, None);
    }

    #[test]
    fn codes_out_of_range_are_the_default() {
        let code = |annotations: &[(&str, &str)]| {
            Settings::of(&ingress("a", "h", annotations, &[])).redirect.map(|redirect| redirect.code)
        };
        assert_eq!(code(&[("permanent-redirect", "/x"), ("permanent-redirect-code", "308")]), Some(308));
        assert_eq!(code(&[("permanent-redirect", "/x"), ("permanent-redirect-code", "404")]), Some(301));
        assert_eq!(code(&[("temporal-redirect", "http://x"), ("temporal-redirect-code", "308")]), Some(302));
        assert_eq!(code(&[("temporal-redirect", "http://x"), ("permanent-redirect", "/x")]), Some(302));
        assert_eq!(code(&[("temporal-redirect", "ftp://x"), ("permanent-redirect", "/x")]), None);
        assert_eq!(code(&[("permanent-redirect-code", "308")]), None);
    }
}
