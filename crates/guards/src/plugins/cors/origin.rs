//! Matching of origins with the entries of `origins`. Entries have Kong's syntax, except for `https://*.shop.example`.

use regex::Regex;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    BuildCx, MAX_PLUGIN_REGEX_STEPS, RemainingRegexSteps, count_regex_states, regex_error_message,
};

/// The configured origins.
#[derive(Debug)]
pub(super) enum OriginRules {
    /// Returns `*` to all requests.
    Any,
    /// Returns this origin to all requests. Browsers compare it with the origin of the page.
    Single(String),
    /// Returns the origin of the request, if it matches an entry; or `*`, if `*` is the first entry that matches.
    /// `states`: the number of states of all expressions.
    Listed { entries: Vec<OriginEntry>, states: usize },
}

/// An entry of `origins`.
#[derive(Debug)]
pub(super) enum OriginEntry {
    /// `*`.
    Any,
    /// `scheme://host[:port]`. Without a scheme, the entry matches no origin of a browser.
    Literal(String),
    Subdomains(Subdomains),
    /// Matches the whole host.
    Host(Regex),
    /// Matches the whole origin.
    Origin(Regex),
}

/// An entry such as `https://*.shop.example` or `*.shop.example`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subdomains {
    /// `None` matches any scheme.
    scheme: Option<String>,
    /// The domain with a leading dot.
    suffix: String,
    port: PortRule,
}

#[derive(Debug, PartialEq, Eq)]
enum PortRule {
    /// No port, or the default port of the scheme.
    Default,
    Any,
    Number(String),
}

/// A parsed origin, without the port if it is the default port of the scheme. A text without `://`, such as
/// `shop.example` or `null`, is a host without a scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ParsedOrigin<'o> {
    pub text: &'o str,
    scheme: &'o str,
    host: &'o str,
    port: Option<&'o str>,
}

/// The value of `Access-Control-Allow-Origin` for a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum AllowOrigin<'o> {
    Any,
    Exact(&'o str),
    Denied,
}

impl OriginRules {
    /// Parses `origins`. Adds a note for each entry that Kong interprets differently.
    pub(super) fn parse(texts: &[String], cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let (mut entries, mut invalid) = (Vec::new(), Vec::new());
        for (index, text) in texts.iter().enumerate() {
            match OriginEntry::parse(text) {
                Ok(entry) => {
                    if matches!(entry, OriginEntry::Subdomains(_)) {
                        cx.note(subdomains_note(index, text));
                    }
                    entries.push(entry);
                }
                Err((message, remedy)) => {
                    invalid.push(Diagnostic::in_config(format!("origins[{index}]"), message, remedy))
                }
            }
        }
        let patterns: Vec<_> = entries.iter().filter_map(OriginEntry::pattern).collect();
        let mut states = 0;
        if !patterns.is_empty() {
            match count_regex_states("origins", &patterns, MAX_PLUGIN_REGEX_STEPS / MAX_ORIGIN_BYTES) {
                Ok(count) => states = count,
                Err(problem) => invalid.push(problem),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(match &*entries {
            [] | [OriginEntry::Any] => OriginRules::Any,
            [OriginEntry::Literal(literal)] => OriginRules::Single(literal.clone()),
            _ => OriginRules::Listed { entries, states },
        })
    }

    /// Decides on the origin of a request, which is `None` if `Origin` is absent or invalid. If the expressions would
    /// take more than the remaining steps, they match nothing.
    pub(super) fn decide<'o>(
        &'o self,
        origin: Option<ParsedOrigin<'o>>,
        steps: &mut RemainingRegexSteps,
    ) -> AllowOrigin<'o> {
        match self {
            OriginRules::Any => AllowOrigin::Any,
            OriginRules::Single(literal) => AllowOrigin::Exact(literal),
            OriginRules::Listed { entries, states } => {
                let Some(origin) = origin else { return AllowOrigin::Denied };
                let length = origin.text.len();
                let with_regexes = *states > 0 && length <= MAX_ORIGIN_BYTES && steps.take(*states, length);
                match entries.iter().find(|entry| entry.matches(&origin, with_regexes)) {
                    Some(OriginEntry::Any) => AllowOrigin::Any,
                    Some(_) => AllowOrigin::Exact(origin.text),
                    None => AllowOrigin::Denied,
                }
            }
        }
    }
}

impl OriginEntry {
    fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let is_literal_byte = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte);
        if text == "*" {
            return Ok(OriginEntry::Any);
        }
        if text.is_empty() {
            return Err(("is empty".to_owned(), "write an origin, such as https://shop.example"));
        }
        if text.bytes().all(is_literal_byte) {
            let origin = ParsedOrigin::parse(text);
            return Ok(OriginEntry::Literal(origin.map_or(text, |origin| origin.text).to_owned()));
        }
        // As a regular expression, `//*.` would match any number of slashes and one more character, which is not
        // intended.
        if text.contains("://*.") || text.starts_with("*.") {
            return Subdomains::parse(text).map(OriginEntry::Subdomains).ok_or_else(|| {
                let message = format!("{text:?} is not an origin with a leading `*.` in its host");
                (message, "use https://*.shop.example, or a regular expression with `.*` as the wildcard")
            });
        }
        if let Some(index) = text.find("**").filter(|index| !text[..*index].ends_with('\\')) {
            let message = format!("is not a valid regular expression: nothing to repeat at {}", index + 1);
            return Err((message, "write `*` once, or `\\*` for an asterisk"));
        }
        let anchored = format!("^(?:{text})$");
        let regex = Regex::new(&anchored).map_err(|error| {
            (
                regex_error_message(&error),
                "write an origin or a valid regular expression; look-around and backreferences are not supported",
            )
        })?;
        Ok(if text.contains(':') { OriginEntry::Origin(regex) } else { OriginEntry::Host(regex) })
    }

    /// The text of the regular expression if the entry is one.
    fn pattern(&self) -> Option<&str> {
        match self {
            OriginEntry::Host(regex) | OriginEntry::Origin(regex) => Some(regex.as_str()),
            OriginEntry::Any | OriginEntry::Literal(_) | OriginEntry::Subdomains(_) => None,
        }
    }

    fn matches(&self, origin: &ParsedOrigin<'_>, with_regexes: bool) -> bool {
        match self {
            OriginEntry::Any => true,
            OriginEntry::Literal(literal) => origin.text == literal,
            OriginEntry::Subdomains(subdomains) => subdomains.matches(origin),
            OriginEntry::Host(regex) => with_regexes && regex.is_match(origin.host),
            OriginEntry::Origin(regex) => with_regexes && regex.is_match(origin.text),
        }
    }
}

/// The length of the longest origin that expressions are matched with, in bytes. A host name has at most 253.
const MAX_ORIGIN_BYTES: usize = 512;

impl Subdomains {
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("*", rest)) => (None, rest),
            Some((scheme, rest)) => {
                let is_scheme_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
                if scheme.is_empty() || !scheme.bytes().all(is_scheme_byte) {
                    return None;
                }
                (Some(scheme), rest)
            }
            None => (None, text),
        };
        let suffix = rest.strip_prefix('*')?;
        let (suffix, port) = match suffix.rsplit_once(':') {
            None => (suffix, PortRule::Default),
            Some((suffix, "*")) => (suffix, PortRule::Any),
            Some((suffix, port)) => {
                let port = port.parse::<u16>().ok()?;
                let is_default = scheme.and_then(default_port).is_some_and(|default| default == port.to_string());
                (suffix, if is_default { PortRule::Default } else { PortRule::Number(port.to_string()) })
            }
        };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_domain = suffix.strip_prefix('.')?.split('.').all(is_label);
        let scheme = scheme.map(str::to_owned);
        is_domain.then(|| Subdomains { scheme, suffix: suffix.to_ascii_lowercase(), port })
    }

    fn matches(&self, origin: &ParsedOrigin<'_>) -> bool {
        let port_matches = match &self.port {
            PortRule::Default => origin.port.is_none(),
            PortRule::Any => true,
            PortRule::Number(number) => origin.port == Some(number),
        };
        let is_subdomain = origin.host.len() > self.suffix.len()
            && origin.host.is_char_boundary(origin.host.len() - self.suffix.len())
            && origin.host[origin.host.len() - self.suffix.len()..].eq_ignore_ascii_case(&self.suffix);
        let scheme_matches = self.scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(origin.scheme));
        !origin.scheme.is_empty() && scheme_matches && port_matches && is_subdomain && !origin.host.starts_with('.')
    }
}

impl<'o> ParsedOrigin<'o> {
    /// `None` if the origin is empty or not `scheme://host[:port]` although it has a scheme.
    pub(super) fn parse(origin: &'o str) -> Option<Self> {
        let Some((scheme, authority)) = origin.split_once("://") else {
            return (!origin.is_empty()).then_some(ParsedOrigin { text: origin, scheme: "", host: origin, port: None });
        };
        let is_authority = !authority.is_empty() && !authority.contains(['/', '?', '#', '@', '\\']);
        if scheme.is_empty() || !is_authority {
            return None;
        }
        let (host, port) = match authority.rsplit_once(':') {
            Some((host, port)) if !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit()) => {
                (host, Some(port))
            }
            _ => (authority, None),
        };
        match port {
            Some(port) if default_port(scheme) == Some(port) => {
                let without_port = &origin[..origin.len() - port.len() - 1];
                Some(ParsedOrigin { text: without_port, scheme, host, port: None })
            }
            port => Some(ParsedOrigin { text: origin, scheme, host, port }),
        }
    }
}

fn default_port(scheme: &str) -> Option<&'static str> {
    match scheme {
        "http" => Some("80"),
        "https" => Some("443"),
        _ => None,
    }
}

fn subdomains_note(index: usize, text: &str) -> Diagnostic {
    let message = format!(
        "{text:?} allows all subdomains, but not the domain itself; Kong would interpret it as a regular expression"
    );
    Diagnostic::in_config(
        format!("origins[{index}]"),
        message,
        "add another entry for the domain itself if it is allowed, too",
    )
}
