//! A template of a line: recognizes its notation, and unpacks whole directives of nginx and Apache.

use std::fmt;

use super::builder::TemplateBuilder;
use super::parts::{LineTemplate, LineTemplateError};
use super::{apache, envoy, nginx};

impl LineTemplate {
    /// Parses a template, a whole directive `log_format` or `LogFormat`, or the name of a format that they predefine.
    pub fn parse(text: &str) -> Result<LineTemplate, LineTemplateError> {
        if text.len() > MAX_TEMPLATE_BYTES {
            return Err(LineTemplateError::whole(
                format!("the template has more than {MAX_TEMPLATE_BYTES} bytes"),
                "write a shorter one",
            ));
        }
        let pasted = unpack(text)?;
        let source = match pasted.text.trim() {
            "combined" => COMBINED,
            "common" => COMMON,
            other => other,
        };
        // Envoy's text formats end with a line feed, which every line has anyway.
        let source = source.strip_suffix("\\n").unwrap_or(source).trim_end();
        if let Some(index) = source.find(|character: char| character.is_control()) {
            let message = "the template has a control character, but an entry is one line";
            return Err(LineTemplateError::at(source, index, message, "write it without line feeds and tabs"));
        }
        let is_json = pasted.is_json || source.starts_with('{');
        let mut builder = TemplateBuilder::default();
        let (missing_in_json, types_values) = match TemplateNotation::recognize(source)? {
            TemplateNotation::Nginx => {
                nginx::parse(source, &mut builder)?;
                ("", false)
            }
            TemplateNotation::Envoy => {
                envoy::parse(source, &mut builder)?;
                ("-", true)
            }
            TemplateNotation::Apache => {
                apache::parse(source, &mut builder)?;
                ("-", false)
            }
        };
        if builder.variables() > MAX_VARIABLES {
            let message = format!("the template has more than {MAX_VARIABLES} variables");
            return Err(LineTemplateError::whole(message, "write fewer"));
        }
        if is_json { builder.finish_json(missing_in_json, types_values) } else { Ok(builder.finish_text("-")) }
    }
}

/// The notations of variables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TemplateNotation {
    Nginx,
    Envoy,
    Apache,
}

impl TemplateNotation {
    /// Recognizes the notation by the first variable of each.
    fn recognize(text: &str) -> Result<TemplateNotation, LineTemplateError> {
        let bytes = text.as_bytes();
        let rest = |index: usize| bytes.get(index + 1..).unwrap_or_default();
        let find = |matches: &dyn Fn(usize) -> bool| (0..bytes.len()).find(|index| matches(*index));
        let nginx = find(&|index| {
            bytes[index] == b'$' && rest(index).first().is_some_and(|next| next.is_ascii_alphabetic() || *next == b'{')
        });
        let envoy = find(&|index| {
            let is_name = || {
                let name = rest(index).iter().take_while(|byte| byte.is_ascii_uppercase() || **byte == b'_').count();
                name > 1 && rest(index).get(name).is_none_or(|end| b"%(:".contains(end))
            };
            bytes[index] == b'%' && is_name()
        });
        // The end of a variable of Envoy looks like the beginning of one of Apache.
        let apache = find(&|index| {
            let is_modifier = |byte: &&u8| b"<>!,".contains(byte) || byte.is_ascii_digit();
            let name = || rest(index).iter().find(|byte| !is_modifier(byte));
            bytes[index] == b'%' && name().is_some_and(|byte| byte.is_ascii_alphabetic() || *byte == b'{')
        });
        let apache = apache.filter(|_| envoy.is_none());
        let found =
            [(nginx, TemplateNotation::Nginx), (envoy, TemplateNotation::Envoy), (apache, TemplateNotation::Apache)];
        let found: Vec<_> = found.iter().filter_map(|(index, notation)| Some((index.as_ref()?, *notation))).collect();
        match found[..] {
            [(_, notation)] => Ok(notation),
            [] => Err(LineTemplateError::whole(
                "the text is no format and has no variables",
                "use json, text, combined or common, or a template such as `$remote_addr $status $request_time`",
            )),
            [(first, one), (second, other), ..] => {
                let message = format!("the template has variables of {one} and of {other}");
                Err(LineTemplateError::at(text, *first.max(second), message, "use the variables of one of them"))
            }
        }
    }
}

impl fmt::Display for TemplateNotation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            TemplateNotation::Nginx => "nginx",
            TemplateNotation::Envoy => "Envoy",
            TemplateNotation::Apache => "Apache",
        })
    }
}

/// A template without the directive that contains it.
struct PastedTemplate {
    text: String,
    is_json: bool,
}

/// Takes the template out of `log_format NAME escape=json '…' '…';` and `LogFormat "…" NAME`.
fn unpack(text: &str) -> Result<PastedTemplate, LineTemplateError> {
    let text = text.trim();
    if let Some(rest) = text.strip_prefix("LogFormat").filter(|rest| rest.starts_with(char::is_whitespace)) {
        let words = words(rest)?;
        let template = words.into_iter().next().unwrap_or_default();
        return Ok(PastedTemplate { text: template, is_json: false });
    }
    let is_directive = text.strip_prefix("log_format").filter(|rest| rest.starts_with(char::is_whitespace));
    let Some(rest) = is_directive.or_else(|| text.starts_with("escape=").then_some(text)) else {
        return Ok(PastedTemplate { text: text.to_owned(), is_json: false });
    };
    let mut words = words(rest.trim_end().trim_end_matches(';'))?.into_iter().peekable();
    if is_directive.is_some() {
        // The name of the format.
        words.next();
    }
    let mut is_json = false;
    if let Some(escape) = words.next_if(|word| word.starts_with("escape=")) {
        is_json = match &*escape {
            "escape=json" => true,
            "escape=default" => false,
            _ => {
                let message = format!("{escape} is not supported: clients could write lines of their own");
                return Err(LineTemplateError::whole(message, "use escape=default or escape=json"));
            }
        };
    }
    Ok(PastedTemplate { text: words.collect(), is_json })
}

/// The words of a directive. Quotes around a word are removed; a backslash before a quote is, too.
fn words(text: &str) -> Result<Vec<String>, LineTemplateError> {
    let mut words = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((index, first)) = characters.next() {
        if first.is_whitespace() {
            continue;
        }
        let quote = ['\'', '"'].contains(&first).then_some(first);
        let mut word = if quote.is_some() { String::new() } else { first.to_string() };
        loop {
            match characters.next() {
                Some((_, '\\')) if quote.is_some() => match characters.next() {
                    Some((_, escaped)) if Some(escaped) == quote || escaped == '\\' => word.push(escaped),
                    Some((_, other)) => word.extend(['\\', other]),
                    None => word.push('\\'),
                },
                Some((_, character)) if Some(character) == quote => break,
                Some((_, character)) if quote.is_none() && character.is_whitespace() => break,
                Some((_, character)) => word.push(character),
                None if quote.is_some() => {
                    let message = "the quote has no end";
                    return Err(LineTemplateError::at(
                        text,
                        index,
                        message,
                        "close it, or paste the text without quotes",
                    ));
                }
                None => break,
            }
        }
        words.push(word);
    }
    Ok(words)
}

/// The longest template.
const MAX_TEMPLATE_BYTES: usize = 8 * 1024;

/// Every value may have several kilobytes, so that their number limits the length of a line.
const MAX_VARIABLES: usize = 128;

/// The predefined format of nginx and of Apache.
const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \
                        \"$http_referer\" \"$http_user_agent\"";
/// The Common Log Format of Apache.
const COMMON: &str = "%h %l %u %t \"%r\" %>s %b";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access_log_syntax::{DurationUnit, LineVariable, SeriesLabel, TimeForm, ValueForm};

    fn variables(text: &str) -> Vec<LineVariable> {
        LineTemplate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).variables().cloned().collect()
    }

    #[test]
    fn notation_is_recognized_by_its_variables() {
        use LineVariable::{Client, ClientIp, Duration, Method, Status, Time};
        for (text, expected) in [
            ("$remote_addr ${status}s", vec![ClientIp, Status]),
            (
                "%START_TIME% %REQ(:METHOD)% %DOWNSTREAM_REMOTE_ADDRESS%\\n",
                vec![Time(TimeForm::Rfc3339), Method, Client],
            ),
            ("%h \"%>s\" %D", vec![ClientIp, Status, Duration(DurationUnit::WholeMicroseconds)]),
            ("log_format main '$remote_addr '\n  '$status';", vec![ClientIp, Status]),
            ("LogFormat \"%h \\\"%>s\\\"\" common", vec![ClientIp, Status]),
            ("escape=json '{\"a\":\"$remote_addr\",\"b\":$status}'", vec![ClientIp, Status]),
            ("%DURATION%s", vec![Duration(DurationUnit::WholeMilliseconds)]),
        ] {
            assert_eq!(variables(text), expected, "{text}");
        }
        assert_eq!(variables("combined").len(), 8);
        assert_eq!(variables("common").len(), 7);
    }

    #[test]
    fn formats_that_people_use_are_accepted() {
        for text in [
            // The default of ingress-nginx.
            "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
             \"$http_user_agent\" $request_length $request_time [$proxy_upstream_name] \
             [$proxy_alternative_upstream_name] $upstream_addr $upstream_response_length $upstream_response_time \
             $upstream_status $req_id",
            // The default of Envoy.
            "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \
             %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \
             \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \
             \"%UPSTREAM_HOST%\"\n",
            // Apache's combined, with a virtual host and a duration.
            "%v:%p %h %l %u %t \"%r\" %>s %O \"%{Referer}i\" \"%{User-Agent}i\" %{ms}T",
        ] {
            LineTemplate::parse(text).unwrap_or_else(|error| panic!("{text}: {error}"));
        }
    }

    #[test]
    fn errors_name_the_place_and_what_would_be_right() {
        for (text, expected) in [
            ("$status $remote_adr", "character 9: there is no variable $remote_adr; did you mean $remote_addr?"),
            ("%RESPONSE_CDE%", "character 1: there is no variable %RESPONSE_CDE%; did you mean %RESPONSE_CODE%?"),
            ("é %h %k", "character 6: there is no variable %k; remove it"),
            ("$http_authorization", "character 1: $http_authorization may contain credentials"),
            ("%REQ(X-Api-Key)%", "character 1: %REQ(X-Api-Key)% may contain credentials"),
            ("%{Cookie}i", "character 1: %{Cookie}i may contain credentials"),
            ("$cookie_session", "character 1: $cookie_session may contain credentials"),
            ("$status %h", "character 9: the template has variables of nginx and of Apache"),
            ("jsn", "the text is no format and has no variables; use json"),
            ("$status\n$status", "character 8: the template has a control character"),
            ("escape=none '$status'", "escape=none is not supported"),
            ("log_format a '$status", "character 4: the quote has no end"),
            ("{\"a\": $status \"b\"}", "with values in place of its variables, the template is no JSON object"),
            ("$", "the text is no format"),
            ("$status $", "character 9: a variable has no name"),
            ("%START_TIME", "character 1: the variable has no end"),
            ("%START_TIME% %REQ(a", "character 14: the variable has no end"),
            ("%{%!}t", "character 1: `%!` is not a format of times"),
            ("%{x}e", "character 1: there is no variable %{x}e"),
        ] {
            let error = LineTemplate::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        for (text, expected) in [
            ("$status".repeat(2000), "the template has more than 8192 bytes"),
            ("$status ".repeat(129), "the template has more than 128 variables"),
        ] {
            let error = LineTemplate::parse(&text).expect_err(expected).to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    #[test]
    fn places_decide_how_values_are_escaped() {
        let forms = |text| LineTemplate::parse(text).unwrap().parts.iter().map(|part| part.form).collect::<Vec<_>>();
        use ValueForm::{Bare, JsonText, JsonValue, Quoted};
        assert_eq!(forms("$status \"$request\" $status"), [Bare, Quoted, Bare]);
        assert_eq!(forms("{\"a\":\"$request x\",\"b\":$status}"), [JsonText, JsonValue]);
        let typed = LineTemplate::parse("{\"a\":\"%DURATION%\",\"b\":\"%DURATION% ms\"}").unwrap();
        assert_eq!(typed.parts.iter().map(|part| part.form).collect::<Vec<_>>(), [JsonValue, JsonText]);
        assert_eq!(&*typed.parts[1].before, ",\"b\":\"");
    }

    #[test]
    fn labels_have_variables() {
        let expected = [SeriesLabel::Upstream, SeriesLabel::RouteNamespace].map(LineVariable::Label);
        assert_eq!(variables("$upstream $namespace"), expected);
        let expected = [LineVariable::UpstreamName, LineVariable::AlternativeUpstream];
        assert_eq!(variables("$proxy_upstream_name [$proxy_alternative_upstream_name]"), expected);
    }

    /// The page lists exactly the variables that exist, and each of them is accepted.
    #[test]
    fn page_lists_all_variables() {
        let page = include_str!("../../../../docs/tasks/access-logs.md");
        let table = page.split_once("\n## Variables\n").unwrap().1.split_once("\n## ").unwrap().0;
        let rows = table.lines().filter(|line| line.starts_with("| "));
        let cells = rows.flat_map(|row| row.split('|').skip(2));
        let listed: Vec<&str> = cells.flat_map(|cell| cell.split('`').skip(1).step_by(2)).collect();
        for written in listed.iter().filter(|written| written.starts_with(['$', '%'])) {
            LineTemplate::parse(written).unwrap_or_else(|error| panic!("{written}: {error}"));
        }
        let of_nginx = nginx::VARIABLES.iter().map(|(name, _)| format!("${name}"));
        let fields = |kind: &'static str, table: &'static [(&'static str, LineVariable)]| {
            table.iter().map(move |(name, _)| format!("%{kind}({})%", name.to_ascii_uppercase()))
        };
        let of_envoy = envoy::VARIABLES.iter().map(|(name, _)| format!("%{name}%"));
        let of_envoy =
            of_envoy.chain(fields("REQ", envoy::REQUEST_FIELDS)).chain(fields("RESP", envoy::RESPONSE_FIELDS));
        let of_apache = apache::VARIABLES.iter().chain(apache::ARGUMENTS).map(|(name, _)| format!("%{name}"));
        let missing: Vec<_> =
            of_nginx.chain(of_envoy).chain(of_apache).filter(|name| !listed.contains(&&**name)).collect();
        assert!(missing.is_empty(), "docs/tasks/access-logs.md does not list {missing:?}");
    }
}
