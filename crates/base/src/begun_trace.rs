//! The context of a trace that begins with a request and is not recorded: that of most requests, so nothing is
//! allocated for it.
//!
//! Its field is not a part of the header map: it is written when the request is sent, or before something reads or
//! changes the header.

use std::num::NonZeroU64;
use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::hex_digits::hex_digits;

/// A trace of 128 random bits. The identifiers of its spans follow from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BegunTrace {
    high: u64,
    low: NonZeroU64,
}

impl BegunTrace {
    /// The field of W3C Trace Context.
    pub const FIELD: HeaderName = HeaderName::from_static("traceparent");

    /// Bytes of [`BegunTrace::line`].
    pub const LINE_LENGTH: usize = 70;
    /// Where [`BegunTrace::line`] has the value of the field.
    pub const VALUE: Range<usize> = 13..BegunTrace::LINE_LENGTH - 2;

    /// From random bits.
    pub fn new(high: u64, low: u64) -> Self {
        BegunTrace { high, low: NonZeroU64::new(low).unwrap_or(NonZeroU64::MIN) }
    }

    pub fn trace(self) -> u128 {
        u128::from(self.high) << 64 | u128::from(self.low.get())
    }

    /// The span of the request.
    pub fn server_span(self) -> NonZeroU64 {
        self.span(1)
    }

    /// The span of the attempts, which is the parent of what the endpoint does.
    pub fn upstream_span(self) -> NonZeroU64 {
        self.span(2)
    }

    /// Spans of other traces may have the same identifier.
    fn span(self, number: u64) -> NonZeroU64 {
        NonZeroU64::new(mix(self.high ^ self.low.get(), number)).unwrap_or(self.low)
    }

    /// Sets the field.
    pub fn set(self, headers: &mut HeaderMap) {
        let value = HeaderValue::from_bytes(&self.line()[BegunTrace::VALUE]).expect("identifiers are digits");
        headers.insert(BegunTrace::FIELD, value);
    }

    /// The field as a line of an HTTP/1 header, with its end.
    pub fn line(self) -> [u8; BegunTrace::LINE_LENGTH] {
        let mut line = *LINE;
        line[16..32].copy_from_slice(&hex_digits(self.high));
        line[32..48].copy_from_slice(&hex_digits(self.low.get()));
        line[49..65].copy_from_slice(&hex_digits(self.upstream_span().get()));
        line
    }
}

/// A number that follows from another one and differs from it in about half of the bits, also if `number` differs by 1:
/// the finalizer of SplitMix64.
pub fn mix(value: u64, number: u64) -> u64 {
    let mut value = value.wrapping_add(number.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// Version 00, the trace, the parent, and the flags of a trace that is not recorded.
static LINE: &[u8; BegunTrace::LINE_LENGTH] =
    b"traceparent: 00-00000000000000000000000000000000-0000000000000000-00\r\n";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_has_the_identifiers() {
        let trace = BegunTrace::new(0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210);
        assert_eq!(trace.trace(), 0x0123_4567_89ab_cdef_fedc_ba98_7654_3210);
        let value = format!("00-0123456789abcdeffedcba9876543210-{:016x}-00", trace.upstream_span());
        assert_eq!(String::from_utf8_lossy(&trace.line()), format!("traceparent: {value}\r\n"));
        let mut headers = HeaderMap::from_iter([(BegunTrace::FIELD, HeaderValue::from_static("00-1-2-01"))]);
        trace.set(&mut headers);
        assert_eq!(headers.get_all(BegunTrace::FIELD).iter().collect::<Vec<_>>(), [value.as_str()]);
    }

    #[test]
    fn identifiers_are_not_zero_and_differ() {
        let ones = BegunTrace::new(1, 1);
        for trace in [BegunTrace::new(0, 0), ones, BegunTrace::new(u64::MAX, 0), BegunTrace::new(0, u64::MAX)] {
            assert_ne!(trace.trace(), 0);
            let spans = [trace.server_span(), trace.upstream_span()];
            assert_ne!(spans[0], spans[1], "{trace:?}");
            assert!(trace == ones || spans != [ones.server_span(), ones.upstream_span()], "{trace:?}");
        }
    }
}
