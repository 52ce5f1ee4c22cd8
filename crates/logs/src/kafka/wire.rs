//! The primitive types of Kafka's protocol, as its protocol guide defines them: big-endian integers, and texts and
//! lists with their length in front.

/// Appends values to a request.
#[derive(Debug, Default)]
pub(super) struct WireWriter(pub(super) Vec<u8>);

impl WireWriter {
    pub(super) fn i8(&mut self, value: i8) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i16(&mut self, value: i16) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i32(&mut self, value: i32) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    pub(super) fn i64(&mut self, value: i64) {
        self.0.extend_from_slice(&value.to_be_bytes());
    }

    /// `STRING`. What is longer than the type allows is cut, which names of topics and mechanisms never are.
    pub(super) fn string(&mut self, text: &str) {
        let length = i16::try_from(text.len()).unwrap_or(i16::MAX);
        self.i16(length);
        self.0.extend_from_slice(&text.as_bytes()[..usize::from(length.unsigned_abs())]);
    }

    pub(super) fn null_string(&mut self) {
        self.i16(-1);
    }

    /// `BYTES`.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    /// The length of a list or of bytes. Callers limit requests to a few megabytes.
    pub(super) fn length(&mut self, length: usize) {
        self.i32(i32::try_from(length).unwrap_or(i32::MAX));
    }

    /// `VARLONG`, and `VARINT` of the same value: zigzag, then seven bits in each byte, the lowest first.
    pub(super) fn varlong(&mut self, value: i64) {
        let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
        while rest >= 0x80 {
            self.0.push((rest & 0x7F) as u8 | 0x80);
            rest >>= 7;
        }
        self.0.push(rest as u8);
    }

    /// A length as `VARINT`.
    pub(super) fn varint_length(&mut self, length: usize) {
        self.varlong(i64::try_from(length).unwrap_or(i64::MAX));
    }
}

/// Reads values from a response. The broker may be hostile, so each read is checked, and nothing is allocated by a
/// length alone.
#[derive(Clone, Copy, Debug)]
pub(super) struct WireReader<'b>(pub(super) &'b [u8]);

/// The bytes of a response are not those of its type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MalformedResponse;

impl<'b> WireReader<'b> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], MalformedResponse> {
        let (first, rest) = self.0.split_first_chunk().ok_or(MalformedResponse)?;
        self.0 = rest;
        Ok(*first)
    }

    fn slice(&mut self, length: usize) -> Result<&'b [u8], MalformedResponse> {
        let (first, rest) = self.0.split_at_checked(length).ok_or(MalformedResponse)?;
        self.0 = rest;
        Ok(first)
    }

    pub(super) fn bool(&mut self) -> Result<bool, MalformedResponse> {
        Ok(self.take::<1>()? != [0])
    }

    pub(super) fn i16(&mut self) -> Result<i16, MalformedResponse> {
        self.take().map(i16::from_be_bytes)
    }

    pub(super) fn i32(&mut self) -> Result<i32, MalformedResponse> {
        self.take().map(i32::from_be_bytes)
    }

    pub(super) fn i64(&mut self) -> Result<i64, MalformedResponse> {
        self.take().map(i64::from_be_bytes)
    }

    /// `NULLABLE_STRING`.
    pub(super) fn nullable_string(&mut self) -> Result<Option<&'b str>, MalformedResponse> {
        match self.i16()? {
            -1 => Ok(None),
            length => {
                let bytes = self.slice(usize::try_from(length).map_err(|_| MalformedResponse)?)?;
                std::str::from_utf8(bytes).map(Some).map_err(|_| MalformedResponse)
            }
        }
    }

    /// `STRING`.
    pub(super) fn string(&mut self) -> Result<&'b str, MalformedResponse> {
        self.nullable_string()?.ok_or(MalformedResponse)
    }

    /// `NULLABLE_BYTES`, of which null is empty.
    pub(super) fn bytes(&mut self) -> Result<&'b [u8], MalformedResponse> {
        match self.i32()? {
            -1 => Ok(&[]),
            length => self.slice(usize::try_from(length).map_err(|_| MalformedResponse)?),
        }
    }

    /// A list. Each element takes bytes, so a list cannot have more of them than the response is long.
    pub(super) fn list<T>(
        &mut self,
        mut element: impl FnMut(&mut WireReader<'b>) -> Result<T, MalformedResponse>,
    ) -> Result<Vec<T>, MalformedResponse> {
        let count = usize::try_from(self.i32()?).map_err(|_| MalformedResponse)?;
        if count > self.0.len() {
            return Err(MalformedResponse);
        }
        let mut elements = Vec::new();
        for _ in 0..count {
            elements.push(element(self)?);
        }
        Ok(elements)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_of_variable_length_are_those_of_protocol_buffers() {
        // https://protobuf.dev/programming-guides/encoding, ZigZag and Base 128.
        for (value, expected) in [
            (0, &[0x00][..]),
            (-1, &[0x01]),
            (1, &[0x02]),
            (-64, &[0x7F]),
            (64, &[0x80, 0x01]),
            (i64::from(i32::MAX), &[0xFE, 0xFF, 0xFF, 0xFF, 0x0F]),
            (i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
        ] {
            let mut writer = WireWriter::default();
            writer.varlong(value);
            assert_eq!(writer.0, expected, "{value}");
        }
    }

    #[test]
    fn lengths_beyond_the_response_are_malformed() {
        let list = |bytes: &[u8]| WireReader(bytes).list(|element| element.i16());
        assert_eq!(list(&[0, 0, 0, 1, 0, 7]), Ok(vec![7]));
        for bytes in [&[0x7F, 0xFF, 0xFF, 0xFF, 0, 7][..], &[0xFF, 0xFF, 0xFF, 0xFF], &[0, 0, 0, 2, 0, 7, 0], &[0]] {
            assert_eq!(list(bytes), Err(MalformedResponse), "{bytes:?}");
        }
        assert_eq!(WireReader(&[0, 2, b'a']).string(), Err(MalformedResponse));
        assert_eq!(WireReader(&[0, 1, 0xFF]).string(), Err(MalformedResponse), "not UTF-8");
        assert_eq!(WireReader(&[0xFF, 0xFE]).nullable_string(), Err(MalformedResponse));
        assert_eq!(WireReader(&[0xFF, 0xFF]).nullable_string(), Ok(None));
        assert_eq!(WireReader(&[0, 0, 0, 9, 1]).bytes(), Err(MalformedResponse));
    }
}
