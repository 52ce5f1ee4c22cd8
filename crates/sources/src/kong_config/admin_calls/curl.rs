//! The arguments of curl: the request that it sends to the Admin API.

use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};

use super::form::{self, CallField, NotUnderstood};

/// A request that may change something.
#[derive(Debug, PartialEq)]
pub(super) struct AdminCall {
    pub(super) method: AdminMethod,
    /// The segments of the path, decoded.
    pub(super) path: Vec<String>,
    pub(super) body: AdminBody,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AdminMethod {
    Post,
    Put,
    Patch,
    Delete,
}

#[derive(Debug, PartialEq)]
pub(super) enum AdminBody {
    Json(Map<String, Value>),
    /// All values are texts, whose types are those of the fields.
    Form(Map<String, Value>),
}

/// Parses the arguments. `None` for a request that changes nothing. `input`: the standard input, if it is known.
/// `file`: the content of a file.
pub(super) fn parse(
    arguments: &[String],
    input: Option<&str>,
    file: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<AdminCall>, NotUnderstood> {
    let options = Options::read(arguments, input, file)?;
    let has_body = !options.data.is_empty() || !options.form.is_empty();
    let method = match options.method.as_deref() {
        _ if options.data_in_query => return Ok(None),
        None if options.is_head => return Ok(None),
        None if has_body => AdminMethod::Post,
        None | Some("GET" | "HEAD" | "OPTIONS") => return Ok(None),
        Some("POST") => AdminMethod::Post,
        Some("PUT") => AdminMethod::Put,
        Some("PATCH") => AdminMethod::Patch,
        Some("DELETE") => AdminMethod::Delete,
        Some(other) => return Err((format!("method {other} is not one of the Admin API"), CORRECT.to_owned())),
    };
    let [url] = &options.urls[..] else {
        let message = format!("this call has {} URLs instead of one", options.urls.len());
        return Err((message, "write a call for each URL".to_owned()));
    };
    let path = path(url)?;
    let body = if options.form.is_empty() {
        options.data_body()?
    } else if options.data.is_empty() {
        AdminBody::Form(form::nested(options.form)?)
    } else {
        return Err(("this call has both data and a multipart form".to_owned(), "use one of -d and -F".to_owned()));
    };
    Ok(Some(AdminCall { method, path, body }))
}

#[derive(Default)]
struct Options {
    method: Option<String>,
    urls: Vec<String>,
    /// Joined as curl does.
    data: String,
    form: Vec<CallField>,
    media_type: Option<String>,
    is_head: bool,
    data_in_query: bool,
}

impl Options {
    fn read(
        arguments: &[String],
        input: Option<&str>,
        file: &dyn Fn(&str) -> Option<String>,
    ) -> Result<Self, NotUnderstood> {
        let mut options = Options::default();
        let mut rest = arguments.iter().map(String::as_str);
        while let Some(argument) = rest.next() {
            if argument.len() < 2 || !argument.starts_with('-') {
                options.urls.push(argument.to_owned());
                continue;
            }
            if argument.starts_with("--") {
                let (long, value) = match argument.split_once('=') {
                    // As recent versions of curl read it.
                    Some((long, value)) => (long, Some(value)),
                    None => (argument, None),
                };
                if value.is_none() && FLAGS.contains(&long) {
                    options.set_flag(long);
                } else if VALUES.contains(&long) {
                    let value = value.or_else(|| rest.next()).ok_or_else(|| missing_value(long))?;
                    options.set(long, value, input, file)?;
                } else {
                    return Err(unknown(argument));
                }
                continue;
            }
            // Short options may be joined, the last one with its value: -sXPOST.
            for (at, letter) in argument[1..].char_indices() {
                let long = SHORT.iter().find(|(short, _)| *short == letter).map(|(_, long)| *long);
                match long {
                    Some(long) if FLAGS.contains(&long) => options.set_flag(long),
                    Some(long) => {
                        let joined = &argument[1 + at + letter.len_utf8()..];
                        let value = if joined.is_empty() { rest.next() } else { Some(joined) };
                        options.set(long, value.ok_or_else(|| missing_value(long))?, input, file)?;
                        break;
                    }
                    None => return Err(unknown(argument)),
                }
            }
        }
        Ok(options)
    }

    fn set_flag(&mut self, long: &str) {
        match long {
            "--get" => self.data_in_query = true,
            "--head" => self.is_head = true,
            _ => {}
        }
    }

    fn set(
        &mut self,
        long: &str,
        value: &str,
        input: Option<&str>,
        file: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), NotUnderstood> {
        let read = |name: &str| match name {
            "-" => input.map(str::to_owned).ok_or_else(|| {
                let message = "the data is the output of another command, which is not known".to_owned();
                (message, "write the data in the call".to_owned())
            }),
            _ => file(name).ok_or_else(|| {
                (format!("file {name:?} of this call cannot be read"), "run the conversion in its folder".to_owned())
            }),
        };
        match long {
            "--request" => self.method = Some(value.to_ascii_uppercase()),
            "--url" => self.urls.push(value.to_owned()),
            "--header" => {
                if let Some((name, value)) = value.split_once(':')
                    && name.trim().eq_ignore_ascii_case("content-type")
                {
                    let media_type = value.split(';').next().unwrap_or_default();
                    self.media_type = Some(media_type.trim().to_ascii_lowercase());
                }
            }
            "--data" | "--data-ascii" | "--data-binary" | "--json" => {
                let text = match value.strip_prefix('@') {
                    // curl removes line ends of files, except with --data-binary and --json.
                    Some(name) if matches!(long, "--data" | "--data-ascii") => read(name)?.replace(['\r', '\n'], ""),
                    Some(name) => read(name)?,
                    None => value.to_owned(),
                };
                if long == "--json" {
                    self.media_type.get_or_insert_with(|| JSON.to_owned());
                    self.data.push_str(&text);
                } else {
                    self.add_data(&text);
                }
            }
            "--data-raw" => self.add_data(value),
            "--data-urlencode" => {
                let (name, content) = match value.find(['=', '@']) {
                    Some(at) if value[at..].starts_with('@') => (&value[..at], read(&value[at + 1..])?),
                    Some(at) => (&value[..at], value[at + 1..].to_owned()),
                    None => ("", value.to_owned()),
                };
                let content = form::encoded(&content);
                let text = if name.is_empty() { content } else { format!("{name}={content}") };
                self.add_data(&text);
            }
            "--form" | "--form-string" => {
                let (name, content) = value.split_once('=').ok_or_else(|| {
                    (format!("a field of the form has no value: {:?}", first_word(value)), CORRECT.to_owned())
                })?;
                let content = match content.strip_prefix(['@', '<']) {
                    Some(file_name) if long == "--form" => read(file_name)?,
                    _ if long == "--form"
                        && [";type=", ";filename=", ";headers="].iter().any(|end| content.contains(end)) =>
                    {
                        let message = "a field of the form has a type or a file name, which is not read";
                        return Err((message.to_owned(), "remove it, or use --form-string".to_owned()));
                    }
                    _ => content.to_owned(),
                };
                self.form.push(CallField { name: name.to_owned(), value: content });
            }
            _ => {}
        }
        Ok(())
    }

    fn add_data(&mut self, text: &str) {
        if !self.data.is_empty() {
            self.data.push('&');
        }
        self.data.push_str(text);
    }

    fn data_body(&self) -> Result<AdminBody, NotUnderstood> {
        let is_like_json = self.data.trim_start().starts_with(['{', '[']);
        match self.media_type.as_deref() {
            _ if self.data.trim().is_empty() => Ok(AdminBody::Json(Map::new())),
            Some(JSON) => match serde_json::from_str(&self.data) {
                Ok(Value::Object(fields)) => Ok(AdminBody::Json(fields)),
                Ok(_) => Err(("the body is not a JSON object".to_owned(), CORRECT.to_owned())),
                // The message of the parser would show parts of the body.
                Err(error) => {
                    let message = format!("the body is not JSON, from line {} of it on", error.line());
                    Err((message, "correct it, and check which quotes the shell removes".to_owned()))
                }
            },
            None | Some("application/x-www-form-urlencoded") if is_like_json => {
                let message = "the body is JSON, but its type is that of a form, as which Kong reads it";
                Err((message.to_owned(), "add -H 'Content-Type: application/json'".to_owned()))
            }
            None | Some("application/x-www-form-urlencoded") => {
                Ok(AdminBody::Form(form::nested(form::decode(&self.data))?))
            }
            Some(other) => {
                let remedy = format!("write the body as a form, or with the type {JSON}");
                Err((format!("bodies of the type {other} are not read"), remedy))
            }
        }
    }
}

/// The segments of the path of a URL.
fn path(url: &str) -> Result<Vec<String>, NotUnderstood> {
    if url.contains(['{', '}', '[', ']']) {
        let message = "braces and brackets in a URL stand for several URLs";
        return Err((message.to_owned(), "write a call for each of them".to_owned()));
    }
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split('#').next().unwrap_or_default();
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    if !query.is_empty() {
        return Err(("the query of this URL is not read".to_owned(), "write its fields as data".to_owned()));
    }
    let segments = rest.split('/').skip(1).filter(|segment| !segment.is_empty());
    let decoded = segments.map(|segment| percent_decode_str(segment).decode_utf8().map(|text| text.into_owned()));
    decoded.collect::<Result<_, _>>().map_err(|_| ("the path of this URL is not UTF-8".to_owned(), CORRECT.to_owned()))
}

fn unknown(argument: &str) -> NotUnderstood {
    let shown = argument.split('=').next().unwrap_or_default();
    (format!("option {shown} of curl is not known"), "remove it, or write the call without it".to_owned())
}

fn missing_value(option: &str) -> NotUnderstood {
    (format!("option {option} of curl has no value"), CORRECT.to_owned())
}

/// The part of a text that is no value.
fn first_word(text: &str) -> &str {
    text.split(['=', ':', ' ']).next().unwrap_or_default()
}

const JSON: &str = "application/json";
const CORRECT: &str = "correct the call";

const SHORT: [(char, &str); 33] = [
    ('X', "--request"),
    ('H', "--header"),
    ('d', "--data"),
    ('F', "--form"),
    ('G', "--get"),
    ('I', "--head"),
    ('s', "--silent"),
    ('S', "--show-error"),
    ('i', "--include"),
    ('v', "--verbose"),
    ('k', "--insecure"),
    ('L', "--location"),
    ('f', "--fail"),
    ('g', "--globoff"),
    ('#', "--progress-bar"),
    ('N', "--no-buffer"),
    ('4', "--ipv4"),
    ('6', "--ipv6"),
    ('0', "--http1.0"),
    ('q', "--disable"),
    ('o', "--output"),
    ('w', "--write-out"),
    ('u', "--user"),
    ('m', "--max-time"),
    ('A', "--user-agent"),
    ('e', "--referer"),
    ('b', "--cookie"),
    ('c', "--cookie-jar"),
    ('E', "--cert"),
    ('x', "--proxy"),
    ('D', "--dump-header"),
    ('y', "--speed-time"),
    ('Y', "--speed-limit"),
];

/// Options without a value.
const FLAGS: [&str; 26] = [
    "--get",
    "--head",
    "--silent",
    "--show-error",
    "--include",
    "--show-headers",
    "--verbose",
    "--insecure",
    "--location",
    "--fail",
    "--fail-with-body",
    "--fail-early",
    "--globoff",
    "--progress-bar",
    "--no-progress-meter",
    "--no-buffer",
    "--ipv4",
    "--ipv6",
    "--http1.0",
    "--http1.1",
    "--http2",
    "--disable",
    "--compressed",
    "--retry-connrefused",
    "--retry-all-errors",
    "--no-keepalive",
];

/// Options with a value.
const VALUES: [&str; 32] = [
    "--request",
    "--url",
    "--header",
    "--data",
    "--data-ascii",
    "--data-binary",
    "--data-raw",
    "--data-urlencode",
    "--json",
    "--form",
    "--form-string",
    "--output",
    "--write-out",
    "--user",
    "--max-time",
    "--connect-timeout",
    "--retry",
    "--retry-delay",
    "--retry-max-time",
    "--user-agent",
    "--referer",
    "--cookie",
    "--cookie-jar",
    "--cert",
    "--key",
    "--cacert",
    "--proxy",
    "--resolve",
    "--connect-to",
    "--dump-header",
    "--speed-time",
    "--speed-limit",
];

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn call(line: &str) -> Result<Option<(AdminMethod, String, Value, bool)>, String> {
        let arguments: Vec<String> = line.split('|').map(str::to_owned).collect();
        let file = |name: &str| (name == "key.pem").then(|| "PEM\nTEXT\n".to_owned());
        let call = parse(&arguments, Some("{\"name\": \"piped\"}"), &file).map_err(|(message, _)| message)?;
        Ok(call.map(|AdminCall { method, path, body }| match body {
            AdminBody::Json(fields) => (method, path.join("/"), Value::Object(fields), true),
            AdminBody::Form(fields) => (method, path.join("/"), Value::Object(fields), false),
        }))
    }

    #[test]
    fn requests_have_a_method_a_path_and_fields() {
        let form = |method, path: &str, body| Ok(Some((method, path.to_owned(), body, false)));
        let json = |method, path: &str, body| Ok(Some((method, path.to_owned(), body, true)));
        for (line, expected) in [
            (
                "-sXPOST|http://localhost:8001/services|-d|name=a|-d|url=http://b/c",
                form(AdminMethod::Post, "services", json!({"name": "a", "url": "http://b/c"})),
            ),
            (
                "-i|localhost:8001/services/|-d|name=a%20b+c",
                form(AdminMethod::Post, "services", json!({"name": "a b c"})),
            ),
            (
                "--request|PUT|--url|:8001/consumers/a%2Fb|--data-urlencode|custom_id=x&y",
                form(AdminMethod::Put, "consumers/a/b", json!({"custom_id": "x&y"})),
            ),
            (
                "-X|PATCH|http://k/routes/r|-H|content-type: Application/JSON; charset=utf-8|-d|{\"paths\": [\"/\"]}",
                json(AdminMethod::Patch, "routes/r", json!({"paths": ["/"]})),
            ),
            ("http://k/services|--json|@-", json(AdminMethod::Post, "services", json!({"name": "piped"}))),
            (
                "http://k/certificates|-F|key=@key.pem|-F|snis[]=a|-F|snis[]=b",
                form(AdminMethod::Post, "certificates", json!({"key": "PEM\nTEXT\n", "snis": ["a", "b"]})),
            ),
            ("http://k/a|-d|key=@key.pem", form(AdminMethod::Post, "a", json!({"key": "@key.pem"}))),
            ("http://k/a|-d|@key.pem", form(AdminMethod::Post, "a", json!({"PEMTEXT": null}))),
            ("-X|DELETE|http://k/routes/r|-o|/dev/null", json(AdminMethod::Delete, "routes/r", json!({}))),
            ("http://k/status", Ok(None)),
            ("-G|http://k/services|-d|size=1", Ok(None)),
            ("-I|http://k/services", Ok(None)),
        ] {
            assert_eq!(call(line), expected, "{line}");
        }
    }

    #[test]
    fn anything_else_is_not_guessed() {
        for (line, expected) in [
            ("-T|x|http://k/a", "option -T of curl is not known"),
            ("--next|http://k/a", "option --next of curl is not known"),
            ("http://k/a|-X", "option --request of curl has no value"),
            ("http://k/a|http://k/b|-d|a=b", "this call has 2 URLs"),
            ("-X|POST", "this call has 0 URLs"),
            ("-X|POST|http://k/a?x=1", "the query of this URL"),
            ("-X|POST|http://k/{a,b}", "braces and brackets"),
            ("-X|PURGE|http://k/a", "method PURGE"),
            ("http://k/a|-d|{\"a\": 1}", "the body is JSON, but its type is that of a form"),
            ("http://k/a|--json|{", "the body is not JSON, from line 1"),
            ("http://k/a|--json|[]", "the body is not a JSON object"),
            ("http://k/a|-H|Content-Type: text/xml|-d|<a/>", "bodies of the type text/xml"),
            ("http://k/a|-d|@none", "file \"none\" of this call cannot be read"),
            ("http://k/a|-F|a=b;type=text/plain", "a field of the form has a type"),
            ("http://k/a|-F|a=b|-d|c=d", "this call has both"),
        ] {
            let message = call(line).unwrap_err();
            assert!(message.starts_with(expected), "{line}: {message}");
        }
    }
}
