//! `bot-detection`: rejects crawlers by their `User-Agent`.
//!
//! ```yaml
//! plugin: bot-detection
//! config: {allow: ["^Googlebot/"], deny: [curl]}
//! ```

use http::StatusCode;
use http::header::USER_AGENT;
use regex::bytes::{RegexSet, RegexSetBuilder};
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::{
    AccessOutcome, BuildCx, MAX_PLUGIN_REGEX_STEPS, Phases, Plugin, PluginKind, Reply, RequestCx, Scopes,
    count_regex_states, regex_error_message,
};

#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Config {
    /// Regular expressions for `User-Agent`, case-sensitive and not anchored. A client that matches one of them is
    /// allowed.
    allow: Vec<String>,
    /// Regular expressions as in `allow`. A client that matches one of them or is a known crawler is rejected, unless
    /// it matches `allow`.
    deny: Vec<String>,
}

pub(crate) struct BotDetection {
    allow: RegexSet,
    /// Configured expressions and known crawlers.
    deny: RegexSet,
    /// The number of states of all expressions.
    states: usize,
    /// The length of the longest `User-Agent` that the expressions are matched with.
    max_agent_bytes: usize,
}

impl PluginKind for BotDetection {
    const NAME: &'static str = "bot-detection";
    const HAS_CREDENTIALS: bool = false;
    const PRIORITY: i32 = 2500;
    const PHASES: Phases = Phases::ACCESS;
    const FAIL_CLOSED: bool = true;
    const SCOPES: Scopes = Scopes::NO_CONSUMER_OR_GROUP;
    type Config = Config;
    type Plugin = BotDetection;

    fn build(config: Config, _cx: &BuildCx<'_>) -> Result<Self, Vec<Diagnostic>> {
        let mut invalid = Vec::new();
        for (field, patterns) in [("allow", &config.allow), ("deny", &config.deny)] {
            for (index, pattern) in patterns.iter().enumerate() {
                if let Err(error) = build_set([pattern.as_str()]) {
                    let remedy = "write a valid regular expression; look-around and backreferences are not supported";
                    invalid.push(Diagnostic::in_config(
                        format!("{field}[{index}]"),
                        regex_error_message(&error),
                        remedy,
                    ));
                }
            }
        }
        if !invalid.is_empty() {
            return Err(invalid);
        }
        let too_large = |field: &str| {
            let field = field.to_owned();
            move |error: regex::Error| {
                vec![Diagnostic::in_config(field, error.to_string(), "use fewer or simpler expressions")]
            }
        };
        let allow = build_set(config.allow.iter().map(String::as_str)).map_err(too_large("allow"))?;
        let deny: Vec<&str> = config.deny.iter().map(String::as_str).chain(CRAWLERS.iter().copied()).collect();
        let patterns: Vec<&str> = config.allow.iter().map(String::as_str).chain(deny.iter().copied()).collect();
        let max_states = MAX_PLUGIN_REGEX_STEPS / MIN_AGENT_BYTES;
        let states = count_regex_states("deny", &patterns, max_states).map_err(|problem| vec![problem])?;
        let max_agent_bytes = MAX_PLUGIN_REGEX_STEPS / states.max(1);
        let deny = build_set(deny).map_err(too_large("deny"))?;
        Ok(BotDetection { allow, deny, states, max_agent_bytes })
    }
}

impl Plugin for BotDetection {
    fn may_wait(&self) -> bool {
        false
    }

    fn access<'a>(&'a self, cx: &'a mut RequestCx<'_>) -> AccessOutcome<'a> {
        let mut agents = cx.head.headers.get_all(USER_AGENT).iter();
        let Some(agent) = agents.next() else { return AccessOutcome::Continue };
        if agents.next().is_some() {
            let message = "Only one User-Agent header allowed";
            return AccessOutcome::Reply(Reply::negotiated(StatusCode::BAD_REQUEST, message, "two_user_agents"));
        }
        let status = StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE;
        if agent.len() > self.max_agent_bytes {
            let message = "User-Agent too long";
            return AccessOutcome::Reply(Reply::negotiated(status, message, "long_user_agent"));
        }
        if !cx.regex_steps.take(self.states, agent.len()) {
            // The expressions of the route have taken the others, for a long path or other long fields.
            let message = "Request too long to check its User-Agent";
            return AccessOutcome::Reply(Reply::negotiated(status, message, "no_steps_left"));
        }
        if self.allow.is_match(agent.as_bytes()) || !self.deny.is_match(agent.as_bytes()) {
            return AccessOutcome::Continue;
        }
        AccessOutcome::Reply(Reply::negotiated(StatusCode::FORBIDDEN, "Forbidden", "bot"))
    }
}

fn build_set<'p>(patterns: impl IntoIterator<Item = &'p str>) -> Result<RegexSet, regex::Error> {
    RegexSetBuilder::new(patterns).size_limit(MAX_SET_BYTES).build()
}

/// The expressions may be matched with a `User-Agent` of this length, in bytes, if those of the route take no steps.
/// Those of browsers have up to about 300.
const MIN_AGENT_BYTES: usize = 512;

/// Size limit of one compiled set, in bytes.
const MAX_SET_BYTES: usize = 4 << 20;

/// `User-Agent` patterns of crawlers, feed readers and monitors. Most are taken from the documentation that their
/// `User-Agent` links to.
const CRAWLERS: &[&str] = &[
    // Names ending in bot, crawler or spider, followed by a slash and a version. Phones of the brand Cubot have none.
    r"(?:[Bb]ot|[Cc]rawler|[Ss]pider)/v?[0-9]",
    // Links to pages such as bot.html.
    r"(?:bot|crawler|spider)s?\.(?:html?|php|aspx)",
    // Search engines.
    r"Googlebot|Google-InspectionTool|AdsBot-Google|Mediapartners-Google|APIs-Google|Google.*/\+/web/snippet",
    r"Bingbot|bingbot|BingPreview|msnbot|adidxbot|MSIECrawler",
    r"Baiduspider|BaiduMobaider|YandexBot|YandexImages|Yahoo! Slurp|YahooSeeker|Y!J-|DuckDuckBot|Sogou|Exabot",
    r"SeznamBot|Nutch|Heritrix|heritrix|CCBot|Applebot|PetalBot|Qwantify|coccoc|ia_archiver|archive\.org_bot",
    r"Steeler|Scrapy",
    // Link previews.
    r"facebookexternalhit|[Ff]acebot|Twitterbot|LinkedInBot|Pinterest/|Slackbot|TelegramBot|Discordbot",
    r"WhatsApp/|Embedly",
    // AI models.
    r"GPTBot|ClaudeBot|PerplexityBot|Bytespider|Amazonbot|meta-externalagent",
    // Feeds.
    r"Feedfetcher-Google|FeedBurner|Feedly|NewsGator|Bloglines|UniversalFeedParser|Tiny Tiny RSS|Superfeedr",
    // Marketing and measurement.
    r"AhrefsBot|SemrushBot|MJ12bot|DotBot|rogerbot|BLEXBot|DataparkSearch|Screaming Frog|Grapeshot|proximic",
    // Monitors.
    r"Pingdom\.com_bot|UptimeRobot|StatusCake|Site24x7|GTmetrix|HttpMonitor|TLSProber|NewRelicPinger",
    // Downloaders.
    r"WebZIP|HTTrack|WebCopier|Teleport Pro|WebCrunch|fetchurl|larbin",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugin_api::{RegisteredKind, ReplyBody};
    use crate::plugin_chain::testing::{TestRequest, build, chain};

    const KIND: RegisteredKind<BotDetection> = RegisteredKind::NEW;
    const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";

    // docs/kong-compatibility.md, 4.6
    #[tokio::test]
    async fn crawlers_are_rejected() {
        let config_with_lists = json!({"allow": ["^Good", "[Gg]ooglebot"], "deny": ["Firefox/1\\.", "^Good"]});
        for (config, agent, is_allowed) in [
            (json!({}), BROWSER, true),
            (json!({}), "curl/8.5.0", true),
            (json!({}), "", true),
            (json!({}), "Cubot Note 20 about robotics", true),
            (json!({}), "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", false),
            (json!({}), "Mozilla/5.0 (compatible; bingbot/2.0; +http://www.bing.com/bingbot.htm)", false),
            (json!({}), "facebookexternalhit/1.1 (+http://www.facebook.com/externalhit_uatext.php)", false),
            (json!({}), "Twitterbot/1.0", false),
            (json!({}), "Unheard-ofSpider/0.1", false),
            (json!({}), "Pingdom.com_bot_version_1.4_(http://www.pingdom.com/)", false),
            // Precedence: `allow`, `deny`, known crawlers. Case-sensitive, not anchored.
            (config_with_lists.clone(), "Good", true),
            (config_with_lists.clone(), "Mozilla/5.0 (compatible; Googlebot/2.1)", true),
            (config_with_lists.clone(), "Twitterbot/1.0", false),
            (config_with_lists.clone(), "Mozilla/5.0 Firefox/1.0", false),
            (config_with_lists.clone(), "Mozilla/5.0 firefox/1.0", true),
        ] {
            let outcome =
                TestRequest::get("/").header("user-agent", agent).run(&chain(&[(&KIND, config.clone())])).await;
            assert_eq!(outcome.reply.is_none(), is_allowed, "{config}: {agent}");
            if let Some(reply) = outcome.reply {
                assert_eq!(reply.status, StatusCode::FORBIDDEN);
                assert_eq!(reply.body, ReplyBody::Negotiated("Forbidden".into()));
            }
        }
    }

    // docs/kong-compatibility.md, 4.6
    #[tokio::test]
    async fn one_user_agent_at_most_is_allowed() {
        let chain = chain(&[(&KIND, json!({}))]);
        assert!(TestRequest::get("/").run(&chain).await.reply.is_none());
        let outcome =
            TestRequest::get("/").header("user-agent", BROWSER).header("user-agent", BROWSER).run(&chain).await;
        let reply = outcome.reply.unwrap();
        assert_eq!(reply.status, StatusCode::BAD_REQUEST);
        assert_eq!(reply.body, ReplyBody::Negotiated("Only one User-Agent header allowed".into()));
    }

    /// Otherwise, a long value and a large expression keep a worker busy.
    #[tokio::test]
    async fn long_user_agents_are_rejected() {
        for (length, status) in [(512, None), (60_000, Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE))] {
            let chain = chain(&[(&KIND, json!({"deny": ["a*a{900}"]}))]);
            let outcome = TestRequest::get("/").header("user-agent", &"a".repeat(length)).run(&chain).await;
            assert_eq!(outcome.reply.map(|reply| reply.status), status, "{length}");
        }
    }

    #[test]
    fn invalid_expressions_are_rejected() {
        for (config, field) in [
            (json!({"allow": ["a", "("]}), "config.allow[1]"),
            (json!({"deny": ["(?=a)"]}), "config.deny[0]"),
            (json!({"deny": ["(?:a{1000}){1000}"]}), "config.deny[0]"),
            (json!({"deny": ["a{1000}", "b{4000}"]}), "config.deny"),
        ] {
            let invalid = build(&KIND, &config).err().unwrap_or_else(|| panic!("{config} was accepted"));
            assert_eq!(invalid[0].field, field, "{config}: {invalid:?}");
        }
    }
}
