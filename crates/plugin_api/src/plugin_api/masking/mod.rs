//! Masks for personal data: in JSON documents by field and in texts by pattern, and what logs must not contain.
//!
//! ```text
//!   fields ──▶ JsonMask ─┬─▶ bodies, and objects of log plugins
//!   kinds, patterns ──▶ TextMask ─┴─▶ other texts, and fields of the access log
//! ```

pub mod json_mask;
pub mod masked_path;
pub mod text_mask;

use std::borrow::Cow;
use std::sync::Arc;

use json_mask::JsonMask;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What logs must not contain of the requests of a chain.
#[derive(Debug)]
pub struct LogMask {
    /// Masks the objects of log plugins, and with its patterns other texts.
    pub object: JsonMask,
    /// The fields of the access log that are masked as a whole.
    pub access_log: Vec<MaskedAccessField>,
}

/// A field of the access log that may contain personal data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum MaskedAccessField {
    /// The address of the peer.
    Client,
    /// The name of the consumer.
    Consumer,
    /// The host of the request.
    Host,
    /// The path of the request.
    Path,
    /// The field `User-Agent`.
    UserAgent,
}

/// Equal if they are the same object.
impl PartialEq for LogMask {
    fn eq(&self, other: &LogMask) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for LogMask {}

impl LogMask {
    /// The text with everything masked that matches a pattern. `None` if nothing does.
    pub fn mask_text(&self, text: &str) -> Option<String> {
        self.object.text().apply(text)
    }

    /// The value of a field of the access log.
    pub fn mask_access_field<'t>(&self, field: MaskedAccessField, value: Cow<'t, str>) -> Cow<'t, str> {
        if self.access_log.contains(&field) {
            return Cow::Owned(self.object.text().replacement().to_owned());
        }
        self.mask_text(&value).map_or(value, Cow::Owned)
    }
}

/// Applies all masks to a JSON object. An object that cannot be masked is replaced by one without data.
pub fn mask_object(masks: &[Arc<LogMask>], object: Vec<u8>) -> Vec<u8> {
    masks.iter().fold(object, |object, mask| match mask.object.apply(&object, usize::MAX) {
        Ok(None) => object,
        Ok(Some(masked)) => masked,
        // Unreachable for objects that this process has written, unless they are nested too deeply.
        Err(_) => b"{\"mask\":\"the object cannot be masked\"}".to_vec(),
    })
}
