//! The text that a client signs: one line for each signed header, and lines for method and target.

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine;
use http::HeaderName;
use http::header::HOST;

use super::parameters::SignatureParameters;
use crate::plugin_api::RequestCx;
use crate::plugin_api::consumers::HmacAlgorithm;
use crate::plugin_api::http_version::decimal_protocol_name;
use crate::plugin_api::login::BASE64;

/// The method in lower case and the target, after this name.
const REQUEST_TARGET: &str = "@request-target";
/// The first line of the request, without a name. Not a header, even if the client sends one with this name: its value
/// would be signed in place of the line.
const REQUEST_LINE: &str = "request-line";

/// Whether a signed name is not that of a header. `name` is in lower case.
pub(super) fn is_pseudo_header(name: &str) -> bool {
    [REQUEST_TARGET, REQUEST_LINE].contains(&name)
}

/// The signed text of a request. It is signed part by part and never in memory as a whole.
pub(super) struct SignedText<'t, 'c> {
    cx: &'t RequestCx<'c>,
    parameters: &'t SignatureParameters<'t>,
}

/// The signature of a request with the secret of the credential.
pub(super) struct ExpectedSignature(hmac::Tag);

impl<'t, 'c> SignedText<'t, 'c> {
    pub(super) fn of(cx: &'t RequestCx<'c>, parameters: &'t SignatureParameters<'t>) -> Self {
        SignedText { cx, parameters }
    }

    pub(super) fn sign(&self, algorithm: HmacAlgorithm, secret: &[u8]) -> ExpectedSignature {
        let mut context = hmac::Context::with_key(&hmac::Key::new(algorithm.hash(), secret));
        for (index, name) in self.parameters.headers().enumerate() {
            if index > 0 {
                context.update(b"\n");
            }
            self.add_line(name, &mut context);
        }
        ExpectedSignature(context.sign())
    }

    fn add_line(&self, name: &str, context: &mut hmac::Context) {
        let head = &*self.cx.head;
        let target = self.cx.raw_target.as_bytes();
        if name.eq_ignore_ascii_case(REQUEST_LINE) {
            let parts =
                [head.method.as_str().as_bytes(), b" ", target, b" ", decimal_protocol_name(head.version).as_bytes()];
            parts.into_iter().for_each(|part| context.update(part));
            return;
        }
        context.update(name.as_bytes());
        context.update(b":");
        if name.eq_ignore_ascii_case(REQUEST_TARGET) {
            let method = head.method.as_str().to_ascii_lowercase();
            [b" ", method.as_bytes(), b" ", target].into_iter().for_each(|part| context.update(part));
            return;
        }
        let Ok(name) = HeaderName::from_bytes(name.as_bytes()) else { return };
        // The rule may have replaced the field. HTTP/2 has `:authority` in its place.
        if name == HOST {
            context.update(b" ");
            context.update(self.cx.client.received.host.as_bytes());
            return;
        }
        for (index, value) in head.headers.get_all(name).iter().enumerate() {
            context.update(if index == 0 { b" " } else { b", " });
            context.update(value.as_bytes());
        }
    }
}

impl ExpectedSignature {
    /// Whether this is the signature in base64, compared in constant time.
    pub(super) fn is(&self, signature: &str) -> bool {
        let Ok(signature) = BASE64.decode(signature) else { return false };
        verify_slices_are_equal(self.0.as_ref(), &signature).is_ok()
    }
}
