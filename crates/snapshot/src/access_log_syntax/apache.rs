//! Variables in the notation of Apache: `%h`, `%>s`, `%{Referer}i`, `%{%Y-%m-%d}t`.

use http::HeaderName;

use super::builder::TemplateBuilder;
use super::parts::LineTemplateError;
use super::variable::{
    DurationUnit, LineVariable, NamedVariable, SeriesLabel, TimeForm, find, is_secret_field, time_pattern,
};

pub(super) fn parse(text: &str, builder: &mut TemplateBuilder) -> Result<(), LineTemplateError> {
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let index = text.len() - rest.len();
        rest = &rest[character.len_utf8()..];
        match character {
            '\\' => {
                // As in the configuration file, where the template is in quotes.
                let escaped = rest.chars().next().filter(|next| ['"', '\\'].contains(next));
                rest = &rest[escaped.map_or(0, char::len_utf8)..];
                builder.text(escaped.unwrap_or('\\'));
                continue;
            }
            '%' => {}
            character => {
                builder.text(character);
                continue;
            }
        }
        if let Some(after) = rest.strip_prefix('%') {
            builder.text('%');
            rest = after;
            continue;
        }
        let modifiers =
            rest.find(|next: char| !matches!(next, '<' | '>' | '!' | ',' | '0'..='9')).unwrap_or(rest.len());
        let (modifiers, after) = rest.split_at(modifiers);
        let no_end = || LineTemplateError::at(text, index, "the variable has no end", "write a letter after it");
        let (argument, after) = match after.strip_prefix('{') {
            Some(inner) => {
                let (argument, after) = inner.split_once('}').ok_or_else(no_end)?;
                (Some(argument), after)
            }
            None => (None, after),
        };
        let letter = after.chars().next().ok_or_else(no_end)?;
        // `%^ti` and the like.
        let length = if letter == '^' { after.len().min(3) } else { letter.len_utf8() };
        let (name, after) = after.split_at_checked(length).ok_or_else(no_end)?;
        let written = &text[index..text.len() - after.len()];
        rest = after;
        if modifiers.contains(|modifier: char| !['<', '>'].contains(&modifier)) {
            let message = format!("{written} has a list of statuses, which is not supported");
            return Err(LineTemplateError::at(text, index, message, "write the variable without it"));
        }
        builder.variable(variable(name, argument, (text, index), written)?);
    }
    Ok(())
}

fn variable(
    name: &str,
    argument: Option<&str>,
    place: (&str, usize),
    written: &str,
) -> Result<LineVariable, LineTemplateError> {
    let unknown = || {
        let known = VARIABLES.iter().map(|(known, _)| *known);
        LineTemplateError::unknown(place, written, name, known, |known| format!("%{known}"))
    };
    let Some(argument) = argument else { return find(VARIABLES, name).ok_or_else(unknown) };
    match name {
        "i" | "o" => {
            let field = HeaderName::try_from(argument).map_err(|_| unknown())?;
            match name {
                _ if is_secret_field(&field) => Err(LineTemplateError::secret(place.0, place.1, written)),
                "i" if field == http::header::HOST => Ok(LineVariable::Authority),
                "i" => Ok(LineVariable::RequestField(field)),
                _ => Ok(LineVariable::ResponseField(field)),
            }
        }
        "C" => Err(LineTemplateError::secret(place.0, place.1, written)),
        "t" => {
            let pattern = argument.strip_prefix("begin:").unwrap_or(argument);
            let form = time_pattern(pattern).ok_or_else(|| {
                let message = format!("`{pattern}` is not a format of times");
                LineTemplateError::at(place.0, place.1, message, "use sec, msec, usec, or one of strftime")
            })?;
            Ok(LineVariable::Time(form))
        }
        _ => find(ARGUMENTS, &format!("{{{argument}}}{name}")).ok_or_else(unknown),
    }
}

/// All variables without an argument.
pub(super) const VARIABLES: &[NamedVariable] = &[
    ("a", LineVariable::ClientIp),
    ("h", LineVariable::ClientIp),
    ("l", LineVariable::None),
    ("u", LineVariable::Consumer),
    ("t", LineVariable::Time(TimeForm::BracketedCommon)),
    ("r", LineVariable::RequestLine),
    ("m", LineVariable::Method),
    ("U", LineVariable::Path),
    ("q", LineVariable::QueryWithMark),
    ("H", LineVariable::Protocol),
    ("v", LineVariable::Host),
    ("V", LineVariable::Host),
    ("p", LineVariable::ListenerPort),
    ("s", LineVariable::Status),
    ("b", LineVariable::BytesOutIfAny),
    ("B", LineVariable::BytesOut),
    ("I", LineVariable::RequestBytes),
    ("O", LineVariable::ResponseBytes),
    ("D", LineVariable::Duration(DurationUnit::WholeMicroseconds)),
    ("T", LineVariable::Duration(DurationUnit::WholeSeconds)),
    ("L", LineVariable::RequestId),
];

/// Variables with one of these arguments.
pub(super) const ARGUMENTS: &[NamedVariable] = &[
    ("{c}a", LineVariable::ClientIp),
    ("{remote}p", LineVariable::ClientPort),
    ("{canonical}p", LineVariable::ListenerPort),
    ("{s}T", LineVariable::Duration(DurationUnit::WholeSeconds)),
    ("{ms}T", LineVariable::Duration(DurationUnit::WholeMilliseconds)),
    ("{us}T", LineVariable::Duration(DurationUnit::WholeMicroseconds)),
    ("{SSL_PROTOCOL}x", LineVariable::TlsVersion),
    ("{SSL_CIPHER}x", LineVariable::TlsCipher),
    ("{SSL_TLS_SNI}x", LineVariable::ServerName),
    ("{UNIQUE_ID}e", LineVariable::RequestId),
    ("{BALANCER_WORKER_NAME}e", LineVariable::Endpoint),
    ("{BALANCER_NAME}e", LineVariable::Label(SeriesLabel::Upstream)),
];
