//! Which origins may read answers: entries of `origins` as Kong reads them, but for `https://*.shop.example`.

use regex::Regex;

use crate::plugin::{BuildCx, Invalid, said_of_expression};

/// What `Access-Control-Allow-Origin` says.
#[derive(Debug)]
pub(super) enum Origins {
    /// `*`, to everybody.
    Any,
    /// This, to everybody: an answer that only one origin can use needs no comparison.
    One(String),
    /// The origin that asks, if an entry matches it.
    Listed(Vec<Entry>),
}

#[derive(Debug)]
pub(super) enum Entry {
    Any,
    /// `scheme://host[:port]`, or a bare host, which matches nothing.
    Literal(String),
    Subdomains(Subdomains),
    /// Of the whole host.
    Host(Regex),
    /// Of the whole origin.
    Whole(Regex),
}

/// `https://*.shop.example`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Subdomains {
    /// None if any will do.
    scheme: Option<String>,
    /// With the dot before it.
    suffix: String,
    port: Port,
}

#[derive(Debug, PartialEq, Eq)]
enum Port {
    Default,
    Any,
    Number(String),
}

/// An origin that asks, its port left out if it is that of the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Asking<'o> {
    pub whole: &'o str,
    scheme: &'o str,
    host: &'o str,
    port: Option<&'o str>,
}

/// What an origin is answered.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict<'o> {
    Any,
    This(&'o str),
    No,
}

impl Origins {
    pub(super) fn parsed(texts: &[String], cx: &BuildCx<'_>) -> Result<Self, Vec<Invalid>> {
        let (mut entries, mut invalid) = (Vec::new(), Vec::new());
        for (at, text) in texts.iter().enumerate() {
            match Entry::parsed(text) {
                Ok(entry) => {
                    if matches!(entry, Entry::Subdomains(_)) {
                        cx.note(note(at, text));
                    }
                    entries.push(entry);
                }
                Err((message, remedy)) => invalid.push(Invalid::new(format!("origins[{at}]"), message, remedy)),
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        Ok(match &*entries {
            [] | [Entry::Any] => Origins::Any,
            [Entry::Literal(literal)] => Origins::One(literal.clone()),
            _ => Origins::Listed(entries),
        })
    }

    /// `None` is a request that does not say where it comes from.
    pub(super) fn verdict<'o>(&'o self, asking: Option<Asking<'o>>) -> Verdict<'o> {
        match self {
            Origins::Any => Verdict::Any,
            Origins::One(literal) => Verdict::This(literal),
            Origins::Listed(entries) => {
                let Some(asking) = asking else { return Verdict::No };
                match entries.iter().find(|entry| entry.matches(&asking)) {
                    Some(Entry::Any) => Verdict::Any,
                    Some(_) => Verdict::This(asking.whole),
                    None => Verdict::No,
                }
            }
        }
    }
}

impl Entry {
    fn parsed(text: &str) -> Result<Self, (String, &'static str)> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b".:/-".contains(&byte);
        if text == "*" {
            return Ok(Entry::Any);
        }
        if text.is_empty() {
            return Err(("is empty".to_owned(), "write an origin, such as https://shop.example"));
        }
        if text.bytes().all(is_plain) {
            let asking = Asking::parsed(text);
            return Ok(Entry::Literal(asking.map_or(text, |asking| asking.whole).to_owned()));
        }
        // As an expression, `//*.` would be slashes and any character: it means subdomains to whoever writes it.
        if text.contains("://*.") || text.starts_with("*.") {
            return Subdomains::parsed(text).map(Entry::Subdomains).ok_or_else(|| {
                let message = format!("{text:?} is neither an origin with `*` for the subdomains nor an expression");
                (message, "write https://*.shop.example, or an expression with `.*` where anything may stand")
            });
        }
        let anchored = format!("^(?:{text})$");
        let regex = Regex::new(&anchored).map_err(|error| {
            (
                said_of_expression(&error),
                "write an origin, or a regular expression without look-around and backreferences",
            )
        })?;
        Ok(if text.contains(':') { Entry::Whole(regex) } else { Entry::Host(regex) })
    }

    fn matches(&self, asking: &Asking<'_>) -> bool {
        match self {
            Entry::Any => true,
            Entry::Literal(literal) => asking.whole == literal,
            Entry::Subdomains(subdomains) => subdomains.include(asking),
            Entry::Host(regex) => regex.is_match(asking.host),
            Entry::Whole(regex) => regex.is_match(asking.whole),
        }
    }
}

impl Subdomains {
    fn parsed(text: &str) -> Option<Self> {
        let (scheme, rest) = match text.split_once("://") {
            Some(("*", rest)) => (None, rest),
            Some((scheme, rest)) => {
                let is_letter = |byte: u8| byte.is_ascii_alphanumeric() || b"+.-".contains(&byte);
                (Some(scheme).filter(|scheme| !scheme.is_empty() && scheme.bytes().all(is_letter))?.into(), rest)
            }
            None => (None, text),
        };
        let suffix = rest.strip_prefix('*')?;
        let (suffix, port) = match suffix.rsplit_once(':') {
            None => (suffix, Port::Default),
            Some((suffix, "*")) => (suffix, Port::Any),
            Some((suffix, port)) => {
                let port = port.parse::<u16>().ok()?;
                let is_default = scheme.and_then(default_port).is_some_and(|known| known == port.to_string());
                (suffix, if is_default { Port::Default } else { Port::Number(port.to_string()) })
            }
        };
        let is_label = |label: &str| {
            !label.is_empty() && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
        };
        let is_name = suffix.strip_prefix('.')?.split('.').all(is_label);
        let scheme = scheme.map(str::to_owned);
        is_name.then(|| Subdomains { scheme, suffix: suffix.to_ascii_lowercase(), port })
    }

    fn include(&self, asking: &Asking<'_>) -> bool {
        let port_fits = match &self.port {
            Port::Default => asking.port.is_none(),
            Port::Any => true,
            Port::Number(number) => asking.port == Some(number),
        };
        let is_below = asking.host.len() > self.suffix.len()
            && asking.host.is_char_boundary(asking.host.len() - self.suffix.len())
            && asking.host[asking.host.len() - self.suffix.len()..].eq_ignore_ascii_case(&self.suffix);
        let scheme_fits = self.scheme.as_ref().is_none_or(|scheme| scheme.eq_ignore_ascii_case(asking.scheme));
        scheme_fits && port_fits && is_below && !asking.host.starts_with('.')
    }
}

impl<'o> Asking<'o> {
    /// None of what is not `scheme://host[:port]`, such as `null`.
    pub(super) fn parsed(origin: &'o str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
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
                let whole = &origin[..origin.len() - port.len() - 1];
                Some(Asking { whole, scheme, host, port: None })
            }
            port => Some(Asking { whole: origin, scheme, host, port }),
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

fn note(at: usize, text: &str) -> Invalid {
    let message = format!(
        "{text:?} admits the subdomains and nothing else; Kong reads it as a regular expression, which admits no subdomain"
    );
    Invalid::new(format!("origins[{at}]"), message, "add the domain itself as an entry of its own if it is meant too")
}
