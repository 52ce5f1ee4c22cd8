//! The translator of declarative files, for `run`, `check` and `convert` alike.

use std::sync::Arc;

use parking_lot::Mutex;
use serde_json::Value;

use crate::kong_config::{self, FORMAT, FileContext, TranslationSettings};
use crate::manifests::{FileTranslator, TranslatedObject, Translation};

/// The objects of the last file that was translated; `None` if it is not used.
pub(super) type RecordedObjects = Arc<Mutex<Option<Vec<TranslatedObject>>>>;

/// A translator for a file whose objects are applied to a cluster, and the objects that it will have translated.
pub(super) fn recording_translator(settings: TranslationSettings) -> (FileTranslator, RecordedObjects) {
    let recorded = RecordedObjects::default();
    let record = Arc::clone(&recorded);
    let translator = FileTranslator::new(FORMAT, move |file| {
        let translation = translate(file, &settings, None);
        *record.lock() = match &translation {
            Translation::Objects(objects, _) => Some(objects.clone()),
            Translation::Rejected(_) => None,
        };
        translation
    });
    (translator, recorded)
}

/// A translator for files whose objects are served as Ingresses of this class.
pub(super) fn serving_translator(class: &str) -> FileTranslator {
    let settings = TranslationSettings { namespace: "default".to_owned(), class: class.to_owned() };
    FileTranslator::new(FORMAT, move |file| translate(file, &settings, Some(jiff::Timestamp::now().as_second())))
}

/// Translates with the variables of this process.
fn translate(file: Value, settings: &TranslationSettings, read_at: Option<i64>) -> Translation {
    let context = FileContext { variable: &|name| std::env::var(name).ok(), read_at };
    kong_config::translate(file, settings, &context)
}
