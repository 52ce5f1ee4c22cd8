//! Writes lines to the destination of the access log. Reports when writing starts to fail, and when it succeeds again.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::path::PathBuf;

use tracing::{error, info};

use super::AccessLogDestination;

pub(super) struct AccessLogSink {
    /// None if the destination cannot be reopened.
    path: Option<PathBuf>,
    out: Box<dyn Write + Send>,
    /// Lines lost since writing began to fail. None while writing succeeds.
    lost_while_failing: Option<u64>,
    /// The last line was written partially.
    ends_mid_line: bool,
}

impl AccessLogSink {
    /// Opens the destination. None if the log is off.
    pub(super) fn open(destination: AccessLogDestination) -> io::Result<Option<AccessLogSink>> {
        match destination {
            AccessLogDestination::Off => Ok(None),
            AccessLogDestination::ExportOnly => Ok(Some(AccessLogSink::new(None, Box::new(io::sink())))),
            // Bypasses the buffer of `std::io::Stdout`, which does not report how much was written.
            AccessLogDestination::Stdout => {
                let stdout = File::from(io::stdout().as_fd().try_clone_to_owned()?);
                Ok(Some(AccessLogSink::new(None, Box::new(stdout))))
            }
            AccessLogDestination::File(path) => {
                let file = open(&path)?;
                Ok(Some(AccessLogSink::new(Some(path), Box::new(file))))
            }
        }
    }

    fn new(path: Option<PathBuf>, out: Box<dyn Write + Send>) -> Self {
        AccessLogSink { path, out, lost_while_failing: None, ends_mid_line: false }
    }

    /// Writes a batch of lines without further buffering and returns how many were lost.
    pub(super) fn write(&mut self, lines: &[u8]) -> u64 {
        let (written, outcome) = match self.end_partial_line() {
            Ok(()) => self.write_bytes(lines),
            Err(error) => (0, Err(error)),
        };
        let (written, unwritten) = lines.split_at(written);
        if let Some(last) = written.last() {
            self.ends_mid_line = *last != b'\n';
        }
        let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
        match outcome {
            Ok(()) => {
                if let Some(lost) = self.lost_while_failing.take() {
                    info!(lost, "Writing the access log succeeds again");
                }
            }
            Err(error) => {
                if self.lost_while_failing.is_none() {
                    let to = self.path.as_ref().map_or("standard output".to_owned(), |path| path.display().to_string());
                    error!(
                        to,
                        %error,
                        "Cannot write the access log; requests continue, but lines are lost until writing succeeds"
                    );
                }
                *self.lost_while_failing.get_or_insert_default() += lost;
            }
        }
        lost
    }

    fn end_partial_line(&mut self) -> io::Result<()> {
        if self.ends_mid_line {
            let (_, outcome) = self.write_bytes(b"\n");
            outcome?;
            self.ends_mid_line = false;
        }
        Ok(())
    }

    /// Returns how much was written, and the error if that is not everything.
    fn write_bytes(&mut self, bytes: &[u8]) -> (usize, io::Result<()>) {
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

    /// Reopens the file, which log rotation has renamed.
    pub(super) fn reopen(&mut self) {
        let Some(path) = &self.path else { return };
        match open(path) {
            Ok(file) => {
                self.out = Box::new(file);
                self.ends_mid_line = false;
            }
            Err(error) => {
                let path = path.display();
                error!(%path, %error, "Cannot reopen the access log; continuing with the file that is open");
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

    /// A fake disk with adjustable free space.
    #[derive(Clone, Default)]
    struct FakeDisk(Arc<Mutex<(Vec<u8>, usize)>>);

    impl FakeDisk {
        fn make_room(&self, bytes: usize) {
            self.0.lock().1 += bytes;
        }

        fn text(&self) -> String {
            String::from_utf8(self.0.lock().0.clone()).unwrap()
        }
    }

    impl Write for FakeDisk {
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
    fn full_disk_loses_only_lines_that_do_not_fit() {
        let disk = FakeDisk::default();
        let mut sink = AccessLogSink::new(None, Box::new(disk.clone()));
        disk.make_room(9);
        assert_eq!(sink.write(b"one\ntwo\n"), 0);
        assert_eq!(sink.write(b"three\nfour\n"), 2);
        assert_eq!(disk.text(), "one\ntwo\nt");
        assert_eq!(sink.write(b"five\n"), 1, "the disk is still full");
        assert_eq!(sink.lost_while_failing, Some(3));
        disk.make_room(100);
        assert_eq!(sink.write(b"six\nseven\n"), 0);
        assert_eq!(disk.text(), "one\ntwo\nt\nsix\nseven\n", "the partial line is terminated");
        assert_eq!(sink.lost_while_failing, None);
    }

    #[test]
    fn missing_line_feed_is_written_first() {
        let disk = FakeDisk::default();
        let mut sink = AccessLogSink::new(None, Box::new(disk.clone()));
        disk.make_room(3);
        assert_eq!(sink.write(b"one\n"), 1);
        disk.make_room(1);
        // There is room for the line feed of the previous line only.
        assert_eq!(sink.write(b"two\n"), 1);
        disk.make_room(100);
        assert_eq!(sink.write(b"three\n"), 0);
        assert_eq!(disk.text(), "one\nthree\n");
    }
}
