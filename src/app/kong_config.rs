//! The translator of declarative files, for `run` and `convert` alike.

use crate::kong_config::{self, FileContext, TranslationSettings};
use crate::manifests::FileTranslator;

/// A translator that reads the variables of this process, for files whose objects are applied to a cluster.
pub(super) fn translator(settings: TranslationSettings) -> FileTranslator {
    translator_at(settings, || None)
}

/// The same for files whose objects are served.
pub(super) fn serving_translator(settings: TranslationSettings) -> FileTranslator {
    translator_at(settings, || Some(jiff::Timestamp::now().as_second()))
}

fn translator_at(
    settings: TranslationSettings,
    read_at: impl Fn() -> Option<i64> + Send + Sync + 'static,
) -> FileTranslator {
    FileTranslator::new(move |file| {
        let context = FileContext { variable: &|name| std::env::var(name).ok(), read_at: read_at() };
        kong_config::translate(file, &settings, &context)
    })
}
