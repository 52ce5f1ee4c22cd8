//! The progress of commands that may take long.

use std::io::{self, Write};
use std::time::Duration;

use tokio::time::Instant;

/// Progress on stderr: one line that is replaced on a terminal, otherwise a line now and then.
pub(super) struct CommandProgress {
    is_terminal: bool,
    shown_at: Instant,
    is_shown: bool,
}

impl CommandProgress {
    pub(super) fn new(is_terminal: bool) -> Self {
        CommandProgress { is_terminal, shown_at: Instant::now(), is_shown: false }
    }

    /// Shows a text now and then.
    pub(super) fn show(&mut self, text: impl FnOnce() -> String) {
        let interval = if self.is_terminal { Duration::from_millis(200) } else { Duration::from_secs(10) };
        if self.shown_at.elapsed() < interval {
            return;
        }
        self.shown_at = Instant::now();
        self.is_shown = true;
        let (start, end) = if self.is_terminal { (CLEAR_LINE, "") } else { ("", "\n") };
        // The command continues if its progress cannot be written.
        write!(io::stderr(), "{start}{}{end}", text()).ok();
    }

    /// Removes the line from a terminal.
    pub(super) fn clear(&self) {
        if self.is_terminal && self.is_shown {
            write!(io::stderr(), "{CLEAR_LINE}").ok();
        }
    }
}

/// Carriage return, and the control sequence that erases to the end of the line.
const CLEAR_LINE: &str = "\r\u{1b}[K";
