//! Reads the text of a file within limits, and detects whether it may have changed.

use std::fs::{self, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime};

use super::position::TextSpan;
use crate::diagnostic::Diagnostic;

/// File metadata for change detection. Equal stamps mean equal content, if the stamp is old enough to be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileStamp {
    device: u64,
    inode: u64,
    length: u64,
    /// The time of the last write, in seconds and nanoseconds.
    modified: (i64, i64),
    /// Like `modified`, but it also changes with the permissions, so that a file that becomes readable is read.
    changed: (i64, i64),
}

/// Why a file could not be read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileReadError {
    pub(super) diagnostic: Diagnostic,
    pub(super) span: Option<TextSpan>,
}

impl FileStamp {
    pub(super) fn from_metadata(metadata: &Metadata) -> Self {
        FileStamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Identifies the file independently of its path.
    pub(super) fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether the content is unchanged for as long as the file has this stamp. Timestamps of some file systems are
    /// multiples of 2 s, so a second write in that time keeps the stamp, and a recently written file is read again.
    pub(super) fn is_settled(&self, now: SystemTime) -> bool {
        let Ok(since_epoch) = now.duration_since(SystemTime::UNIX_EPOCH) else { return false };
        let Ok(modified) = u64::try_from(self.modified.0.max(self.changed.0)) else { return true };
        since_epoch.saturating_sub(Duration::from_secs(modified)) > SETTLE_TIME
    }
}

/// Reads a regular file.
pub(super) fn read_file(path: &Path) -> Result<String, FileReadError> {
    let file = fs::File::open(path).map_err(|error| FileReadError::from_io(&error))?;
    read(file)
}

/// Reads to the end, up to the size limit.
pub(super) fn read(input: impl Read) -> Result<String, FileReadError> {
    let mut bytes = Vec::new();
    input.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(|error| FileReadError::from_io(&error))?;
    if bytes.len() as u64 > MAX_FILE_BYTES {
        let message = format!("the file is larger than {} MiB", MAX_FILE_BYTES >> 20);
        let diagnostic = Diagnostic::of_file("TooLarge", message, "split it into several files");
        return Err(FileReadError { diagnostic, span: None });
    }
    // A byte order mark is not content, and columns are counted without it.
    if bytes.starts_with(b"\xef\xbb\xbf") {
        bytes.drain(..3);
    }
    String::from_utf8(bytes).map_err(|error| not_utf8(error.as_bytes(), error.utf8_error().valid_up_to()))
}

impl FileReadError {
    pub(super) fn from_io(error: &io::Error) -> Self {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "allow the user that runs Portico to read it",
            io::ErrorKind::NotFound => "correct the path, or create it",
            _ => "check the file system",
        };
        // The message of the operating system, without the number that Rust appends.
        let message = error.to_string();
        let message = message.split(" (os error").next().unwrap_or(&message).to_lowercase();
        let diagnostic = Diagnostic::of_file("Unreadable", format!("cannot be read: {message}"), remedy);
        FileReadError { diagnostic, span: None }
    }
}

fn not_utf8(bytes: &[u8], valid_len: usize) -> FileReadError {
    let valid_part = &bytes[..valid_len];
    let line_start = memchr::memrchr(b'\n', valid_part).map_or(0, |end| end + 1);
    let column = String::from_utf8_lossy(&valid_part[line_start..]).chars().count() + 1;
    let line = memchr::memchr_iter(b'\n', valid_part).count() + 1;
    let is_utf16 = bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff");
    let message = if is_utf16 { "the file is UTF-16" } else { "the file is not UTF-8" };
    FileReadError {
        diagnostic: Diagnostic::of_file("NotUtf8", message, "save it as UTF-8"),
        span: Some(TextSpan { line: line as u32, column: column as u32, width: 1 }),
    }
}

/// The age from which a stamp is trusted: more than the coarsest resolution of timestamps.
const SETTLE_TIME: Duration = Duration::from_secs(3);
/// The largest file, in bytes. Parsed values take about ten times the memory.
const MAX_FILE_BYTES: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_utf8_within_limits() {
        assert_eq!(read(&b"\xef\xbb\xbfa: 1\n"[..]), Ok("a: 1\n".to_owned()));
        let cases: &[(&[u8], &str, u32, u32)] =
            &[(b"a: 1\nb: \xff", "the file is not UTF-8", 2, 4), (b"\xff\xfea\0", "the file is UTF-16", 1, 1)];
        for (bytes, message, line, column) in cases {
            let error = read(*bytes).expect_err("not UTF-8");
            assert_eq!(error.diagnostic, Diagnostic::of_file("NotUtf8", *message, "save it as UTF-8"));
            assert_eq!(error.span, Some(TextSpan { line: *line, column: *column, width: 1 }));
        }
        assert_eq!(read(io::repeat(b'x')).expect_err("endless").diagnostic.reason.name(), Some("TooLarge"));
        let missing = read_file(Path::new("/nonexistent/a.yaml")).expect_err("it does not exist");
        assert_eq!(missing.diagnostic.message, "cannot be read: no such file or directory");
    }

    #[test]
    fn recent_stamps_are_not_trusted() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = FileStamp::from_metadata(&file.as_file().metadata().unwrap());
        let written = SystemTime::UNIX_EPOCH + Duration::from_secs(stamp.modified.0 as u64);
        assert!(!stamp.is_settled(written + Duration::from_secs(1)));
        assert!(stamp.is_settled(written + Duration::from_secs(10)));
        assert!(!stamp.is_settled(written - Duration::from_secs(10)), "a clock that went back");
    }
}
