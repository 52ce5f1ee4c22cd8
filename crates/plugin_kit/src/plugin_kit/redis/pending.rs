//! A command until its reply, within a limit of the bytes of all commands that wait.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use redis::Cmd;

/// A command, whose bytes count until it is dropped.
#[derive(Debug)]
pub(super) struct PendingCommand {
    command: Cmd,
    bytes: usize,
    pending: PendingBytes,
}

/// The bytes of the commands of one handle.
#[derive(Clone, Debug, Default)]
pub(super) struct PendingBytes(Arc<AtomicUsize>);

impl PendingCommand {
    /// `None` if too many bytes are pending.
    pub(super) fn new(command: Cmd, pending: &PendingBytes) -> Option<Arc<PendingCommand>> {
        let bytes: usize = command
            .args_iter()
            .map(|argument| match argument {
                redis::Arg::Simple(bytes) => bytes.len(),
                _ => 0,
            })
            .sum();
        let has_room = |used: usize| used.checked_add(bytes).filter(|used| *used <= MAX_PENDING_BYTES);
        pending.0.fetch_update(Relaxed, Relaxed, has_room).ok()?;
        Some(Arc::new(PendingCommand { command, bytes, pending: pending.clone() }))
    }

    pub(super) fn command(&self) -> &Cmd {
        &self.command
    }
}

impl Drop for PendingCommand {
    fn drop(&mut self) {
        self.pending.0.fetch_sub(self.bytes, Relaxed);
    }
}

/// The most bytes of commands that may wait for one plugin object.
const MAX_PENDING_BYTES: usize = 32 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_of_pending_commands_are_limited() {
        let pending = PendingBytes::default();
        let command = |bytes: usize| {
            let mut command = redis::cmd("SET");
            command.arg("key").arg(vec![b'x'; bytes]);
            command
        };
        let half = PendingCommand::new(command(MAX_PENDING_BYTES / 2), &pending).unwrap();
        assert!(PendingCommand::new(command(MAX_PENDING_BYTES / 2), &pending).is_none());
        let small = PendingCommand::new(command(100), &pending).unwrap();
        drop(half);
        assert!(PendingCommand::new(command(MAX_PENDING_BYTES / 2), &pending).is_some());
        drop(small);
        assert_eq!(pending.0.load(Relaxed), 0);
    }
}
