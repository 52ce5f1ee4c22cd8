//! `allow`, `deny` and `limit_except`: which clients may use a location.

use std::net::IpAddr;
use std::sync::Arc;

use http::Method;

use super::directive_tree::WrittenDirective;
use super::refusal::{DirectiveRefusal, RefusedSnippet};
use crate::address_ranges::{AddressRanges, parse_network};

/// Rules in order, of which the first that contains an address decides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct AddressRules(Vec<AddressRule>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct AddressRule {
    allows: bool,
    /// `None` for all.
    addresses: Option<AddressRanges>,
}

/// The rules of one block.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SnippetAccess {
    /// `None` if the block has none, so that it has those of the block around it.
    rules: Option<Arc<AddressRules>>,
    method_limit: Option<Arc<MethodLimit>>,
}

/// The rules for all methods but some.
#[derive(Clone, Debug, PartialEq, Eq)]
struct MethodLimit {
    except: Vec<Method>,
    rules: AddressRules,
}

/// What the rules of a snippet say about a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SnippetVerdict {
    Allow,
    Deny,
    /// No rule contains the address, so that rules of annotations decide.
    Unmatched,
}

impl AddressRules {
    /// Adds a directive. `Ok(false)` if it is neither `allow` nor `deny`.
    fn add(&mut self, directive: &WrittenDirective) -> Result<bool, DirectiveRefusal> {
        let allows = match &directive.name[..] {
            "allow" => true,
            "deny" => false,
            _ => return Ok(false),
        };
        let [text] = directive.exactly()?;
        let addresses = match text {
            "all" => None,
            text => {
                let refusal =
                    || DirectiveRefusal::invalid(format!("has {text:?}, which is neither an address nor `all`"));
                Some([parse_network(text).ok_or_else(refusal)?].into_iter().collect())
            }
        };
        self.0.push(AddressRule { allows, addresses });
        Ok(true)
    }

    fn verdict(&self, address: IpAddr) -> SnippetVerdict {
        let address = address.to_canonical();
        // The address of a client that a proxy did not name is not known, so that any rule may be for it.
        if address.is_unspecified() && !self.0.is_empty() {
            return SnippetVerdict::Deny;
        }
        let contains = |rule: &&AddressRule| rule.addresses.as_ref().is_none_or(|ranges| ranges.contains(address));
        match self.0.iter().find(contains) {
            Some(rule) if rule.allows => SnippetVerdict::Allow,
            Some(_) => SnippetVerdict::Deny,
            None => SnippetVerdict::Unmatched,
        }
    }
}

impl SnippetAccess {
    /// Adds `allow` or `deny` to the rules of its block. `Ok(false)` if it is neither.
    pub(super) fn add_rule(&mut self, directive: &WrittenDirective) -> Result<bool, DirectiveRefusal> {
        if !["allow", "deny"].contains(&&directive.name[..]) {
            return Ok(false);
        }
        Arc::make_mut(self.rules.get_or_insert_default()).add(directive)
    }

    /// Adds `limit_except`, which has rules of its own.
    pub(super) fn add_method_limit(
        &mut self,
        directive: &WrittenDirective,
        restricts: bool,
    ) -> Result<(), RefusedSnippet> {
        let refuse = |refusal| directive.refuse(refusal, restricts);
        let mut except = Vec::new();
        for name in &directive.arguments {
            let method = METHODS.contains(&&name.to_ascii_uppercase()[..]).then(|| name.to_ascii_uppercase());
            let method = method.and_then(|name| Method::from_bytes(name.as_bytes()).ok());
            let method = method.ok_or_else(|| refuse(DirectiveRefusal::invalid("has an invalid method")))?;
            // As nginx documents it.
            except.extend((method == Method::GET).then_some(Method::HEAD));
            except.push(method);
        }
        if except.is_empty() {
            return Err(refuse(DirectiveRefusal::invalid("has no method")));
        }
        let mut rules = AddressRules::default();
        for inner in directive.inner().map_err(refuse)? {
            let unsupported = || DirectiveRefusal::new("is not supported in `limit_except`", "use `allow` and `deny`");
            match rules.add(inner) {
                Ok(true) => {}
                Ok(false) => return Err(inner.refuse(unsupported(), restricts)),
                Err(refusal) => return Err(inner.refuse(refusal, restricts)),
            }
        }
        match self.method_limit.replace(Arc::new(MethodLimit { except, rules })) {
            Some(_) => Err(refuse(DirectiveRefusal::invalid("is given twice"))),
            None => Ok(()),
        }
    }

    /// Adds what this block has from the block around it.
    pub(super) fn inherit(&mut self, outer: &SnippetAccess) {
        if self.rules.is_none() {
            self.rules.clone_from(&outer.rules);
            self.method_limit = self.method_limit.take().or_else(|| outer.method_limit.clone());
        }
    }

    /// Whether the rules of `limit_except` are for this method.
    pub(super) fn limits(&self, method: &str) -> bool {
        let is_limited = |limit: &Arc<MethodLimit>| !limit.except.iter().any(|except| except.as_str() == method);
        self.method_limit.as_ref().is_some_and(is_limited)
    }

    pub(super) fn verdict(&self, address: IpAddr, method: &Method) -> SnippetVerdict {
        // In nginx, `limit_except` is a block, whose rules replace those around it.
        let limit = self.method_limit.as_ref().filter(|limit| !limit.except.contains(method));
        match limit.map(|limit| &limit.rules).filter(|rules| !rules.0.is_empty()).or(self.rules.as_deref()) {
            Some(rules) => rules.verdict(address),
            None => SnippetVerdict::Unmatched,
        }
    }
}

/// Those that nginx knows.
const METHODS: &[&str] = &[
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "MKCOL",
    "COPY",
    "MOVE",
    "OPTIONS",
    "PROPFIND",
    "PROPPATCH",
    "LOCK",
    "UNLOCK",
    "PATCH",
];
