//! Rewrites what responses of endpoints say about their own URLs: `Location` and `Refresh` by `proxy_redirect`, and
//! `Set-Cookie` by the directives whose names begin with `proxy_cookie_`. The first one that matches a value counts.

use std::sync::Arc;

use http::header::{LOCATION, REFRESH, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::directive_tree::WrittenDirective;
use super::expression::SnippetRegex;
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use super::set_cookie::{CookieFieldParts, CookieFlags};
use super::text::{KnownVariables, PartValues, SnippetText, TextPart, TextPhase};
use super::value_rewrite::{UnknownValue, ValueRewrite, expand, rewritten};
use super::variable::SnippetVariable;
use crate::snapshot::redirect::RedirectBase;
use crate::snapshot::regex::RegexLimit;
use crate::snapshot::regex_steps::{RegexInput, RegexSteps};

/// The rewrites of a location. `None` for a kind of which it has none, so that it has those around it; a list is empty
/// because of `off`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct EndpointRewrites {
    /// What precedes a path as the new `Location`.
    pub base: RedirectBase,
    redirects: Option<Arc<Vec<ValueRewrite>>>,
    cookie_paths: Option<Arc<Vec<ValueRewrite>>>,
    cookie_domains: Option<Arc<Vec<ValueRewrite>>>,
    cookie_flags: Option<Arc<Vec<FlagRule>>>,
}

/// The flags of some cookies.
#[derive(Clone, Debug, PartialEq)]
struct FlagRule {
    cookie: CookiePattern,
    /// Those that depend on nothing.
    flags: CookieFlags,
    /// Each becomes a flag, or nothing.
    expanded: Box<[SnippetText]>,
}

/// Names of cookies, in any case.
#[derive(Clone, Debug, PartialEq)]
enum CookiePattern {
    Name(SnippetText),
    Expression(SnippetRegex),
}

impl EndpointRewrites {
    /// Adds a directive outside of a snippet, whose texts have no variables of a snippet.
    ///
    /// # Errors
    ///
    /// If the directive is none of these, or nginx would not accept it.
    pub fn add_directive(&mut self, name: &str, arguments: &[&str], limit: RegexLimit) -> Result<(), RefusedSnippet> {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let directive = WrittenDirective { name: name.to_owned(), line: 1, arguments, block: None };
        let refuse = |refusal| directive.refuse(refusal, false);
        match self.add(&directive, &KnownVariables::default(), limit).map_err(refuse)? {
            true => Ok(()),
            false => Err(refuse(DirectiveRefusal::invalid("rewrites no responses"))),
        }
    }

    /// Adds a directive. `Ok(false)` if it is about something else.
    pub(super) fn add(
        &mut self,
        directive: &WrittenDirective,
        scope: &KnownVariables,
        limit: RegexLimit,
    ) -> Result<bool, DirectiveRefusal> {
        match &directive.name[..] {
            "proxy_redirect" if is_one(directive, "default") => {
                let message = "stands before `proxy_pass`, so that nginx does not know the default";
                return Err(DirectiveRefusal::new(message, "write the URL that is replaced, and its replacement"));
            }
            "proxy_redirect" => {
                add_value(&mut self.redirects, directive, |arguments| ValueRewrite::of_prefix(arguments, scope, limit))?
            }
            "proxy_cookie_path" => add_value(&mut self.cookie_paths, directive, |arguments| {
                ValueRewrite::of_prefix(arguments, scope, limit)
            })?,
            "proxy_cookie_domain" => add_value(&mut self.cookie_domains, directive, |arguments| {
                ValueRewrite::of_domain(arguments, scope, limit)
            })?,
            "proxy_cookie_flags" => match is_one(directive, "off") {
                true => add_off(&mut self.cookie_flags)?,
                false => add_to(&mut self.cookie_flags, FlagRule::parse(directive, scope, limit)?)?,
            },
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// Whether a directive with this name is one of these.
    pub(super) fn has(name: &str) -> bool {
        name == "proxy_redirect" || OF_COOKIES.contains(&name)
    }

    /// Whether ingress-nginx itself writes the directive with this name into every location, so that none around it has
    /// an effect.
    pub(super) fn is_of_each_location(name: &str) -> bool {
        EndpointRewrites::has(name) && name != "proxy_cookie_flags"
    }

    /// Adds the kinds that this one does not have.
    pub(super) fn inherit(&mut self, outer: &EndpointRewrites) {
        let EndpointRewrites { base, redirects, cookie_paths, cookie_domains, cookie_flags } = outer;
        if self.base == RedirectBase::default() {
            self.base = *base;
        }
        self.redirects = self.redirects.take().or_else(|| redirects.clone());
        self.cookie_paths = self.cookie_paths.take().or_else(|| cookie_paths.clone());
        self.cookie_domains = self.cookie_domains.take().or_else(|| cookie_domains.clone());
        self.cookie_flags = self.cookie_flags.take().or_else(|| cookie_flags.clone());
    }

    /// Whether responses stay as they are.
    pub fn is_empty(&self) -> bool {
        self.names().next().is_none()
    }

    /// Whether a text has a field of the endpoint's response.
    pub(super) fn reads_upstream_fields(&self) -> bool {
        self.texts().any(SnippetText::reads_upstream_fields)
    }

    /// The bytes that its automata take, about.
    pub fn regex_bytes(&self) -> usize {
        let of_flags = list(&self.cookie_flags).iter().map(|rule| match &rule.cookie {
            CookiePattern::Expression(regex) => regex.bytes,
            CookiePattern::Name(_) => 0,
        });
        self.rewrites().map(ValueRewrite::regex_bytes).chain(of_flags).sum()
    }

    /// The fields that may change.
    pub(super) fn names(&self) -> impl Iterator<Item = &HeaderName> {
        let of_redirects = if list(&self.redirects).is_empty() { &[][..] } else { &REDIRECT_FIELDS };
        of_redirects.iter().chain(self.edits_cookies().then_some(&COOKIE_FIELD))
    }

    /// The texts that are expanded.
    pub(super) fn texts(&self) -> impl Iterator<Item = &SnippetText> {
        let of_flags = list(&self.cookie_flags).iter().flat_map(|rule| {
            let name = match &rule.cookie {
                CookiePattern::Name(name) => Some(name),
                CookiePattern::Expression(_) => None,
            };
            name.into_iter().chain(&rule.expanded)
        });
        self.rewrites().flat_map(ValueRewrite::texts).chain(of_flags)
    }

    /// The variables that a redirect to a path needs, because nginx writes it with scheme and host.
    pub(super) fn variables_of_redirects(&self) -> &'static [SnippetVariable] {
        let [scheme_and_host @ .., _] = &OF_ABSOLUTE_URL;
        match self.base {
            _ if list(&self.redirects).is_empty() => &[],
            RedirectBase::HostAndPort => &OF_ABSOLUTE_URL,
            RedirectBase::Host | RedirectBase::Nothing => scheme_and_host,
        }
    }

    fn rewrites(&self) -> impl Iterator<Item = &ValueRewrite> {
        let of_cookies = list(&self.cookie_paths).iter().chain(list(&self.cookie_domains));
        list(&self.redirects).iter().chain(of_cookies)
    }

    fn edits_cookies(&self) -> bool {
        let of_values = [&self.cookie_paths, &self.cookie_domains].into_iter().any(|rules| !list(rules).is_empty());
        of_values || !list(&self.cookie_flags).is_empty()
    }

    /// The fields that change, with all their values.
    pub(super) fn edits(
        &self,
        headers: &HeaderMap,
        values: &dyn PartValues,
        steps: &RegexSteps,
    ) -> Vec<(&'static HeaderName, Vec<HeaderValue>)> {
        let mut edits = Vec::new();
        let mut add = |name: &'static HeaderName, rewrite: &dyn Fn(&[u8]) -> Option<Vec<u8>>| {
            let mut is_changed = false;
            let mut new_value = |value: &HeaderValue| {
                // A result that no field may have, such as one with a line break, leaves the value as it is.
                let new = rewrite(value.as_bytes()).and_then(|new| HeaderValue::try_from(new).ok());
                is_changed |= new.is_some();
                new.unwrap_or_else(|| value.clone())
            };
            let all: Vec<HeaderValue> = headers.get_all(name).iter().map(&mut new_value).collect();
            if is_changed {
                edits.push((name, all));
            }
        };
        let redirects = list(&self.redirects);
        if !redirects.is_empty() {
            let [location, refresh] = &REDIRECT_FIELDS;
            add(location, &|value| {
                let url = rewritten(redirects, value, values, steps)?;
                Some(absolute(url, self.base, values))
            });
            add(refresh, &|value| {
                let (before, url) = split_refresh(value)?;
                Some([before, &rewritten(redirects, url, values, steps)?[..]].concat())
            });
        }
        if self.edits_cookies() {
            add(&COOKIE_FIELD, &|value| self.cookie(value, values, steps));
        }
        edits
    }

    /// A value of `Set-Cookie` after the rewrites. `None` if it stays as it is.
    fn cookie(&self, value: &[u8], values: &dyn PartValues, steps: &RegexSteps) -> Option<Vec<u8>> {
        let mut attributes = CookieFieldParts::parse(value)?;
        let mut is_changed = false;
        for attribute in attributes.iter_mut() {
            let rules = match () {
                () if attribute.is_named("Domain") => list(&self.cookie_domains),
                () if attribute.is_named("Path") => list(&self.cookie_paths),
                () => continue,
            };
            let old = attribute.value.as_deref();
            if let Some(new) = old.and_then(|old| rewritten(rules, old, values, steps)) {
                attribute.value = Some(new.into());
                is_changed = true;
            }
        }
        let flags = self.flags_of(attributes.cookie_name(), values, steps).unwrap_or_default();
        if !flags.is_empty() {
            attributes.set_flags(flags);
            is_changed = true;
        }
        is_changed.then(|| attributes.to_field())
    }

    /// The flags of the first rule for a cookie.
    fn flags_of(
        &self,
        cookie: &[u8],
        values: &dyn PartValues,
        steps: &RegexSteps,
    ) -> Result<CookieFlags, UnknownValue> {
        for rule in list(&self.cookie_flags) {
            let is_match = match &rule.cookie {
                CookiePattern::Name(name) => cookie.eq_ignore_ascii_case(expand(name, values)?.as_bytes()),
                CookiePattern::Expression(regex) => match std::str::from_utf8(cookie) {
                    Ok(name) => regex.is_match(name, steps, RegexInput::Header)?,
                    Err(_) => false,
                },
            };
            if is_match {
                let mut flags = rule.flags;
                for text in &rule.expanded {
                    flags.add(&expand(text, values)?);
                }
                return Ok(flags);
            }
        }
        Ok(CookieFlags::default())
    }
}

impl FlagRule {
    fn parse(
        directive: &WrittenDirective,
        scope: &KnownVariables,
        limit: RegexLimit,
    ) -> Result<Self, DirectiveRefusal> {
        let [cookie, flags @ ..] = directive.some_arguments()? else {
            return Err(DirectiveRefusal::invalid("takes a cookie and its flags"));
        };
        if !(1..=MAX_FLAGS).contains(&flags.len()) {
            return Err(DirectiveRefusal::invalid(format!("takes a cookie and from 1 to {MAX_FLAGS} flags")));
        }
        let cookie = match cookie.strip_prefix('~') {
            Some(expression) => CookiePattern::Expression(SnippetRegex::compile(expression, true, limit)?),
            None => CookiePattern::Name(SnippetText::parse_in(cookie, scope, TextPhase::Response)?),
        };
        let (mut fixed, mut expanded) = (CookieFlags::default(), Vec::new());
        for flag in flags {
            let text = SnippetText::parse_in(flag, scope, TextPhase::Response)?;
            match text.literal() {
                Some("") => {}
                Some(literal) if fixed.add(literal) => {}
                Some(literal) => {
                    let message = format!("has {literal:?}, which is no flag of a cookie");
                    return Err(DirectiveRefusal::new(message, FLAGS_REMEDY));
                }
                None => expanded.push(text),
            }
        }
        Ok(FlagRule { cookie, flags: fixed, expanded: expanded.into() })
    }
}

fn is_one(directive: &WrittenDirective, word: &str) -> bool {
    directive.block.is_none() && directive.arguments.iter().eq([word])
}

fn add_value(
    rewrites: &mut Option<Arc<Vec<ValueRewrite>>>,
    directive: &WrittenDirective,
    parse: impl Fn([&str; 2]) -> Result<ValueRewrite, DirectiveRefusal>,
) -> Result<(), DirectiveRefusal> {
    match is_one(directive, "off") {
        true => add_off(rewrites),
        false => add_to(rewrites, parse(directive.exactly()?)?),
    }
}

fn add_off<T>(list: &mut Option<Arc<Vec<T>>>) -> Result<(), DirectiveRefusal> {
    match list.replace(Arc::default()) {
        Some(_) => Err(both_with_off()),
        None => Ok(()),
    }
}

fn add_to<T: Clone>(list: &mut Option<Arc<Vec<T>>>, item: T) -> Result<(), DirectiveRefusal> {
    if list.as_ref().is_some_and(|list| list.is_empty()) {
        return Err(both_with_off());
    }
    Arc::make_mut(list.get_or_insert_default()).push(item);
    Ok(())
}

fn both_with_off() -> DirectiveRefusal {
    DirectiveRefusal::new("is given together with `off`", "remove one of both")
}

fn list<T>(list: &Option<Arc<Vec<T>>>) -> &[T] {
    list.as_ref().map_or(&[], |list| list)
}

/// A path after what precedes it.
fn absolute(url: Vec<u8>, base: RedirectBase, values: &dyn PartValues) -> Vec<u8> {
    if !url.starts_with(b"/") {
        return url;
    }
    let [scheme, host, port] = &OF_ABSOLUTE_URL;
    let value = |variable: &SnippetVariable| values.part(&TextPart::Request(variable.clone())).into_owned();
    let port = if base == RedirectBase::HostAndPort { value(port) } else { String::new() };
    [base.prefix(&value(scheme), &value(host), &port).as_bytes(), &url].concat()
}

/// What precedes the URL of `Refresh`, and the URL: `5; url=/next`.
fn split_refresh(value: &[u8]) -> Option<(&[u8], &[u8])> {
    let start = value.windows(4).position(|window| window.eq_ignore_ascii_case(b"url="))?;
    value.split_at_checked(start + 4)
}

const OF_COOKIES: [&str; 3] = ["proxy_cookie_domain", "proxy_cookie_flags", "proxy_cookie_path"];
static REDIRECT_FIELDS: [HeaderName; 2] = [LOCATION, REFRESH];
static COOKIE_FIELD: HeaderName = SET_COOKIE;
/// Of the client, as for all redirects. The last one is the port.
static OF_ABSOLUTE_URL: [SnippetVariable; 3] =
    [SnippetVariable::PassAccessScheme, SnippetVariable::Host, SnippetVariable::PassPort];

const MAX_FLAGS: usize = 3;
const FLAGS_REMEDY: &str = "write secure, httponly, samesite=strict, samesite=lax, samesite=none, or nosecure, \
                            nohttponly and nosamesite";
