//! The path of a field in JSON documents that is masked, such as `customer.email` or `**.iban`.

/// Where a field is: at one place, or at any depth.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MaskedPath(pub(super) Box<[MaskedStep]>);

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum MaskedStep {
    Member(Box<str>),
    /// Any member of an object.
    EachMember,
    /// An element of a list, from 0 on.
    Element(usize),
    EachElement,
    /// Any number of members and elements, also none.
    AnyDepth,
}

impl MaskedPath {
    /// Parses a path. `[1]` is the first element of a list and `[*]` each, `*` any member, and `**` any depth. The
    /// error says what is wrong.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let mut steps = Vec::new();
        for segment in text.split('.') {
            let (name, mut indices) = segment.split_at(segment.find('[').unwrap_or(segment.len()));
            match name {
                "" if indices.is_empty() || !steps.is_empty() => return Err("has a dot without a name"),
                "" => {}
                "*" => steps.push(MaskedStep::EachMember),
                "**" if indices.is_empty() => steps.push(MaskedStep::AnyDepth),
                "**" => return Err("has a bracket after `**`; write a dot first"),
                name => steps.push(MaskedStep::Member(name.into())),
            }
            while let Some(index) = indices.strip_prefix('[') {
                let (index, rest) = index.split_once(']').ok_or("has a bracket that is not closed")?;
                steps.push(match (index, index.parse::<usize>()) {
                    ("*", _) => MaskedStep::EachElement,
                    (_, Ok(number)) if number > 0 => MaskedStep::Element(number - 1),
                    _ => return Err("has brackets without `*` or a number from 1 on"),
                });
                indices = rest;
            }
            if !indices.is_empty() {
                return Err("has text after a bracket; write a dot first");
            }
            if steps.len() > MAX_STEPS {
                return Err("has more than 32 steps");
            }
        }
        // Several would have many states for each value.
        if steps.iter().filter(|step| **step == MaskedStep::AnyDepth).count() > 1 {
            return Err("has more than one `**`");
        }
        match steps.last() {
            Some(MaskedStep::AnyDepth) => Err("ends with `**`, so it would mask the whole document"),
            Some(_) => Ok(MaskedPath(steps.into())),
            None => Err("is empty"),
        }
    }
}

const MAX_STEPS: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_parsed() {
        for (text, expected) in [
            ("email", Ok(1)),
            ("a.b.c", Ok(3)),
            ("a[*].b[2][*]", Ok(5)),
            ("[*].email", Ok(2)),
            ("**.email", Ok(2)),
            ("a.**.*.email", Ok(4)),
            ("", Err("has a dot without a name")),
            ("a..b", Err("has a dot without a name")),
            (".a", Err("has a dot without a name")),
            ("a.", Err("has a dot without a name")),
            ("a.[*]", Err("has a dot without a name")),
            ("a[0]", Err("has brackets without `*` or a number from 1 on")),
            ("a[", Err("has a bracket that is not closed")),
            ("a[*]b", Err("has text after a bracket; write a dot first")),
            ("**", Err("ends with `**`, so it would mask the whole document")),
            ("a.**", Err("ends with `**`, so it would mask the whole document")),
            ("**.a.**.b", Err("has more than one `**`")),
            ("**[*]", Err("has a bracket after `**`; write a dot first")),
        ] {
            assert_eq!(MaskedPath::parse(text).map(|path| path.0.len()), expected, "{text}");
        }
        assert_eq!(MaskedPath::parse(&vec!["a"; 33].join(".")), Err("has more than 32 steps"));
    }
}
