//! Reads clients of `oauth2` from Secrets.

use std::sync::Arc;

use http::Uri;

use super::credentials::SecretReader;
use crate::diagnostic::Diagnostic;
use crate::plugin_api::consumers::{StoredPassword, sha256};
use crate::plugin_api::password::{InvalidPasswordHash, PasswordHash};

/// What the Secret of a client contains.
pub(super) struct OAuthClientFields {
    pub(super) client_id: Arc<str>,
    /// `None` for public clients.
    pub(super) secret: Option<StoredPassword>,
    pub(super) redirect_uris: Box<[Box<str>]>,
}

impl SecretReader<'_, '_> {
    pub(super) fn oauth_client(&self) -> Result<OAuthClientFields, Diagnostic> {
        self.text("name")?;
        let client_id = self.text("client_id")?;
        if client_id.len() > MAX_CLIENT_ID || !client_id.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
            let message = format!("client_id is longer than {MAX_CLIENT_ID} characters, or not visible ASCII");
            return Err(self.problem(message, "use letters, digits, `-` and `_`"));
        }
        let is_public = match self.optional("client_type")?.as_deref() {
            None | Some("confidential") => false,
            Some("public") => true,
            Some(_) => {
                let message = "client_type is neither confidential nor public".to_owned();
                return Err(self.problem(message, "correct it, or remove it for confidential"));
            }
        };
        if !matches!(self.optional("hash_secret")?.as_deref(), None | Some("true" | "false")) {
            return Err(self.problem("hash_secret is neither true nor false".to_owned(), "correct it, or remove it"));
        }
        let secret = if is_public { None } else { Some(self.client_secret()?) };
        Ok(OAuthClientFields { client_id, secret, redirect_uris: self.redirect_uris()? })
    }

    /// The digest of the secret, which is never kept as it is, or a hash in its place.
    fn client_secret(&self) -> Result<StoredPassword, Diagnostic> {
        match self.only(&["client_secret", "client_secret_hash"])? {
            Some(name @ "client_secret_hash") => {
                let hash = PasswordHash::parse(self.text(name)?.trim());
                let hash =
                    hash.map_err(|error| self.problem(format!("{name}: {error}"), InvalidPasswordHash::REMEDY))?;
                Ok(StoredPassword::Hash(Arc::new(hash)))
            }
            _ => Ok(StoredPassword::Digest(sha256(self.bytes("client_secret")?))),
        }
    }

    fn redirect_uris(&self) -> Result<Box<[Box<str>]>, Diagnostic> {
        let Some(list) = self.optional("redirect_uris")? else { return Ok(Box::default()) };
        let uris: Vec<&str> = list.split(',').map(str::trim).filter(|uri| !uri.is_empty()).collect();
        if uris.len() > MAX_REDIRECT_URIS {
            let message = format!("redirect_uris has {} URIs, and at most {MAX_REDIRECT_URIS} are read", uris.len());
            return Err(self.problem(message, "remove those that are not used"));
        }
        for (index, uri) in uris.iter().enumerate() {
            check_redirect_uri(uri).map_err(|error| {
                let remedy = "use an absolute URI without fragment, such as https://app.example/callback";
                self.problem(format!("redirect_uris[{index}] {error}"), remedy)
            })?;
        }
        Ok(uris.into_iter().map(Box::from).collect())
    }

    fn optional(&self, name: &str) -> Result<Option<Arc<str>>, Diagnostic> {
        if self.secret.value(name).is_none_or(<[u8]>::is_empty) { Ok(None) } else { self.text(name).map(Some) }
    }
}

/// What is wrong with an URI to which codes and tokens are sent (RFC 6749, section 3.1.2).
fn check_redirect_uri(uri: &str) -> Result<(), &'static str> {
    if uri.len() > MAX_REDIRECT_URI {
        return Err("is longer than 2048 characters");
    }
    if !uri.bytes().all(|byte| matches!(byte, b'!'..=b'~') && !matches!(byte, b'"' | b'<' | b'>' | b'\\')) {
        return Err("has characters that an URI must encode");
    }
    if uri.contains('#') {
        return Err("has a fragment");
    }
    let Some((scheme, _)) = uri.split_once(':') else { return Err("is not absolute") };
    let is_scheme = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    if !is_scheme {
        return Err("is not absolute");
    }
    match scheme.to_ascii_lowercase().as_str() {
        // A browser would run or show what follows, with the code in it.
        "javascript" | "data" | "vbscript" | "blob" | "file" => Err("has a scheme to which no code can be sent"),
        "http" | "https" => match uri.parse::<Uri>() {
            Ok(uri) if uri.host().is_some_and(|host| !host.is_empty()) => Ok(()),
            _ => Err("has no host"),
        },
        _ => Ok(()),
    }
}

const MAX_CLIENT_ID: usize = 256;
const MAX_REDIRECT_URIS: usize = 32;
const MAX_REDIRECT_URI: usize = 2048;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirect_uris_are_absolute_and_cannot_run() {
        let long = format!("https://a.example/{}", "a".repeat(2048));
        let cases = [
            ("https://app.example/callback?a=b", Ok(())),
            ("http://127.0.0.1:8000", Ok(())),
            ("com.example.app:/callback", Ok(())),
            ("/callback", Err("is not absolute")),
            ("1a://b", Err("is not absolute")),
            ("https:///callback", Err("has no host")),
            ("https://a.example/#b", Err("has a fragment")),
            ("https://a.example/\r\nset-cookie:a", Err("has characters that an URI must encode")),
            ("JavaScript:alert(1)", Err("has a scheme to which no code can be sent")),
            (&*long, Err("is longer than 2048 characters")),
        ];
        for (uri, expected) in cases {
            assert_eq!(check_redirect_uri(uri), expected, "{uri}");
        }
    }
}
