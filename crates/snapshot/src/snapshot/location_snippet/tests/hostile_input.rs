//! Texts of tenants that are no snippets, and requests of clients that are none a browser sends.

use super::*;
use proptest::prelude::*;

const SEEDS: &[&str] = &[
    "set $a \"\"; if ($http_user_agent ~* (curl|wget)) { set $a \"${a}A\"; } if ($a = A) { return 403; }",
    "rewrite ^/old/(?<rest>.*)$ /new/$rest?a=$1 last; add_header A $uri always; expires 1h;",
    "location ~* ^/a/(.*) { more_set_headers -s '404 500' \"A: $1$status\"; deny 10.0.0.0/8; return 301 /$1; }",
    "limit_except GET { allow 10.0.0.1; deny all; } proxy_set_header Host $host; client_max_body_size 1m; # end",
    "proxy_redirect ~^http://[^/]+(?<a>/.*) $a$uri; proxy_cookie_path / \"/; $arg_a\"; proxy_cookie_flags ~ secure;",
    "more_clear_headers 'X-*'; more_set_input_headers \"A: $arg_a\"; set $args $args&b=$cookie_c; break;",
];

/// Runs whatever compiles, for a request with odd bytes.
fn exercise(text: &str) -> Result<(), TestCaseError> {
    for place in [SnippetPlace::Location, SnippetPlace::Server] {
        let Ok(server) = Snippet::parse(text, place, RegexLimit { max_states: 2_000 }) else { continue };
        let request = Request::with("/old/a%0d%0a%FF%2e?a=b&c", &[("user-agent", "curl"), ("cookie", "c=\t")]);
        for snippet in std::iter::once(&server).chain(server.locations.iter().map(|location| &*location.snippet)) {
            let run = snippet.run_after(run(&server, &request), &request, &RegexSteps::default());
            let mut headers: HeaderMap = [("location", "http://a/b"), ("set-cookie", "a=b;;Path=/c")]
                .map(|(name, value)| field(name, value))
                .into_iter()
                .collect();
            let response = (StatusCode::NOT_FOUND, SnippetResponseOrigin::Upstream);
            run.set_response_fields(snippet, &request, response, &mut headers, &RegexSteps::default());
            for edit in run.input_edits(snippet, &request).into_iter().chain(run.sent_edits(snippet, &request)) {
                edit.apply(&mut headers);
            }
            run.verdict(snippet, "10.0.0.1".parse().unwrap(), &Method::POST);
            if let Some(target) = &run.target {
                let query = target.query.as_ref().map(|query| format!("?{query}")).unwrap_or_default();
                let target = format!("{}{query}", target.path);
                prop_assert!(
                    target.starts_with('/') && target.parse::<http::uri::PathAndQuery>().is_ok(),
                    "{}",
                    target
                );
            }
            if let Some(location) = run.reply.and_then(|reply| reply.location) {
                prop_assert!(HeaderValue::try_from(&location).is_ok(), "{}", location);
            }
        }
    }
    Ok(())
}

proptest! {
    #[test]
    fn no_text_panics(text in "\\PC{0,60}") {
        exercise(&text)?;
    }

    #[test]
    fn no_sequence_of_words_panics(
        words in prop::collection::vec(
            prop::sample::select(vec![
                "if", "(", "$a", "$1", "=", "~", "~*", "!~", ")", "{", "}", ";", "set", "return", "403", "301",
                "rewrite", "^/(.*)", "/$1", "last", "break", "location", "^~", "/a", "deny", "all", "add_header",
                "\"A: $uri\"", "'", "\"", "\\", "#", "\n", "limit_except", "GET", "more_set_headers", "-s",
                "${", "}", "$", "expires", "é",
            ]),
            0..24,
        ),
    ) {
        exercise(&words.join(" "))?;
    }

    #[test]
    fn no_changed_snippet_panics(
        seed in 0..SEEDS.len(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), "[;{}\"'$()\\\\ #~=\na1\u{f7ff}]?"), 0..6),
    ) {
        let mut characters: Vec<String> = SEEDS[seed].chars().map(String::from).collect();
        for (place, replacement) in changes {
            let place = place.index(characters.len());
            characters[place] = replacement;
        }
        exercise(&characters.concat())?;
    }

    #[test]
    fn restrictions_are_never_missed(seed in 0..SEEDS.len(), rest in "[ -~]{0,20}") {
        // A text that cannot be read counts as one that restricts, and so does one with a rule anywhere.
        let text = format!("{} {rest}; deny all;", SEEDS[seed]);
        if !rest.contains('#') {
            let restricts = match Snippet::parse(&text, SnippetPlace::Server, RegexLimit::MEMORY_ONLY) {
                Ok(snippet) => snippet.restricts(),
                Err(refused) => refused.restricts,
            };
            prop_assert!(restricts, "{}", text);
        }
    }
}

#[test]
fn seeds_are_valid() {
    for text in SEEDS {
        let parsed = [SnippetPlace::Location, SnippetPlace::Server]
            .map(|place| Snippet::parse(text, place, RegexLimit::MEMORY_ONLY).is_ok());
        assert!(parsed.contains(&true), "{text}");
    }
}
