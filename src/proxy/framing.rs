//! Whether everybody reads the same end of a message: what hyper lets through and the next reader may take differently.
//!
//! hyper itself refuses with 400 and closes: lengths that differ or are no number, a coding that does not end in `chunked`,
//! any coding in HTTP/1.0, a space before the colon, folded lines. What it repairs instead, the guard refuses. What is left
//! is refused here.

use http::header::{CONTENT_LENGTH, EXPECT, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Request, Version};

use super::fault::Fault;

pub(crate) fn check<B>(request: &mut Request<B>) -> Result<(), Fault> {
    match coding(request.headers()) {
        Coding::None | Coding::Chunked => {}
        // We would have to undo the other coding too, and pass on the body of another message if we did not.
        Coding::Other => return Err(Fault::Framing("the only Transfer-Encoding that is understood is chunked")),
    }
    if let Some(length) = request.headers_mut().get_mut(CONTENT_LENGTH)
        && let [b'0', _, ..] = length.as_bytes()
    {
        // To some readers a number that begins with zero is an octal one.
        let number = length.to_str().ok().and_then(|length| length.parse::<u64>().ok());
        *length = number.map(HeaderValue::from).ok_or(Fault::Framing("the Content-Length is not a number"))?;
    }
    if let Some(expectation) = request.headers().get(EXPECT)
        && request.version() >= Version::HTTP_11
        && !expectation.as_bytes().eq_ignore_ascii_case(b"100-continue")
    {
        return Err(Fault::Expectation);
    }
    Ok(())
}

/// What an answer says about its body, made so that only one reading is left.
pub(crate) fn settle_answer(headers: &mut HeaderMap) -> Result<(), Fault> {
    match coding(headers) {
        Coding::None => Ok(()),
        Coding::Chunked => {
            headers.remove(CONTENT_LENGTH);
            Ok(())
        }
        Coding::Other => Err(Fault::BadAnswer),
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    Chunked,
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (None, _) => Coding::None,
        (Some(coding), None) if coding.as_bytes().eq_ignore_ascii_case(b"chunked") => Coding::Chunked,
        _ => Coding::Other,
    }
}
