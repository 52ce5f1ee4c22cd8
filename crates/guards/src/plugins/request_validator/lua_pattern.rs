//! Patterns of Lua, which schemas of the version `kong` use, as regular expressions.

/// Translates a pattern (Lua 5.1 reference manual, section 5.4.1). The error is a clause.
pub(super) fn to_regex(pattern: &str) -> Result<String, &'static str> {
    let mut regex = String::with_capacity(pattern.len() + 8);
    let mut characters = pattern.chars().peekable();
    if characters.next_if_eq(&'^').is_some() {
        regex.push('^');
    }
    let mut open_groups = 0_usize;
    while let Some(character) = characters.next() {
        let item = match character {
            '%' => match characters.next() {
                Some('b' | 'f') => return Err("has %b or %f, which have no regular expression"),
                Some(digit) if digit.is_ascii_digit() => return Err("has a backreference"),
                Some(class) => match class_of(class) {
                    Some(class) => format!("[{class}]"),
                    None => escaped(class),
                },
                None => return Err("ends with %"),
            },
            '[' => set(&mut characters)?,
            '.' => "[\\s\\S]".to_owned(),
            '(' => {
                open_groups += 1;
                regex.push_str("(?:");
                continue;
            }
            ')' => {
                open_groups = open_groups.checked_sub(1).ok_or("has a closing parenthesis without an opening one")?;
                regex.push(')');
                continue;
            }
            '$' if characters.peek().is_none() => {
                regex.push('$');
                continue;
            }
            other => escaped(other),
        };
        regex.push_str(&item);
        match characters.peek() {
            Some('*') => regex.push('*'),
            Some('+') => regex.push('+'),
            Some('?') => regex.push('?'),
            Some('-') => regex.push_str("*?"),
            _ => continue,
        }
        characters.next();
    }
    if open_groups > 0 { Err("has an opening parenthesis without a closing one") } else { Ok(regex) }
}

/// The members of a class, for use between brackets.
fn class_of(letter: char) -> Option<&'static str> {
    Some(match letter {
        'a' => "A-Za-z",
        'c' => r"\x00-\x1F\x7F",
        'd' => "0-9",
        'l' => "a-z",
        'p' => r"!-/:-@\[-`{-~",
        's' => r"\t-\r ",
        'u' => "A-Z",
        'w' => "A-Za-z0-9",
        'x' => "A-Fa-f0-9",
        'A' => "^A-Za-z",
        'D' => "^0-9",
        'L' => "^a-z",
        'P' => r"^!-/:-@\[-`{-~",
        'S' => r"^\t-\r ",
        'U' => "^A-Z",
        'W' => "^A-Za-z0-9",
        'X' => "^A-Fa-f0-9",
        _ => return None,
    })
}

/// A set in brackets, of which the opening one was read.
fn set(characters: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<String, &'static str> {
    let mut set = "[".to_owned();
    if characters.next_if_eq(&'^').is_some() {
        set.push('^');
    }
    let mut is_first = true;
    loop {
        match characters.next().ok_or("has a set without an end")? {
            ']' if !is_first => break,
            '%' => {
                let class = characters.next().ok_or("ends with %")?;
                match class_of(class) {
                    Some(members) if members.starts_with('^') => return Err("has a negated class in a set"),
                    Some(members) => set.push_str(members),
                    None => set.push_str(&escaped(class)),
                }
            }
            '-' => set.push('-'),
            other => set.push_str(&escaped(other)),
        }
        is_first = false;
    }
    set.push(']');
    Ok(set)
}

fn escaped(character: char) -> String {
    if r"\.+*?()|[]{}^$#&-~/".contains(character) { format!("\\{character}") } else { character.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_become_regular_expressions() {
        for (pattern, expected) in [
            ("^%d+$", Ok("^[0-9]+$")),
            ("^[%w_-]+$", Ok("^[A-Za-z0-9_-]+$")),
            ("a.-b", Ok(r"a[\s\S]*?b")),
            ("%.com$", Ok(r"\.com$")),
            ("^(a|b)", Ok(r"^(?:a\|b)")),
            ("a$b", Ok(r"a\$b")),
            ("%b()", Err("has %b or %f, which have no regular expression")),
            ("(a)%1", Err("has a backreference")),
            ("[a", Err("has a set without an end")),
            ("(a", Err("has an opening parenthesis without a closing one")),
            ("a)", Err("has a closing parenthesis without an opening one")),
        ] {
            assert_eq!(to_regex(pattern).as_deref(), expected.as_ref().copied(), "{pattern}");
        }
    }
}
