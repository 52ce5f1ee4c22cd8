//! Makes snippets from a seed: only what nginx accepts at its place, and what Portico does not refuse. A rewrite ends
//! with `break` or as a redirect, and a snippet sets each field of requests once.

use super::directives::{DirectiveCase, in_location, in_server};
use super::random::Random;

/// An Ingress with a snippet for its locations, and perhaps one for its host.
pub(crate) fn case(seed: u64) -> DirectiveCase {
    let mut generator = SnippetGenerator { random: Random::new(seed ^ 0x5a1b_0000), unset_fields: vec!["0", "1", "2"] };
    let name = format!("seed {seed}");
    let mut location = generator.location();
    let server = generator.random.percent(60).then(|| generator.server());
    // A location knows the variables of its server, and keeps their values unless it sets them itself.
    if server.is_none() || generator.random.percent(40) {
        location.insert_str(0, "set $f1 \"\"; set $f2 a;\n");
    }
    let requests: Vec<String> = (0..REQUESTS).map(|_| generator.request()).collect();
    let requests = requests.join(" ; ");
    let case = match server {
        Some(server) => in_server(&name, &server, &requests).with_location(&location),
        None => in_location(&name, &location, &requests),
    };
    DirectiveCase {
        rules: &["/ Prefix s0", "/a/b Prefix s1", "/b Exact s2"],
        response_fields: &["x-r0", "x-r1", "x-r2", "x-in"],
        request_fields: &["x-q0", "x-q1", "x-q2"],
        ..case
    }
}

struct SnippetGenerator {
    random: Random,
    /// Of requests: the ends of the names that the snippet has not set.
    unset_fields: Vec<&'static str>,
}

impl SnippetGenerator {
    fn location(&mut self) -> String {
        let count = self.random.between(3, 8);
        self.lines(count, SnippetGenerator::directive)
    }

    /// Variables, steps and fields of the server, and locations.
    fn server(&mut self) -> String {
        let mut server = "set $f1 0; set $f2 b;\n".to_owned();
        if self.random.percent(50) {
            server += &self.set();
        }
        if self.random.percent(40) {
            let condition = self.condition();
            let step = match self.random.below(3) {
                0 => self.set(),
                1 => self.reply(),
                _ => self.redirect(),
            };
            server += &format!(" if ({condition}) {{ {step} }}");
        }
        if self.random.percent(40) {
            server += &self.response_field();
        }
        let mut known = Vec::new();
        for _ in 0..self.random.below(4) {
            let path = self.random.choose(LOCATIONS);
            // nginx refuses a second location with the same path.
            if !known.contains(&path) {
                known.push(path);
                let count = self.random.between(1, 3);
                let content = self.lines(count, SnippetGenerator::directive_of_server_location);
                server += &format!("\nlocation {path} {{\n{content}}}");
            }
        }
        server
    }

    fn lines(&mut self, count: usize, line: fn(&mut SnippetGenerator) -> String) -> String {
        (0..count).map(|_| line(self) + "\n").collect()
    }

    fn directive(&mut self) -> String {
        match self.random.below(100) {
            0..42 => self.conditional(SnippetGenerator::directive_of_if),
            42..57 => self.set(),
            57..72 => self.response_field(),
            72..84 => self.request_field(),
            84..89 => self.rewrite(),
            89..95 => self.address_rule(),
            95..97 => "proxy_hide_header X-In;".to_owned(),
            97 => self.reply(),
            _ => "break;".to_owned(),
        }
    }

    fn directive_of_if(&mut self) -> String {
        match self.random.below(100) {
            0..35 => self.set(),
            35..60 => self.response_field(),
            60..80 => self.reply(),
            80..92 => self.rewrite(),
            _ => "break;".to_owned(),
        }
    }

    /// Such a location has no endpoint, so that a changed target would have no effect.
    fn directive_of_server_location(&mut self) -> String {
        match self.random.below(7) {
            0 => self.reply(),
            1 => self.response_field(),
            2 => self.set(),
            3 => "deny all;".to_owned(),
            4 => "allow 127.0.0.1; deny all;".to_owned(),
            5 => self.redirect(),
            _ => self.conditional(|generator| match generator.random.below(4) {
                0 => generator.set(),
                1 => generator.response_field(),
                2 => generator.reply(),
                _ => generator.redirect(),
            }),
        }
    }

    fn conditional(&mut self, directive: fn(&mut SnippetGenerator) -> String) -> String {
        let condition = self.condition();
        let count = self.random.between(1, 3);
        let content = self.lines(count, directive);
        format!("if ({condition}) {{\n{content}}}")
    }

    fn condition(&mut self) -> String {
        let subject = self.random.choose(SUBJECTS);
        match self.random.below(7) {
            0 => subject.to_owned(),
            1 | 2 => {
                let operator = self.random.choose(&["=", "!="]);
                format!("{subject} {operator} {}", self.random.choose(COMPARED))
            }
            _ => {
                let operator = self.random.choose(&["~", "~*", "!~", "!~*"]);
                format!("{subject} {operator} \"{}\"", self.random.choose(EXPRESSIONS))
            }
        }
    }

    fn set(&mut self) -> String {
        let variable = self.random.between(1, 2);
        format!("set $f{variable} {};", self.value())
    }

    fn response_field(&mut self) -> String {
        let number = self.random.below(3);
        let value = self.value();
        let always = self.random.choose(&["", " always"]);
        format!("add_header X-R{number} {value}{always};")
    }

    /// Another directive if all fields have been set: nginx would send both values, and Portico the second one.
    fn request_field(&mut self) -> String {
        match self.unset_fields.pop() {
            Some(number) => format!("proxy_set_header X-Q{number} {};", self.value()),
            None => self.set(),
        }
    }

    fn address_rule(&mut self) -> String {
        let verb = self.random.choose(&["allow", "deny"]);
        let addresses = self.random.choose(&["all", "127.0.0.1", "127.0.0.0/8", "192.0.2.0/24", "2001:db8::/32"]);
        format!("{verb} {addresses};")
    }

    fn reply(&mut self) -> String {
        match self.random.below(6) {
            0 | 1 => format!("return {};", self.random.choose(&[200, 204, 400, 403, 404, 410, 503])),
            2 | 3 => {
                let status = self.random.choose(&[200, 201, 403, 404, 503]);
                format!("return {status} {};", self.value())
            }
            4 => {
                let status = self.random.choose(&[301, 302, 303, 307, 308]);
                format!("return {status} \"{}\";", self.random.choose(URLS))
            }
            _ => format!("return \"{}\";", self.random.choose(ABSOLUTE_URLS)),
        }
    }

    fn rewrite(&mut self) -> String {
        if self.random.percent(50) {
            return self.redirect();
        }
        let expression = self.random.choose(PATH_EXPRESSIONS);
        let target = self.random.choose(&["/new/$1", "/new", "/new/$1?x=$arg_a", "/n?y=$1", "/new/$2?", "/$1/n"]);
        format!("rewrite \"{expression}\" \"{target}\" break;")
    }

    fn redirect(&mut self) -> String {
        let expression = self.random.choose(PATH_EXPRESSIONS);
        let target = self.random.choose(REDIRECT_TARGETS);
        let flag = self.random.choose(&["redirect", "permanent"]);
        format!("rewrite \"{expression}\" \"{target}\" {flag};")
    }

    /// A text in quotes, with variables and without them.
    fn value(&mut self) -> String {
        let mut value = "\"".to_owned();
        for _ in 0..self.random.between(1, 3) {
            let parts = if self.random.percent(55) { VARIABLES } else { LITERALS };
            value += self.random.choose(parts);
        }
        value + "\""
    }

    fn request(&mut self) -> String {
        let mut request = self.random.choose(&["", "", "", "", "HEAD ", "POST "]).to_owned();
        request += self.random.choose(PATHS);
        request += self.random.choose(QUERIES);
        for (percent, fields) in FIELDS {
            if self.random.percent(*percent) {
                request = request + " | " + self.random.choose(fields);
            }
        }
        request
    }
}

const REQUESTS: usize = 20;

/// In braces, because letters may follow.
const VARIABLES: &[&str] = &[
    "${host}",
    "${arg_a}",
    "${arg_b}",
    "${http_x_a}",
    "${cookie_c}",
    "${uri}",
    "${request_uri}",
    "${request_method}",
    "${args}",
    "${is_args}",
    "${f1}",
    "${f2}",
    "$1",
    "$2",
];

const LITERALS: &[&str] = &["a", "b", "0", "1", "-", "/x", "v ", "", "\\\"q\\\""];

const SUBJECTS: &[&str] = &[
    "$host",
    "$arg_a",
    "$arg_b",
    "$http_x_a",
    "$cookie_c",
    "$uri",
    "$request_uri",
    "$request_method",
    "$args",
    "$f1",
    "$f2",
];

const COMPARED: &[&str] = &["a", "1", "0", "GET", "\"\"", "\"b c\"", "$arg_b", "www"];

const EXPRESSIONS: &[&str] = &[
    "^/a/(.*)$",
    "(b)(c)?",
    "^www[.](.+?)[.]",
    "[0-9]+",
    "a|1",
    "^$",
    "(?i)A",
    "^/([^/]+)/",
    "x$",
    "(.)$",
    "^(GET|HEAD)$",
    "(?!/a)^/",
    "b=(.)",
];

const PATH_EXPRESSIONS: &[&str] =
    &["^/a/(.*)$", "^/(a|b)/([^/]*)", "^(.*)$", "^/a", "(?i)^/B(.*)", "^/(?!a)(.*)$", "/b$"];

const REDIRECT_TARGETS: &[&str] =
    &["/new/$1", "https://new.example/$1", "/new", "/new/$1?x=1", "/new?", "https://$host/new/$2?"];

/// Without variables that are decoded: Portico encodes what a URL cannot have, and nginx sends it.
const URLS: &[&str] = &[
    "https://new.example$request_uri",
    "/login",
    "/login?from=$request_uri",
    "https://$host/x?$args",
    "$scheme://new.example/",
    "http://new.example/?a=$arg_a",
];

const ABSOLUTE_URLS: &[&str] = &["https://new.example/a", "https://$host$request_uri", "$scheme://new.example"];

/// Of servers, next to the paths of the Ingress.
const LOCATIONS: &[&str] = &[
    "= /a",
    "/a/",
    "/b",
    "^~ /b/c",
    "~ ^/a/(.*)$",
    "~* ^/B",
    "~ (x)1$",
    "/www",
    "= /bc1x",
    "~ [.]git",
    "/respond/200",
];

/// Normalized ones: a location whose snippet changes targets forwards those of all requests in this form.
const PATHS: &[&str] = &[
    "/",
    "/a/b",
    "/a/b%20c",
    "/a/x1",
    "/A/B",
    "/b",
    "/b/c/d",
    "/a/caf%C3%A9",
    "/a/b+c",
    "/b/c&d",
    "/a/b%2Fc",
    "/www",
    "/a",
    "/respond/404/X-In/a",
    "/respond/200/X-In/b",
    "/bc1x",
];

const QUERIES: &[&str] = &["", "", "", "?", "?a=1", "?a=0", "?b=x&a=", "?a=b%20c&b=2", "?x", "?a=a&b=a", "?b=www"];

/// Fields of requests, and how many percent of the requests have one of them.
const FIELDS: &[(usize, &[&str])] = &[
    (40, &["X-A: 1", "X-A: 0", "X-A: a", "X-A: b c", "X-A: www", "X-A: x"]),
    (30, &["Cookie: c=1", "Cookie: c=a", "Cookie: c=", "Cookie: c=d; e=f"]),
    (15, &["Host: @:8080"]),
    (15, &["X-Q1: client"]),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_case() {
        let texts = |seed| {
            let case = case(seed);
            (case.annotations, case.requests)
        };
        assert_eq!(texts(5), texts(5));
        assert_ne!(texts(5), texts(6));
    }

    #[test]
    fn directives_vary() {
        let snippets: Vec<String> =
            (0..200).flat_map(|seed| case(seed).annotations).map(|(_, snippet)| snippet).collect();
        for directive in ["if (", "return ", "rewrite ", "proxy_set_header ", "allow ", "location ", "always;"] {
            let count = snippets.iter().filter(|snippet| snippet.contains(directive)).count();
            assert!(count > 20, "{directive}: {count}");
        }
    }
}
