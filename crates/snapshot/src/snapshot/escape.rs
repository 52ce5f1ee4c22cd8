//! Percent-encoding of paths in queries.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// Encodes a part of a path for use in a query. Characters that separate parameters, or names from values, are
/// encoded, so that the path of a request cannot inject query parameters. Existing escapes are kept.
pub(super) fn encode_for_query(path: &str) -> Cow<'_, str> {
    utf8_percent_encode(path, ENCODE_IN_QUERY_VALUES).into()
}

/// All characters except the unreserved ones, the percent sign, and `/`, `:` and `@`, which RFC 3986, section 3.4
/// allows in a query.
const ENCODE_IN_QUERY_VALUES: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'/')
    .remove(b':')
    .remove(b'@')
    .remove(b'%');
