//! Joins small chunks of HTTP/1 request bodies before hyper parses them.
//!
//! hyper decodes one chunk in each turn of the client's task, and the endpoint's task sends it on in a turn of its
//! own. Without joining, a chunk of one byte would cost as much as a whole read, and what a client that sends such
//! chunks has left in the buffers of its socket would keep a worker busy for minutes. The sizes of chunks have no
//! meaning, and any recipient may change them (RFC 9112, section 7.1).

use std::io::Write;

use super::guard::{FramingGuard, GuardRejection};

/// Chunks are joined if those of one read have less than this many bytes on average.
const SMALL_CHUNK: usize = 1024;

/// Checks the bytes of a read with the guard, and joins small chunks that are entirely within it. Returns the number of
/// bytes that are left, at the beginning of `bytes`, and what the guard rejects. Rejected bytes are not changed.
pub(in crate::proxy) fn check_and_join(guard: &mut FramingGuard, bytes: &mut [u8]) -> (usize, Option<GuardRejection>) {
    let mut positions = Vec::new();
    let rejection = guard.read(bytes, |start| positions.push(start));
    if rejection.is_some() || positions.len() < 2 || bytes.len() / positions.len() >= SMALL_CHUNK {
        return (bytes.len(), rejection);
    }
    positions.push(bytes.len());
    (join(bytes, &positions), None)
}

/// Joins adjacent chunks and returns the new length. `positions` are those at which a chunk begins, and the end.
fn join(bytes: &mut [u8], positions: &[usize]) -> usize {
    let last = positions.len() - 1;
    let chunk = |index: usize| chunk_data(&bytes[positions[index]..positions[index + 1]]);
    let mut joined = Vec::with_capacity(bytes.len());
    let mut copied = 0;
    let mut first = 0;
    while first < last {
        let (mut end, mut length) = (first, 0);
        while end < last
            && let Some(data) = chunk(end)
        {
            length += data.len();
            end += 1;
        }
        if end - first > 1 {
            joined.extend_from_slice(&bytes[copied..positions[first]]);
            write!(joined, "{length:x}\r\n").expect("writing to memory does not fail");
            (first..end).filter_map(chunk).for_each(|data| joined.extend_from_slice(data));
            joined.extend_from_slice(b"\r\n");
            copied = positions[end];
        }
        first = end.max(first + 1);
    }
    joined.extend_from_slice(&bytes[copied..]);
    bytes[..joined.len()].copy_from_slice(&joined);
    joined.len()
}

/// The data of these bytes, if they are exactly one chunk without extensions. Everything else is left to hyper: the
/// last chunk with what follows it, and what hyper rejects or limits.
fn chunk_data(chunk: &[u8]) -> Option<&[u8]> {
    let digits = chunk.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let size = usize::from_str_radix(str::from_utf8(&chunk[..digits]).ok()?, 16).ok()?;
    let blanks = chunk[digits..].iter().take_while(|byte| matches!(byte, b' ' | b'\t')).count();
    let data = chunk[digits + blanks..].strip_prefix(b"\r\n")?.strip_suffix(b"\r\n")?;
    (size > 0 && data.len() == size).then_some(data)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n";

    /// What is left of each part after small chunks were joined.
    fn join_parts(parts: &[&str]) -> Vec<String> {
        let mut guard = FramingGuard::default();
        let join_part = |part: &&str| {
            let mut bytes = part.as_bytes().to_vec();
            let (length, rejection) = check_and_join(&mut guard, &mut bytes);
            assert_eq!(rejection, None, "{part:?}");
            String::from_utf8(bytes[..length].to_vec()).unwrap()
        };
        parts.iter().map(join_part).collect()
    }

    #[test]
    fn adjacent_chunks_become_one() {
        let cases = [
            ("1\r\na\r\n1\r\nb\r\n0\r\n\r\n", "2\r\nab\r\n0\r\n\r\n"),
            ("1\r\na\r\n1 \t\r\nb\r\n002\r\n\r\n\r\n", "4\r\nab\r\n\r\n"),
            ("1\r\na\r\n0\r\n\r\n", "1\r\na\r\n0\r\n\r\n"),
            // hyper limits extensions, so chunks with one stay as they are.
            ("1\r\na\r\n1\r\nb\r\n1;x\r\nc\r\n1\r\nd\r\n1\r\ne\r\n", "2\r\nab\r\n1;x\r\nc\r\n2\r\nde\r\n"),
            // hyper rejects a chunk without CR LF after its data, and blanks before the size.
            ("1\r\na\r\n1\r\nb\r\n1\r\ncXY1\r\nd\r\n", "2\r\nab\r\n1\r\ncXY1\r\nd\r\n"),
            ("1\r\na\r\n 1\r\nb\r\n1\r\nc\r\n", "1\r\na\r\n 1\r\nb\r\n1\r\nc\r\n"),
            // The last chunk may be incomplete.
            ("1\r\na\r\n1\r\nb\r\n5\r\nxy", "2\r\nab\r\n5\r\nxy"),
            ("1\r\na\r\n1\r\nb\r\n5", "2\r\nab\r\n5"),
        ];
        for (body, expected) in cases {
            assert_eq!(join_parts(&[HEAD, body]), [HEAD, expected], "{body:?}");
            assert_eq!(join_parts(&[&format!("{HEAD}{body}")]), [format!("{HEAD}{expected}")], "{body:?}");
        }
    }

    #[test]
    fn chunks_of_several_requests_and_split_chunks_are_joined() {
        let body = "1\r\na\r\n1\r\nb\r\n0\r\n\r\n";
        let joined = "2\r\nab\r\n0\r\n\r\n";
        assert_eq!(join_parts(&[&format!("{HEAD}{body}").repeat(3)]), [format!("{HEAD}{joined}").repeat(3)]);
        let parts = [HEAD, "3\r\nab", "c\r\n1\r\nd\r\n1\r\ne\r\n1", "\r\nf\r\n1\r\ng\r\n1\r\nh\r\n"];
        assert_eq!(join_parts(&parts), [HEAD, "3\r\nab", "c\r\n2\r\nde\r\n1", "\r\nf\r\n2\r\ngh\r\n"]);
    }

    #[test]
    fn large_chunks_are_not_copied() {
        let body = format!("800\r\n{0}\r\n800\r\n{0}\r\n", "x".repeat(2048));
        assert_eq!(join_parts(&[HEAD, &body]), [HEAD, &body]);
    }

    proptest! {
        /// However the bytes arrive, the decoded body is the same and nothing gets longer.
        #[test]
        fn joined_chunks_have_the_same_data(
            chunks in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..40), 0..40),
            seed in any::<u64>(),
        ) {
            let mut bytes = HEAD.as_bytes().to_vec();
            for chunk in &chunks {
                bytes.extend(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend(chunk);
                bytes.extend(b"\r\n");
            }
            bytes.extend(b"0\r\n\r\n");
            let mut cuts = fastrand::Rng::with_seed(seed);
            let (mut guard, mut rest, mut result) = (FramingGuard::default(), &bytes[..], Vec::new());
            while !rest.is_empty() {
                let (part, unread) = rest.split_at(cuts.usize(1..=rest.len()));
                let mut part = part.to_vec();
                let (length, rejection) = check_and_join(&mut guard, &mut part);
                prop_assert_eq!(rejection, None);
                prop_assert!(length > 0);
                result.extend_from_slice(&part[..length]);
                rest = unread;
            }
            let mut decoded = Vec::new();
            let mut rest = &result[HEAD.len()..];
            loop {
                let line_end = rest.windows(2).position(|window| window == b"\r\n").unwrap();
                let size = usize::from_str_radix(str::from_utf8(&rest[..line_end]).unwrap(), 16).unwrap();
                if size == 0 {
                    break;
                }
                decoded.extend_from_slice(&rest[line_end + 2..line_end + 2 + size]);
                prop_assert_eq!(&rest[line_end + 2 + size..line_end + 4 + size], b"\r\n");
                rest = &rest[line_end + 4 + size..];
            }
            prop_assert_eq!(decoded, chunks.concat());
        }
    }
}
