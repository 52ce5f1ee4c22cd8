//! The translator of declarative files, for `run` and `convert` alike.

use crate::kong_config::{self, TranslationSettings};
use crate::manifests::FileTranslator;

/// A translator that reads the variables of this process.
pub(super) fn translator(settings: TranslationSettings) -> FileTranslator {
    FileTranslator::new(move |file| kong_config::translate(file, &settings, &|name| std::env::var(name).ok()))
}
