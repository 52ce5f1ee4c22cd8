//! Files of `htpasswd`: a username and a hash in each line.

use std::collections::HashSet;

use super::hash::{InvalidPasswordHash, PasswordHash};

/// A line that cannot be used. Its text is not part of the error.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub struct InvalidLine {
    /// Beginning at 1.
    pub line: usize,
    pub problem: LineProblem,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LineProblem {
    #[error("is not USERNAME:HASH")]
    NoHash,
    #[error("an earlier line has the same username")]
    RepeatedUsername,
    #[error(transparent)]
    Hash(#[from] InvalidPasswordHash),
}

/// Parses the lines. Empty lines and those that begin with `#` are skipped; what follows a second colon is a comment.
pub fn parse_htpasswd(text: &str) -> (Vec<(&str, PasswordHash)>, Vec<InvalidLine>) {
    let (mut entries, mut invalid) = (Vec::new(), Vec::new());
    let mut usernames = HashSet::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match parse_line(line) {
            Ok((username, _)) if !usernames.insert(username) => {
                invalid.push(InvalidLine { line: index + 1, problem: LineProblem::RepeatedUsername });
            }
            Ok(entry) => entries.push(entry),
            Err(problem) => invalid.push(InvalidLine { line: index + 1, problem }),
        }
    }
    (entries, invalid)
}

fn parse_line(line: &str) -> Result<(&str, PasswordHash), LineProblem> {
    let (username, rest) =
        line.split_once(':').filter(|(username, _)| !username.is_empty()).ok_or(LineProblem::NoHash)?;
    let hash = rest.split(':').next().unwrap_or_default();
    Ok((username, PasswordHash::parse(hash)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_is_used_or_reported() {
        let text = "# staff\n\nanna:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\r\nb ob:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=:a \
                    comment\nnobody\n:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=\neve:secret\n\
                    anna:{SHA}2jmj7l5rSw0yVb/vlWAYkK/YBwk=\n";
        let (entries, invalid) = parse_htpasswd(text);
        let usernames: Vec<_> = entries.iter().map(|(username, hash)| (*username, hash.verify(b"secret"))).collect();
        assert_eq!(usernames, [("anna", true), ("b ob", true)]);
        let invalid: Vec<_> = invalid.iter().map(ToString::to_string).collect();
        assert_eq!(
            invalid,
            [
                "line 5: is not USERNAME:HASH",
                "line 6: is not USERNAME:HASH",
                "line 7: the format of the hash is not supported",
                "line 8: an earlier line has the same username",
            ]
        );
    }
}
