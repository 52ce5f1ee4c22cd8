//! Editing of headers, and of the pairs of a query or form.

use std::borrow::Cow;

use http::header::{Entry, HOST};
use http::uri::Authority;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{AsciiSet, CONTROLS, NON_ALPHANUMERIC, percent_encode};

use super::edits::{BodyName, ListedFields, RetainedFields};
use crate::plugin_api::fields::UrlEncodedForm;

/// The headers of a request.
pub(super) struct HeaderFields<'r>(pub(super) &'r mut HeaderMap);

impl ListedFields<HeaderName> for HeaderFields<'_> {
    fn contains(&self, name: &HeaderName) -> bool {
        // The Host can be replaced even if the client sent it in another form.
        *name == HOST || self.0.contains_key(name)
    }

    fn remove(&mut self, name: &HeaderName) {
        self.0.remove(name);
    }

    fn rename(&mut self, name: &HeaderName, new_name: &HeaderName) {
        if name == new_name {
            return;
        }
        let Entry::Occupied(entry) = self.0.entry(name) else { return };
        let (_, values) = entry.remove_entry_mult();
        let values: Vec<HeaderValue> = values.collect();
        self.0.remove(new_name);
        for value in values {
            self.0.append(new_name, value);
        }
    }

    fn replace(&mut self, name: &HeaderName, value: Option<&[u8]>) -> Result<(), &'static str> {
        // A value of nil leaves the header as it is.
        if let Some(value) = value {
            self.0.insert(name, header_value(name, value)?);
        }
        Ok(())
    }

    fn append(&mut self, name: &HeaderName, value: Option<&[u8]>) -> Result<(), &'static str> {
        if let Some(value) = value {
            self.0.append(name, header_value(name, value)?);
        }
        Ok(())
    }
}

/// Checks a value. HTTP/2 allows no spaces around it; line breaks make it invalid.
pub fn header_value(name: &HeaderName, value: &[u8]) -> Result<HeaderValue, &'static str> {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = value.iter().position(|byte| !is_space(byte)).unwrap_or(value.len());
    let end = value.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    let value = &value[start..end];
    if *name == HOST {
        let authority = Authority::try_from(value).map_err(|_| INVALID_HOST)?;
        let has_port = authority.port().is_none_or(|port| port.as_str().parse::<u16>().is_ok());
        if authority.host().is_empty() || authority.as_str().contains('@') || !has_port {
            return Err(INVALID_HOST);
        }
    }
    HeaderValue::from_bytes(value).map_err(|_| "the value has a character that a header cannot have")
}

const INVALID_HOST: &str = "the value is not a host name or address with an optional port";

/// The pairs of a query or form. Pairs that are not edited keep their bytes.
pub(super) struct FormPairs<'r> {
    pairs: Vec<FormPair<'r>>,
}

struct FormPair<'r> {
    name: Cow<'r, [u8]>,
    /// The encoded value with its equals sign; empty if there is neither.
    encoded_value: Cow<'r, [u8]>,
    /// The encoded name. `None` if it is the encoding of `name`.
    encoded_name: Option<&'r [u8]>,
}

impl<'r> FormPairs<'r> {
    pub(super) fn parse(text: &'r [u8]) -> Self {
        if text.is_empty() {
            return FormPairs { pairs: Vec::new() };
        }
        let pairs = text.split(|byte| *byte == b'&').zip(UrlEncodedForm(text).pairs());
        let pairs = pairs.map(|(raw, pair)| {
            let (name, value) = raw.split_at(memchr::memchr(b'=', raw).unwrap_or(raw.len()));
            FormPair { name: pair.name(), encoded_value: Cow::Borrowed(value), encoded_name: Some(name) }
        });
        FormPairs { pairs: pairs.collect() }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        let mut text = Vec::new();
        for (index, pair) in self.pairs.iter().enumerate() {
            if index > 0 {
                text.push(b'&');
            }
            match pair.encoded_name {
                Some(name) => text.extend_from_slice(name),
                None => text.extend(percent_encode(&pair.name, NOT_IN_PAIR).flat_map(str::bytes)),
            }
            text.extend_from_slice(&pair.encoded_value);
        }
        text
    }

    fn pair(name: &str, value: Option<&[u8]>) -> FormPair<'r> {
        let mut encoded_value = vec![b'='];
        encoded_value.extend(percent_encode(value.unwrap_or_default(), NOT_IN_PAIR).flat_map(str::bytes));
        FormPair {
            name: Cow::Owned(name.as_bytes().to_vec()),
            encoded_value: Cow::Owned(encoded_value),
            encoded_name: None,
        }
    }
}

/// Everything except the unreserved characters (RFC 3986, section 2.3).
const NOT_IN_PAIR: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A name of a pair, in a query or in a form.
pub(super) trait FormName {
    fn text(&self) -> &str;
}

impl FormName for Box<str> {
    fn text(&self) -> &str {
        self
    }
}

impl FormName for BodyName {
    fn text(&self) -> &str {
        &self.text
    }
}

impl<N: FormName> ListedFields<N> for FormPairs<'_> {
    fn contains(&self, name: &N) -> bool {
        self.pairs.iter().any(|pair| *pair.name == *name.text().as_bytes())
    }

    fn remove(&mut self, name: &N) {
        self.pairs.retain(|pair| *pair.name != *name.text().as_bytes());
    }

    fn rename(&mut self, name: &N, new_name: &N) {
        if name.text() == new_name.text() {
            return;
        }
        self.remove(new_name);
        for pair in self.pairs.iter_mut().filter(|pair| *pair.name == *name.text().as_bytes()) {
            pair.name = Cow::Owned(new_name.text().as_bytes().to_vec());
            pair.encoded_name = None;
        }
    }

    fn replace(&mut self, name: &N, value: Option<&[u8]>) -> Result<(), &'static str> {
        let mut replacement = Some(FormPairs::pair(name.text(), value));
        // The new value takes the place of the first one.
        for pair in &mut self.pairs {
            if *pair.name == *name.text().as_bytes()
                && let Some(replacement) = replacement.take()
            {
                *pair = replacement;
            }
        }
        let mut is_first = true;
        self.pairs.retain(|pair| *pair.name != *name.text().as_bytes() || std::mem::take(&mut is_first));
        Ok(())
    }

    fn append(&mut self, name: &N, value: Option<&[u8]>) -> Result<(), &'static str> {
        self.pairs.push(FormPairs::pair(name.text(), value));
        Ok(())
    }
}

impl RetainedFields for FormPairs<'_> {
    fn retain(&mut self, names: &[BodyName]) -> bool {
        let before = self.pairs.len();
        self.pairs.retain(|pair| names.iter().any(|name| *pair.name == *name.text.as_bytes()));
        self.pairs.len() < before
    }
}

/// The pairs of a form as part of a query. A form may contain any bytes.
pub(super) fn encode_for_query(form: &[u8]) -> Vec<u8> {
    const NOT_IN_QUERY: &AsciiSet = &CONTROLS.add(b' ').add(b'"').add(b'#').add(b'<').add(b'>');
    percent_encode(form, NOT_IN_QUERY).flat_map(str::bytes).collect()
}
