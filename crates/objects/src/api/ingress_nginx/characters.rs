//! The sets of characters that values of annotations may contain: what keeps configuration of nginx out of them.

/// A set of ASCII characters. All have letters and digits, except as said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CharacterSet {
    /// And those of hosts and paths: `/ - . _ ~ :`.
    Basic,
    /// [`Self::Basic`] and the space.
    BasicAndSpace,
    /// [`Self::Basic`], the comma and the space.
    Extended,
    /// [`Self::Basic`] and those of a URL with a query: `, ? & =`.
    Url,
    /// [`Self::Extended`], [`Self::Url`] and the dollar sign of a variable.
    UrlAndVariables,
    /// [`Self::Basic`] and those of regular expressions.
    Regex,
    /// [`Self::Basic`] and the dollar sign of a capture.
    Captures,
    /// And `- _`, the comma and the space.
    HeaderNames,
    /// [`Self::HeaderNames`] and `*`.
    HeaderNamesOrAll,
    /// And `- _ $ { }`: text with variables.
    Variables,
    /// And `- _`.
    Identifier,
    /// [`Self::Identifier`] and the dot.
    FileName,
    /// And `+ : _ - !`: a list of ciphers as OpenSSL writes it.
    Ciphers,
    /// Letters without digits, the comma and the space.
    Words,
}

impl CharacterSet {
    /// Whether the set has this character.
    pub fn contains(self, character: char) -> bool {
        match self {
            Self::Words => character.is_ascii_alphabetic() || ", ".contains(character),
            _ => character.is_ascii_alphanumeric() || self.punctuation().contains(character),
        }
    }

    /// The first character of a text that is not in the set.
    pub(super) fn first_outside(self, text: &str) -> Option<char> {
        text.chars().find(|character| !self.contains(*character))
    }

    /// The set in words.
    pub fn description(self) -> &'static str {
        match self {
            Self::Basic => "letters, digits and / - . _ ~ :",
            Self::BasicAndSpace => "letters, digits, spaces and / - . _ ~ :",
            Self::Extended => "letters, digits, commas, spaces and / - . _ ~ :",
            Self::Url => "letters, digits, commas and / - . _ ~ : ? & =",
            Self::UrlAndVariables => "letters, digits, commas, spaces and / - . _ ~ : ? & = $",
            Self::Regex => r"letters, digits and / - . _ ~ : ^ $ [ ] ( ) { } * + ? | & = \",
            Self::Captures => "letters, digits and / - . _ ~ : $",
            Self::HeaderNames => "letters, digits, commas, spaces and - _",
            Self::HeaderNamesOrAll => "letters, digits, commas, spaces and - _ *",
            Self::Variables => "letters, digits and - _ $ { }",
            Self::Identifier => "letters, digits and - _",
            Self::FileName => "letters, digits and . - _",
            Self::Ciphers => "letters, digits and + : _ - !",
            Self::Words => "letters, commas and spaces",
        }
    }

    fn punctuation(self) -> &'static str {
        match self {
            Self::Basic => "/-._~:",
            Self::BasicAndSpace => "/-._~: ",
            Self::Extended => "/-._~:, ",
            Self::Url => "/-._~:,?&=",
            Self::UrlAndVariables => "/-._~:, ?&=$",
            Self::Regex => r"/-._~:^$[](){}*+?|&=\",
            Self::Captures => "/-._~:$",
            Self::HeaderNames => "-_, ",
            Self::HeaderNamesOrAll => "-_, *",
            Self::Variables => "-_${}",
            Self::Identifier => "-_",
            Self::FileName => "-_.",
            Self::Ciphers => "+:_-!",
            Self::Words => ", ",
        }
    }
}

#[cfg(test)]
pub(super) const ALL: &[CharacterSet] = &[
    CharacterSet::Basic,
    CharacterSet::BasicAndSpace,
    CharacterSet::Extended,
    CharacterSet::Url,
    CharacterSet::UrlAndVariables,
    CharacterSet::Regex,
    CharacterSet::Captures,
    CharacterSet::HeaderNames,
    CharacterSet::HeaderNamesOrAll,
    CharacterSet::Variables,
    CharacterSet::Identifier,
    CharacterSet::FileName,
    CharacterSet::Ciphers,
    CharacterSet::Words,
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_set_lets_a_value_end_a_directive_or_a_string() {
        for set in ALL {
            for character in
                ['\n', '\r', '\t', '\0', '\u{7f}', ';', '"', '\'', '`', '#', '<', '%', '@', 'ä', '\u{2028}']
            {
                assert!(!set.contains(character), "{set:?} has {character:?}");
            }
        }
    }

    #[test]
    fn each_set_has_the_characters_of_its_description() {
        for set in ALL {
            let description = set.description();
            for character in (' '..='~').filter(char::is_ascii_punctuation).filter(|one| *one != ',') {
                let described = description.split(' ').any(|word| word.chars().eq([character]));
                assert_eq!(set.contains(character), described, "{set:?} and {character:?}");
            }
            assert_eq!(set.contains(','), description.contains("commas"), "{set:?} and the comma");
            assert_eq!(set.contains(' '), description.contains("spaces"), "{set:?} and the space");
            assert_eq!(set.contains('7'), description.contains("digits"), "{set:?} and digits");
            assert!(set.contains('z') && set.contains('A'), "{set:?} and letters");
        }
    }

    #[test]
    fn the_first_character_outside_is_found() {
        assert_eq!(CharacterSet::Basic.first_outside("a/b:8080"), None);
        assert_eq!(CharacterSet::Basic.first_outside("a b;"), Some(' '));
        assert_eq!(CharacterSet::Regex.first_outside(r"^/a(/|$)(.*)\.x{2}"), None);
    }
}
