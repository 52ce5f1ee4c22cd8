//! Distinguished names (RFC 4514): the name of a user, the names of groups, and the form in which names are compared.

/// The distinguished name of the entry below `base` whose attribute has this value. Whatever the value contains, it is
/// a value of this attribute.
pub(super) fn entry_name(attribute: &str, value: &str, base: &str) -> String {
    let mut name = String::with_capacity(attribute.len() + value.len() + base.len() + 2);
    push_part(&mut name, attribute, value);
    name.push(',');
    name.push_str(base);
    name
}

fn push_part(name: &mut String, attribute: &str, value: &str) {
    name.push_str(attribute);
    name.push('=');
    let last = value.len().saturating_sub(1);
    for (index, character) in value.char_indices() {
        let is_edge_space = character == ' ' && (index == 0 || index == last);
        match character {
            '\0' => name.push_str("\\00"),
            '"' | '+' | ',' | ';' | '<' | '=' | '>' | '\\' => name.extend(['\\', character]),
            '#' if index == 0 => name.push_str("\\#"),
            ' ' if is_edge_space => name.push_str("\\ "),
            character => name.push(character),
        }
    }
}

/// The form of a distinguished name that all of its spellings share. What is not one is compared as text.
pub(super) fn comparable_name(name: &str) -> String {
    let Some(parts) = parse_name(name) else { return comparable_text(name) };
    let mut comparable = String::with_capacity(name.len());
    for (index, (attribute, value)) in parts.iter().enumerate() {
        comparable.push_str(if index == 0 { "" } else { "," });
        push_part(&mut comparable, attribute, &comparable_text(value));
    }
    comparable
}

/// The form of a text that directories compare (RFC 4518, sections 2.2 and 2.6.1): in lower case, without spaces at its
/// ends, with one for several, and without characters that are not visible.
pub(super) fn comparable_text(text: &str) -> String {
    let mut comparable = String::with_capacity(text.len());
    let mapped = text.chars().filter(|character| !is_invisible(*character));
    for character in mapped.map(|character| if is_space(character) { ' ' } else { character }) {
        if character != ' ' || !(comparable.is_empty() || comparable.ends_with(' ')) {
            comparable.extend(character.to_lowercase());
        }
    }
    comparable.truncate(comparable.trim_end_matches(' ').len());
    comparable
}

fn is_space(character: char) -> bool {
    character.is_whitespace()
}

/// The characters that are mapped to nothing.
fn is_invisible(character: char) -> bool {
    let is_control = character.is_control() && !character.is_whitespace();
    is_control
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{6dd}' | '\u{70f}' | '\u{1806}' | '\u{180b}'..='\u{180e}'
            | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2063}'
            | '\u{206a}'..='\u{206f}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff9}'..='\u{fffc}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0001}' | '\u{e0020}'..='\u{e007f}')
}

/// The parts of a distinguished name, from the entry to the root: attribute and value, with letter case and spaces that
/// do not matter made the same. `None` if it is not one.
pub(super) fn parse_name(name: &str) -> Option<Vec<(String, String)>> {
    let mut parts = Vec::new();
    // Only spaces are insignificant, and one that ends the name may be escaped.
    let mut rest = name.trim_start_matches(' ');
    while !rest.is_empty() {
        let (attribute, after) = rest.split_once('=')?;
        let attribute = attribute.trim_matches(' ').to_lowercase();
        let is_attribute = |byte: u8| byte.is_ascii_alphanumeric() || b".-".contains(&byte);
        if attribute.is_empty() || !attribute.bytes().all(is_attribute) {
            return None;
        }
        let (value, after) = parse_value(after.trim_start_matches(' '))?;
        parts.push((attribute, value));
        rest = after;
    }
    Some(parts)
}

/// The value at the beginning of the text with its escapes decoded, and what follows the comma after it. Entries that
/// several attributes name together keep them in one value.
fn parse_value(text: &str) -> Option<(String, &str)> {
    let bytes = text.as_bytes();
    let mut value = Vec::new();
    // The length of the value without unescaped spaces at its end.
    let mut significant = 0;
    let mut index = 0;
    while index < bytes.len() && bytes[index] != b',' {
        if bytes[index] != b'\\' {
            value.push(bytes[index]);
            if bytes[index] != b' ' {
                significant = value.len();
            }
            index += 1;
            continue;
        }
        let hex = |byte: Option<&u8>| char::from(*byte?).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        match (hex(bytes.get(index + 1)), hex(bytes.get(index + 2))) {
            (Some(high), Some(low)) => {
                value.push(high << 4 | low);
                index += 3;
            }
            _ => {
                value.push(*bytes.get(index + 1)?);
                index += 2;
            }
        }
        significant = value.len();
    }
    value.truncate(significant);
    let rest = text.get(index + 1..).unwrap_or_default();
    // A comma must be followed by another part.
    if index < bytes.len() && rest.trim_matches(' ').is_empty() {
        return None;
    }
    Some((String::from_utf8(value).ok()?, rest))
}

/// Which values of an attribute are groups, and what their names are.
#[derive(Debug)]
pub(super) struct GroupNames {
    /// The entry below which groups are. Without it, all values count.
    base: Option<Vec<(String, String)>>,
    /// The attribute that has the name of a group, in lower case. Without it, the first one of the value.
    attribute: Option<String>,
}

impl GroupNames {
    /// `None` if `base` is not a distinguished name.
    pub(super) fn new(base: Option<&str>, attribute: Option<&str>) -> Option<Self> {
        let base = match base {
            Some(base) => Some(parse_name(base).filter(|parts| !parts.is_empty()).map(comparable)?),
            None => None,
        };
        Some(GroupNames { base, attribute: attribute.map(str::to_lowercase) })
    }

    /// The name of the group in a value of the attribute, such as `staff` for `cn=staff,ou=groups,dc=example`.
    pub(super) fn name(&self, value: &str) -> Option<String> {
        let parts = parse_name(value)?;
        let (attribute, name) = parts.first()?.clone();
        if self.attribute.as_ref().is_some_and(|expected| *expected != attribute) {
            return None;
        }
        if let Some(base) = &self.base {
            let parts = comparable(parts);
            if parts.len() <= base.len() || !parts.ends_with(base) {
                return None;
            }
        }
        Some(name)
    }
}

/// Values of names are compared without regard to letter case.
fn comparable(parts: Vec<(String, String)>) -> Vec<(String, String)> {
    parts.into_iter().map(|(attribute, value)| (attribute, comparable_text(&value))).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    // RFC 4514, section 2.4
    #[test]
    fn values_are_escaped() {
        let cases = [
            ("anna", "uid=anna,dc=x"),
            ("a,ou=admins", "uid=a\\,ou\\=admins,dc=x"),
            ("a+b\"c\\d<e>f;g", "uid=a\\+b\\\"c\\\\d\\<e\\>f\\;g,dc=x"),
            (" a b ", "uid=\\ a b\\ ,dc=x"),
            (" ", "uid=\\ ,dc=x"),
            ("#a#", "uid=\\#a#,dc=x"),
            ("a\0b", "uid=a\\00b,dc=x"),
            ("Zoë", "uid=Zoë,dc=x"),
        ];
        for (value, expected) in cases {
            let name = entry_name("uid", value, "dc=x");
            assert_eq!(name, expected, "{value:?}");
            assert_eq!(parse_name(&name).unwrap()[0], ("uid".to_owned(), value.to_owned()), "{value:?}");
        }
    }

    // RFC 4518, sections 2.2 and 2.6.1
    #[test]
    fn spellings_of_one_name_are_the_same() {
        for (one, others) in [
            ("anna", &["ANNA", " anna", "anna  ", "an\u{ad}na", "\u{feff}anna\u{200b}", "\tanna\u{a0}"][..]),
            ("a b", &["a  b", " A\u{3000}\u{2003}b "]),
            ("zoë", &["ZOË"]),
            ("", &[" ", "\u{200b}"]),
        ] {
            for other in others {
                assert_eq!(comparable_text(other), one, "{other:?}");
            }
        }
        for other in ["anna b", "annab", "a nna", "an-na"] {
            assert_ne!(comparable_text(other), "anna", "{other:?}");
        }
        let name = "uid=anna,ou=users,dc=x";
        for other in ["UID=Anna , ou=Users,dc=X", "uid=\\ anna,ou=users,dc=x", "uid=ann\\61,ou=users, dc=x", name] {
            assert_eq!(comparable_name(other), name, "{other}");
        }
        assert_ne!(comparable_name("uid=anna\\,ou\\=users,dc=x"), comparable_name("uid=anna,ou=users,dc=x"));
        assert_eq!(comparable_name("no Name"), "no name");
    }

    #[test]
    fn groups_are_named_by_their_first_part() {
        let any = GroupNames::new(None, None).unwrap();
        let cases = [
            ("cn=staff,ou=groups,dc=x", Some("staff")),
            ("CN=Night Shift , DC=x", Some("Night Shift")),
            ("cn=a\\,b,dc=x", Some("a,b")),
            ("cn=Zo\\c3\\ab,dc=x", Some("Zoë")),
            ("cn=a\\ ,dc=x", Some("a ")),
            (" cn = a\\ ", Some("a ")),
            ("cn=\u{b}a\u{a0} ,dc=x", Some("\u{b}a\u{a0}")),
            ("staff", None),
            ("", None),
            ("cn=a,", None),
            ("cn=a\\", None),
            ("c n=a", None),
            ("cn=\\ff", None),
        ];
        for (value, expected) in cases {
            assert_eq!(any.name(value).as_deref(), expected, "{value}");
        }
        let below = GroupNames::new(Some("OU=Groups, dc=x"), Some("CN")).unwrap();
        let cases = [
            ("cn=staff,ou=groups,dc=X", Some("staff")),
            ("cn=staff,ou=shop,ou=groups,dc=x", Some("staff")),
            ("cn=staff,ou=other,dc=x", None),
            ("cn=staff,ou=groups,dc=x,dc=y", None),
            ("ou=groups,dc=x", None),
            ("uid=staff,ou=groups,dc=x", None),
            // The escaped comma does not begin another part.
            ("cn=staff\\,ou=groups\\,dc=x", None),
        ];
        for (value, expected) in cases {
            assert_eq!(below.name(value).as_deref(), expected, "{value}");
        }
        assert!(GroupNames::new(Some("groups"), None).is_none() && GroupNames::new(Some(""), None).is_none());
    }

    proptest! {
        #[test]
        fn any_value_is_one_part(value in ".{0,20}") {
            let parts = parse_name(&entry_name("uid", &value, "dc=x")).unwrap();
            prop_assert_eq!(parts, [("uid".to_owned(), value), ("dc".to_owned(), "x".to_owned())]);
        }

        #[test]
        fn parsing_never_panics(name in ".{0,30}") {
            drop(parse_name(&name));
        }
    }
}
