//! `spec.loadBalancing.hash`: the parts of a request that consistent hashing uses.

use regex::bytes::{Regex, RegexBuilder};

use super::block_reader::BlockReader;
use crate::api::portico::{HashCookieSpec, HashKeySpec, HashSpec};
use crate::compile::policies::cookie::{CookiePart, CookieProblem, CookieSpec};
use crate::upstream::settings::{CombineKeys, HashKey, HashSource, RequestHash, SameSite, SetCookie};

/// The settings without the keys that have problems.
pub(super) fn request_hash(spec: &HashSpec, block: &mut BlockReader<'_>) -> RequestHash {
    let combine =
        block.choice("combine", spec.combine.as_ref(), [("First", CombineKeys::First), ("All", CombineKeys::All)]);
    let keys = spec.keys.iter().enumerate();
    let keys = keys.filter_map(|(index, key)| hash_key(key, &mut block.object(format_args!("keys[{index}]"))));
    RequestHash {
        keys: keys.collect(),
        combine: combine.unwrap_or_default(),
        bounded_load_percent: block.number("boundedLoadPercent", spec.bounded_load_percent, 100..=1000),
        subset_size: None,
    }
}

fn hash_key(spec: &HashKeySpec, block: &mut BlockReader<'_>) -> Option<HashKey> {
    let source = hash_source(spec, block);
    let regex = match &spec.regex {
        Some(text) => Some(expression(text, block)?),
        None => None,
    };
    Some(HashKey { source: source?, regex })
}

fn hash_source(spec: &HashKeySpec, block: &mut BlockReader<'_>) -> Option<HashSource> {
    let needs_name = matches!(&*spec.source, "Header" | "Cookie" | "Query" | "UriCapture");
    let name = spec.name.as_deref().unwrap_or_default();
    if needs_name == name.is_empty() {
        let message = "it is required for Header, Cookie, Query and UriCapture and has no meaning otherwise";
        block.problem("name", message, "add or remove name");
        return None;
    }
    for (field, is_set, source) in
        [("cookie", spec.cookie.is_some(), "Cookie"), ("ipv6Prefix", spec.ipv6_prefix.is_some(), "ClientIP")]
    {
        if is_set && spec.source != source {
            block.problem(field, format!("it is for the source {source}"), "remove it, or change the source");
        }
    }
    Some(match &*spec.source {
        "Header" => HashSource::Header(block.header_name("name", name)?),
        "Cookie" => HashSource::Cookie(hash_cookie(name, &spec.cookie.clone().unwrap_or_default(), block)?),
        "ClientIP" => {
            let prefix = block.number("ipv6Prefix", spec.ipv6_prefix, 1..=128).unwrap_or(64);
            HashSource::ClientIp { ipv6_prefix: u8::try_from(prefix).unwrap_or(64) }
        }
        "Query" => HashSource::Query(name.into()),
        "Path" => HashSource::Path,
        "UriCapture" => HashSource::UriCapture(name.into()),
        "Consumer" => HashSource::Consumer,
        "Host" => HashSource::Host,
        other => {
            let remedy = "use one of Header, Cookie, ClientIP, Query, Path, UriCapture, Consumer, Host";
            block.problem("source", format!("{other:?} is not supported"), remedy);
            return None;
        }
    })
}

fn hash_cookie(name: &str, spec: &HashCookieSpec, block: &mut BlockReader<'_>) -> Option<SetCookie> {
    let mut of_cookie = block.object("cookie");
    let ttl = of_cookie.duration("ttl", spec.ttl.as_ref(), ["0s", "9999h"]).filter(|ttl| !ttl.is_zero());
    let same_site = of_cookie.choice("sameSite", spec.same_site.as_ref(), SAME_SITE).unwrap_or_default();
    let path = spec.path.as_deref().unwrap_or("/");
    let problems = match (CookieSpec { name, path, max_age: ttl, same_site }).build() {
        Ok(cookie) => return Some(cookie),
        Err(problems) => problems,
    };
    for CookieProblem { part, message, remedy } in problems {
        match part {
            CookiePart::Name => block.problem("name", message, remedy),
            CookiePart::Path => block.object("cookie").problem("path", message, remedy),
        }
    }
    None
}

/// The values of the attribute SameSite.
pub(super) const SAME_SITE: [(&str, SameSite); 3] =
    [("Strict", SameSite::Strict), ("Lax", SameSite::Lax), ("None", SameSite::None)];

/// Expressions are evaluated for each request, and each has a buffer in every worker, so their size is limited.
fn expression(text: &str, block: &mut BlockReader<'_>) -> Option<Regex> {
    if text.len() > MAX_EXPRESSION_LENGTH {
        let message = format!("the expression has {} bytes", text.len());
        block.problem("regex", message, format!("shorten it to {MAX_EXPRESSION_LENGTH} bytes"));
        return None;
    }
    let built = RegexBuilder::new(text).size_limit(MAX_EXPRESSION_SIZE).dfa_size_limit(MAX_EXPRESSION_SIZE).build();
    match built {
        Ok(regex) => Some(regex),
        Err(regex::Error::CompiledTooBig(_)) => {
            let message = "the expression needs too much memory";
            block.problem("regex", message, "use fewer or smaller repetitions, such as {1,8}");
            None
        }
        Err(error) => {
            // The last line of the error says what is wrong; those before it show the expression.
            let text = error.to_string();
            let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
            block.problem("regex", format!("the expression is not valid: {reason}"), "correct it (RE2 syntax)");
            None
        }
    }
}

const MAX_EXPRESSION_LENGTH: usize = 256;
const MAX_EXPRESSION_SIZE: usize = 256 << 10;
