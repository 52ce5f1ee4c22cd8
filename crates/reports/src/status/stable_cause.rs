//! Causes of problems, as libraries and servers word them, without what differs each time: a condition and an event
//! that change with each attempt would be written with each attempt.

use crate::diagnostic::Diagnostic;

/// The diagnostic without ports of clients, numbers of tasks, addresses of memory, times and measured durations.
pub fn with_stable_cause(diagnostic: Diagnostic) -> Diagnostic {
    let message = stable(&diagnostic.message);
    match message.contains(PANIC) {
        true => {
            let remedy = "this is a bug in Portico: report it with the log of the process".to_owned();
            Diagnostic { message, remedy, ..diagnostic }
        }
        false => Diagnostic { message, ..diagnostic },
    }
}

/// How the runtime reports that a task panicked, without the number of the task.
const PANIC: &str = "task panicked";

fn stable(text: &str) -> String {
    let mut stable = Vec::new();
    let mut words = text.split(' ').peekable();
    while let Some(word) = words.next() {
        let is_number = |next: &&str| !next.is_empty() && next.bytes().all(|byte| byte.is_ascii_digit());
        stable.push(stable_word(word));
        if word == "task" && words.peek().is_some_and(is_number) {
            words.next();
        }
    }
    stable.join(" ")
}

/// A word without what differs each time. Punctuation around it stays.
fn stable_word(word: &str) -> String {
    // An address of IPv6 with a port begins with a bracket.
    let is_opening = |letter: char| matches!(letter, '(' | '"' | '\'');
    let is_closing = |letter: char| matches!(letter, ')' | '"' | '\'' | ',' | ';' | '.' | ':');
    let core = word.trim_start_matches(is_opening).trim_end_matches(is_closing);
    if core.is_empty() {
        return word.to_owned();
    }
    let (before, after) = word.split_once(core).unwrap_or_default();
    if let Ok(address) = core.parse::<std::net::SocketAddr>() {
        // Servers listen below the range from which systems take the ports of clients.
        return match address.port() < FIRST_CLIENT_PORT {
            true => word.to_owned(),
            false => format!("{before}{}{after}", address.ip()),
        };
    }
    if is_time(core) || is_measured_duration(core) || is_memory_address(core) {
        return format!("{before}…{after}");
    }
    word.to_owned()
}

/// A time such as `2026-11-29T12:30:41.873Z`.
fn is_time(word: &str) -> bool {
    word.parse::<jiff::Timestamp>().is_ok()
}

/// A duration with a fraction, such as `1.207ms`. Limits, which stay the same, have none.
fn is_measured_duration(word: &str) -> bool {
    let number = word.trim_end_matches(|letter: char| letter.is_alphabetic());
    let has_fraction = number.contains('.') && number.parse::<f64>().is_ok();
    has_fraction && matches!(&word[number.len()..], "s" | "ms" | "µs" | "ns")
}

fn is_memory_address(word: &str) -> bool {
    word.strip_prefix("0x")
        .is_some_and(|digits| digits.len() >= 6 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()))
}

/// The first port that Linux gives to clients by default.
const FIRST_CLIENT_PORT: u16 = 32_768;

#[cfg(test)]
mod tests {
    use super::*;

    /// Each retry wrote the status of a KongPlugin and a new event, since the number of the task was another one.
    #[test]
    fn causes_are_equal_for_each_attempt() {
        for (text, expected) in [
            (
                "sending has failed: task 677 panicked with message \"could not initialize ThreadRng\"",
                "sending has failed: task panicked with message \"could not initialize ThreadRng\"",
            ),
            ("connection 10.0.0.7:41822 -> 10.0.0.9:6379: refused", "connection 10.0.0.7 -> 10.0.0.9:6379: refused"),
            ("from [fd00::1]:50000, closed", "from fd00::1, closed"),
            ("no response after 1.207ms, at 2026-11-29T12:30:41.873Z", "no response after …, at …"),
            ("no response within 10 s; (0x7f3a9c001230)", "no response within 10 s; (…)"),
            ("the task 5 is a task", "the task is a task"),
            ("HTTP/1.1 502 Bad Gateway, version 1.2", "HTTP/1.1 502 Bad Gateway, version 1.2"),
            ("", ""),
        ] {
            assert_eq!(stable(text), expected);
        }
    }

    #[test]
    fn panics_are_reported_as_bugs_in_portico() {
        let remedy = |message: &str| with_stable_cause(Diagnostic::error("config.issuer", message, "check it")).remedy;
        assert_eq!(remedy("connection refused"), "check it");
        assert!(remedy("sending has failed: task 7 panicked with message x").contains("a bug in Portico"));
    }
}
