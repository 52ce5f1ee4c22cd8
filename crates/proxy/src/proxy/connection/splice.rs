//! Moves bytes from one socket to another inside the kernel, through a pipe. They are not copied into the memory of the
//! process and back, which saves time if there are many; few bytes are copied faster.
//!
//! The empty pipes of a thread are kept for the next relay, so an idle relay needs none.

use std::cell::{Cell, RefCell};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::io::Interest;
use tokio::net::TcpStream;

/// Bytes that a pipe can hold, if the system allows as many.
const PIPE_SIZE: usize = 256 * 1024;
/// Pipes of a thread. Further relays copy their bytes.
const MAX_PIPES: usize = 16;
/// The file descriptors of all pipes of a worker.
pub const PIPE_DESCRIPTORS_OF_WORKER: usize = 2 * MAX_PIPES;

thread_local! {
    static UNUSED: RefCell<Vec<Rc<PipeEnds>>> = const { RefCell::new(Vec::new()) };
    /// The number of pipes, used or not.
    static OPEN: Cell<usize> = const { Cell::new(0) };
}

/// A pipe that one direction of a relay uses.
#[derive(Debug)]
pub(super) struct SplicePipe {
    /// Shared with the unused pipes only while it is dropped.
    ends: Rc<PipeEnds>,
    /// Bytes that were moved into the pipe, and not yet out of it.
    held: usize,
}

#[derive(Debug)]
struct PipeEnds {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl SplicePipe {
    /// An empty pipe. `None` if the thread already has the maximum, or the process has too many open files.
    pub(super) fn acquire() -> Option<SplicePipe> {
        let ends = UNUSED.with_borrow_mut(Vec::pop).or_else(|| {
            if OPEN.get() >= MAX_PIPES {
                return None;
            }
            let (reader, writer) = pipe_with(PipeFlags::NONBLOCK | PipeFlags::CLOEXEC).ok()?;
            OPEN.set(OPEN.get() + 1);
            // A smaller pipe only needs more system calls.
            fcntl_setpipe_size(&writer, PIPE_SIZE).ok();
            Some(Rc::new(PipeEnds { reader, writer }))
        })?;
        Some(SplicePipe { ends, held: 0 })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.held == 0
    }

    /// Moves bytes of a socket into the empty pipe, and returns their number; 0 if the socket has ended.
    pub(super) fn poll_fill(&mut self, source: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let writer = &self.ends.writer;
        loop {
            let moved = source.try_io(Interest::READABLE, || Ok(splice(source, None, writer, None, PIPE_SIZE, FLAGS)?));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(source.poll_read_ready(cx))?,
                moved => {
                    self.held = *moved.as_ref().unwrap_or(&0);
                    return Poll::Ready(moved);
                }
            }
        }
    }

    /// Moves bytes of the pipe, which is not empty, to a socket, and returns their number.
    pub(super) fn poll_drain(&mut self, target: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let reader = &self.ends.reader;
        loop {
            let moved = target.try_io(Interest::WRITABLE, || Ok(splice(reader, None, target, None, self.held, FLAGS)?));
            match moved {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready!(target.poll_write_ready(cx))?,
                Ok(0) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                moved => {
                    self.held -= *moved.as_ref().unwrap_or(&0);
                    return Poll::Ready(moved);
                }
            }
        }
    }
}

/// An empty pipe is kept for the next relay.
impl Drop for SplicePipe {
    fn drop(&mut self) {
        let keep = || UNUSED.try_with(|unused| unused.borrow_mut().push(Rc::clone(&self.ends)));
        // The thread may be ending, and with it all its pipes.
        if !self.is_empty() || keep().is_err() {
            OPEN.try_with(|open| open.set(open.get() - 1)).ok();
        }
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pipes_are_limited_and_used_again() {
        let mut pipes: Vec<SplicePipe> = (0..MAX_PIPES).map(|_| SplicePipe::acquire().unwrap()).collect();
        assert!(SplicePipe::acquire().is_none());
        // A pipe with bytes is closed, and makes room for another one.
        pipes[0].held = 1;
        drop(pipes.swap_remove(0));
        assert_eq!((OPEN.get(), UNUSED.with_borrow(Vec::len)), (MAX_PIPES - 1, 0));
        drop(pipes);
        assert_eq!((OPEN.get(), UNUSED.with_borrow(Vec::len)), (MAX_PIPES - 1, MAX_PIPES - 1));
        let again: Vec<SplicePipe> = (0..MAX_PIPES).map(|_| SplicePipe::acquire().unwrap()).collect();
        assert_eq!((OPEN.get(), UNUSED.with_borrow(Vec::len), again.len()), (MAX_PIPES, 0, MAX_PIPES));
    }
}
