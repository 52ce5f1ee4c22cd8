//! Where clients without a login are redirected.

use http::HeaderValue;
use percent_encoding::utf8_percent_encode;
use schemars::JsonSchema;
use serde::Deserialize;

use crate::diagnostic::Diagnostic;
use crate::plugin_api::RequestCx;
use crate::snapshot::location_snippet::SnippetText;
use crate::snapshot::location_steps::{ESCAPED, RequestValues};

/// A page for the login.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::location_guards::access) struct SignInConfig {
    /// Its URL, which may have variables.
    url: String,
    /// The query parameter with the URL of the request.
    parameter: String,
}

/// The page, as the value of `Location`.
pub(in crate::location_guards::access) struct SignInPage {
    url: SnippetText,
    /// What precedes the URL of the request; `None` if that is not sent.
    parameter: Option<Box<str>>,
}

impl SignInPage {
    pub(in crate::location_guards::access) fn new(config: SignInConfig) -> Result<Self, Vec<Diagnostic>> {
        let SignInConfig { url, parameter } = config;
        let text = SnippetText::parse(&url)
            .map_err(|error| vec![Diagnostic::in_config("sign_in.url", error.to_string(), VARIABLE_REMEDY)])?;
        let query = url.split_once('?').map_or("", |(_, query)| query);
        // The page may name another URL itself.
        let names_url = query
            .split('&')
            .any(|pair| pair.split_once('=').is_some_and(|(name, value)| name == parameter && !value.is_empty()));
        let separator = if query.is_empty() { '?' } else { '&' };
        let parameter = (!names_url).then(|| format!("{separator}{parameter}=").into());
        Ok(SignInPage { url: text, parameter })
    }

    /// The page for a client. `None` if it is not a valid header value.
    pub(in crate::location_guards::access) fn page(&self, cx: &RequestCx<'_>) -> Option<HeaderValue> {
        let values = RequestValues::new(cx);
        let mut page = self.url.expand(&values)?.into_owned();
        if let Some(parameter) = &self.parameter {
            let target = utf8_percent_encode(cx.raw_target, ESCAPED);
            page.push_str(&format!("{parameter}{}{target}", cx.client.origin()));
        }
        HeaderValue::try_from(page).ok()
    }
}

pub(super) const VARIABLE_REMEDY: &str = "use variables of nginx that requests have, such as $request_uri";
