//! Where lines go at last, and what is said when they cannot: once when it begins, once when it is over.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use tracing::{error, info};

use super::Destination;

pub(super) struct Sink {
    /// None for what cannot be opened anew.
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    /// Lines that were lost since writing began to fail. None while it works.
    failing: Option<u64>,
    /// A line was cut off in the middle.
    torn: bool,
}

impl Sink {
    /// None if nothing is to be written.
    pub(super) fn open(destination: Destination) -> io::Result<Option<Sink>> {
        match destination {
            Destination::Off => Ok(None),
            // Not through the buffer of the standard library, which would not say how much of it was written.
            Destination::Stdout => {
                let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Ok(Some(Sink::new(None, Box::new(stdout))))
            }
            Destination::File(path) => {
                let file = open(&path)?;
                Ok(Some(Sink::new(Some(path), Box::new(file))))
            }
        }
    }

    fn new(path: Option<PathBuf>, out: Box<dyn Write + Send>) -> Self {
        Sink { path, out, failing: None, torn: false }
    }

    /// Many lines at once, so that nothing is gained by a buffer. Says how many of them were lost.
    pub(super) fn write(&mut self, lines: &str) -> u64 {
        let begun = if self.torn { self.put(b"\n").1 } else { Ok(()) };
        self.torn &= begun.is_err();
        let (written, ended) = match begun {
            Ok(()) => self.put(lines.as_bytes()),
            Err(error) => (0, Err(error)),
        };
        let (written, left) = lines.as_bytes().split_at(written);
        if let Some(last) = written.last() {
            self.torn = *last != b'\n';
        }
        let lost = left.iter().filter(|byte| **byte == b'\n').count() as u64;
        match ended {
            Ok(()) => {
                if let Some(lost) = self.failing.take() {
                    info!(lost, "The access log can be written again");
                }
            }
            Err(error) => {
                if self.failing.is_none() {
                    let to = self.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
                    error!(to, %error, "The access log cannot be written; requests go on, and their lines are lost until it can");
                }
                *self.failing.get_or_insert_default() += lost;
            }
        }
        lost
    }

    /// How much was written, and what kept it from being more.
    fn put(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
        let mut written = 0;
        while written < bytes.len() {
            match self.out.write(&bytes[written..]) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            }
        }
        (written, Ok(()))
    }

    pub(super) fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                self.out = Box::new(file);
                self.torn = false;
            }
            Err(error) => {
                error!(path = %path.display(), %error, "Cannot reopen the access log; going on with the file that is open");
            }
        }
    }
}

fn open(path: &PathBuf) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use parking_lot::Mutex;

    use super::*;

    /// A disk with some room, which may be given more.
    #[derive(Clone, Default)]
    struct Disk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Disk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().1 += bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().0.clone()).unwrap()
        }
    }

    impl Write for Disk {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let (written, room) = &mut *self.0.lock();
            let count = bytes.len().min(*room);
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            written.extend_from_slice(&bytes[..count]);
            *room -= count;
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_costs_the_lines_that_do_not_fit_and_no_others() {
        let disk = Disk::default();
        let mut sink = Sink::new(None, Box::new(disk.clone()));
        disk.make_room(9);
        assert_eq!(sink.write("one\ntwo\n"), 0);
        assert_eq!(sink.write("three\nfour\n"), 2);
        assert_eq!(disk.text(), "one\ntwo\nt");
        assert_eq!(sink.write("five\n"), 1, "there is still no room");
        assert_eq!(sink.failing, Some(3));
        disk.make_room(100);
        assert_eq!(sink.write("six\nseven\n"), 0);
        assert_eq!(disk.text(), "one\ntwo\nt\nsix\nseven\n", "the torn line is a line of its own");
        assert_eq!(sink.failing, None);
    }

    #[test]
    fn the_end_of_a_line_may_be_what_does_not_fit() {
        let disk = Disk::default();
        let mut sink = Sink::new(None, Box::new(disk.clone()));
        disk.make_room(3);
        assert_eq!(sink.write("one\n"), 1);
        disk.make_room(1);
        // There is room for the end of the line before, and for nothing else.
        assert_eq!(sink.write("two\n"), 1);
        disk.make_room(100);
        assert_eq!(sink.write("three\n"), 0);
        assert_eq!(disk.text(), "one\nthree\n");
    }
}
