//! The translator of declarative files, for `run`, `check` and `convert` alike.

use crate::kong_config::{self, FORMAT, FileContext, TranslationSettings};
use crate::manifests::FileTranslator;

/// A translator that reads the variables of this process, for files whose objects are applied to a cluster.
pub(super) fn translator(settings: TranslationSettings) -> FileTranslator {
    translator_at(settings, || None)
}

/// The same for files whose objects are served as Ingresses of this class.
pub(super) fn serving_translator(class: &str) -> FileTranslator {
    let settings = TranslationSettings { namespace: "default".to_owned(), class: class.to_owned() };
    translator_at(settings, || Some(jiff::Timestamp::now().as_second()))
}

fn translator_at(
    settings: TranslationSettings,
    read_at: impl Fn() -> Option<i64> + Send + Sync + 'static,
) -> FileTranslator {
    FileTranslator::new(FORMAT, move |file| {
        let context = FileContext { variable: &|name| std::env::var(name).ok(), read_at: read_at() };
        kong_config::translate(file, &settings, &context)
    })
}
