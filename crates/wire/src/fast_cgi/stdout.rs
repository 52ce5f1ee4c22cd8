//! Decodes the records of a response.

use bytes::{Buf, Bytes, BytesMut};

use super::record::{END_BODY, HEADER, InvalidRecord, ReceivedKind, RecordHeader};

/// Reads the data of STDOUT records, however they are split, and keeps the beginning of what STDERR records say.
#[derive(Debug, Default)]
pub(crate) struct StdoutDecoder {
    /// Bytes of content that the current record still has, unless it is a record of STDERR.
    stdout: usize,
    stderr: usize,
    /// Bytes of padding after them.
    padding: usize,
    /// The record without content has arrived that ends STDOUT.
    is_closed: bool,
    is_ended: bool,
    /// Bytes since the last data of STDOUT.
    without_data: usize,
    kept_stderr: Vec<u8>,
}

/// What the records of a response have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StdoutPart {
    Data(Bytes),
    /// The request is completed.
    End,
}

impl StdoutDecoder {
    /// Decodes the next part, and removes its bytes from `input`. None if more bytes are necessary.
    ///
    /// # Errors
    ///
    /// Bytes that are no records of a response. What follows them has no meaning.
    pub(crate) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<StdoutPart>, InvalidRecord> {
        loop {
            if self.is_ended {
                // The connection has no further request, so that nothing may follow.
                return Ok(Some(StdoutPart::End));
            }
            if self.stdout > 0 {
                let available = self.stdout.min(input.len());
                if available == 0 {
                    return Ok(None);
                }
                self.stdout -= available;
                self.without_data = 0;
                return Ok(Some(StdoutPart::Data(input.split_to(available).freeze())));
            }
            if self.stderr > 0 {
                let available = self.stderr.min(input.len());
                let kept = available.min(MAX_STDERR.saturating_sub(self.kept_stderr.len()));
                self.kept_stderr.extend_from_slice(&input[..kept]);
                self.stderr -= available;
                self.skip(available, input)?;
            }
            if self.stderr == 0 {
                let available = self.padding.min(input.len());
                self.padding -= available;
                self.skip(available, input)?;
            }
            if self.stderr + self.padding > 0 || !self.read_header(input)? {
                return Ok(None);
            }
        }
    }

    /// Begins the next record, if its header has arrived, or all of it if it is the last one.
    fn read_header(&mut self, input: &mut BytesMut) -> Result<bool, InvalidRecord> {
        let Some(header) = input.first_chunk::<HEADER>() else { return Ok(false) };
        let header = RecordHeader::parse(*header)?;
        match header.kind {
            ReceivedKind::EndRequest => {
                let Some(body) = input.get(HEADER..HEADER + END_BODY) else { return Ok(false) };
                // After the status of the script, which says nothing about the response.
                if body[4] != REQUEST_COMPLETE {
                    return Err(InvalidRecord::NotCompleted);
                }
                self.is_ended = true;
                return Ok(true);
            }
            // Some servers send further data nevertheless.
            ReceivedKind::Stdout if header.content == 0 => self.is_closed = true,
            ReceivedKind::Stdout => self.stdout = header.content.into(),
            ReceivedKind::Stderr => self.stderr = header.content.into(),
        }
        self.padding = header.padding.into();
        self.skip(HEADER, input)?;
        Ok(true)
    }

    fn skip(&mut self, count: usize, input: &mut BytesMut) -> Result<(), InvalidRecord> {
        input.advance(count);
        self.without_data += count;
        if self.without_data > MAX_WITHOUT_DATA { Err(InvalidRecord::NoProgress) } else { Ok(()) }
    }

    /// The connection was closed, and all input was decoded. Whether the response is complete nevertheless: the server
    /// has ended STDOUT, and not the request.
    pub(crate) fn is_complete_at_close(&self) -> bool {
        self.is_ended || self.is_closed && self.stdout == 0
    }

    /// Takes the beginning of what STDERR has said since the last call.
    pub(crate) fn take_stderr(&mut self) -> Option<Vec<u8>> {
        if self.kept_stderr.is_empty() { None } else { Some(std::mem::take(&mut self.kept_stderr)) }
    }
}

/// The status of END_REQUEST for a request that was completed.
const REQUEST_COMPLETE: u8 = 0;
/// Bytes of STDERR that are kept.
const MAX_STDERR: usize = 1024;
/// Bytes of records that may follow each other without a part of the response.
const MAX_WITHOUT_DATA: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn record(kind: u8, content: &[u8], padding: u8) -> Vec<u8> {
        let length = (content.len() as u16).to_be_bytes();
        let header = [1, kind, 0, 1, length[0], length[1], padding, 0];
        [&header[..], content, &vec![0xAA; padding.into()]].concat()
    }

    const END: [u8; 16] = [1, 3, 0, 1, 0, 8, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0];

    /// The data of all records, whether the end was found, and STDERR.
    fn decode(parts: &[&[u8]]) -> Result<(Vec<u8>, bool, Vec<u8>), InvalidRecord> {
        let (mut decoder, mut input, mut data, mut is_ended) =
            (StdoutDecoder::default(), BytesMut::new(), Vec::new(), false);
        for part in parts {
            input.extend_from_slice(part);
            while let Some(found) = decoder.decode(&mut input)? {
                match found {
                    StdoutPart::Data(found) => data.extend_from_slice(&found),
                    StdoutPart::End => {
                        is_ended = true;
                        break;
                    }
                }
            }
        }
        assert!(!is_ended || decoder.is_complete_at_close());
        Ok((data, is_ended, decoder.take_stderr().unwrap_or_default()))
    }

    #[test]
    fn data_is_found_between_other_records() {
        let all = [
            record(7, b"warning", 1),
            record(6, b"ab", 0),
            record(6, b"c", 255),
            record(7, b"!", 0),
            record(6, b"de", 3),
            END.to_vec(),
        ]
        .concat();
        let expected = Ok((b"abcde".to_vec(), true, b"warning!".to_vec()));
        assert_eq!(decode(&[&all]), expected);
        let bytes: Vec<&[u8]> = all.chunks(1).collect();
        assert_eq!(decode(&bytes), expected);
        // What follows the end is not read.
        assert_eq!(decode(&[&all, b"nonsense of any length"]), expected);
    }

    #[test]
    fn invalid_records_are_refused() {
        for (bytes, error) in [
            (record(5, b"", 0), InvalidRecord::Kind),
            (record(11, &[0; 8], 0), InvalidRecord::Kind),
            (record(3, b"", 0), InvalidRecord::EndLength),
            (record(3, &[0; 9], 0), InvalidRecord::EndLength),
            (record(3, &[0, 0, 0, 0, 1, 0, 0, 0], 0), InvalidRecord::NotCompleted),
            (record(3, &[0, 0, 0, 0, 2, 0, 0, 0], 0), InvalidRecord::NotCompleted),
            (b"HTTP/1.1 200 OK\r\n".to_vec(), InvalidRecord::Version),
        ] {
            assert_eq!(decode(&[&bytes]), Err(error), "{bytes:?}");
            let after_data = [record(6, b"data", 4), bytes].concat();
            assert_eq!(decode(&[&after_data]), Err(error), "{after_data:?}");
        }
    }

    #[test]
    fn records_without_data_are_limited() {
        let full = record(7, &vec![b'e'; 65_535], 255);
        let (data, is_ended, stderr) = decode(&[&full, &record(6, b"a", 0), &full, &END]).unwrap();
        assert_eq!((&data[..], is_ended, stderr.len()), (&b"a"[..], true, MAX_STDERR));
        let flood: Vec<&[u8]> = vec![&full; 17];
        assert_eq!(decode(&flood), Err(InvalidRecord::NoProgress));
        let empty = record(7, b"", 255);
        let flood: Vec<&[u8]> = vec![&empty; 4096];
        assert_eq!(decode(&flood), Err(InvalidRecord::NoProgress));
    }

    #[test]
    fn a_closed_connection_ends_only_a_response_whose_data_has_ended() {
        let is_complete = |bytes: &[u8]| {
            let (mut decoder, mut input) = (StdoutDecoder::default(), BytesMut::from(bytes));
            while decoder.decode(&mut input).unwrap().is_some_and(|part| part != StdoutPart::End) {}
            decoder.is_complete_at_close()
        };
        let data = record(6, b"data", 0);
        assert!(!is_complete(&data));
        assert!(!is_complete(&data[..10]));
        assert!(is_complete(&[&data[..], &record(6, b"", 0)].concat()));
        assert!(is_complete(&[&data[..], &END].concat()));
        assert!(!is_complete(&[&data[..], &END[..15]].concat()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_data_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..600), at in 0..600_usize) {
            let (first, second) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(decode(&[first, second]).is_ok(), decode(&[&bytes]).is_ok());
        }

        #[test]
        fn splits_change_nothing(
            records in prop::collection::vec((6..=7_u8, prop::collection::vec(any::<u8>(), 1..40), any::<u8>()), 0..12),
            at in 0..2000_usize,
        ) {
            let (mut all, mut data) = (Vec::new(), Vec::new());
            for (kind, content, padding) in &records {
                all.extend(record(*kind, content, *padding));
                if *kind == 6 {
                    data.extend_from_slice(content);
                }
            }
            all.extend_from_slice(&END);
            let (first, second) = all.split_at(at.min(all.len()));
            let (found, is_ended, _) = decode(&[first, second]).unwrap();
            prop_assert_eq!((found, is_ended), (data, true));
        }
    }
}
