//! The objects that a file is translated into.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::model::Entity;
use super::settings::TranslationSettings;
use crate::api::kong::annotations::{INGRESS_CLASS, PLUGINS, TAGS};
use crate::api::names::ENTITY_NAME_ANNOTATION;
use crate::manifests::{ObjectSource, TranslatedObject};

/// An object before it is complete: other entities may still add annotations.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) name: String,
    pub(super) source: Arc<str>,
    api_version: &'static str,
    kind: &'static str,
    is_cluster_wide: bool,
    /// In seconds since 1970, if it matters.
    pub(super) created: Option<i64>,
    pub(super) annotations: Map<String, Value>,
    pub(super) labels: Map<String, Value>,
    /// The names of the plugins that are attached to it.
    pub(super) plugins: Vec<String>,
    pub(super) fields: Map<String, Value>,
}

impl Draft {
    pub(super) fn new(api_version: &'static str, kind: &'static str, name: &str, source: &str) -> Self {
        Draft {
            name: name.to_owned(),
            source: Arc::from(source),
            api_version,
            kind,
            is_cluster_wide: false,
            created: None,
            annotations: Map::new(),
            labels: Map::new(),
            plugins: Vec::new(),
            fields: Map::new(),
        }
    }

    pub(super) fn cluster_wide(self) -> Self {
        Draft { is_cluster_wide: true, ..self }
    }

    pub(super) fn of_class(mut self, settings: &TranslationSettings) -> Self {
        self.annotate(INGRESS_CLASS, settings.class.as_str());
        self
    }

    pub(super) fn with(mut self, name: &str, value: Value) -> Self {
        self.fields.insert(name.to_owned(), value);
        self
    }

    pub(super) fn annotate(&mut self, key: &str, value: impl Into<Value>) {
        self.annotations.insert(key.to_owned(), value.into());
    }

    /// Writes the name of an entity, and its tags, which log plugins write.
    pub(super) fn identify(&mut self, entity: &mut Entity<'_>) {
        if let Some(name) = &entity.name {
            entity.fields.check_name("name", name);
            self.annotate(ENTITY_NAME_ANNOTATION, name.as_str());
        }
        let tags = entity.fields.tags();
        if !tags.is_empty() {
            self.annotate(TAGS, tags.join(","));
        }
    }

    pub(super) fn label(&mut self, key: &str, value: &str) {
        self.labels.insert(key.to_owned(), Value::from(value));
    }

    pub(super) fn finish(mut self, settings: &TranslationSettings) -> TranslatedObject {
        if !self.plugins.is_empty() {
            let plugins = self.plugins.join(",");
            self.annotate(PLUGINS, plugins);
        }
        let mut metadata = Map::new();
        if !self.is_cluster_wide {
            metadata.insert("namespace".to_owned(), Value::from(settings.namespace.as_str()));
        }
        metadata.insert("name".to_owned(), Value::from(self.name));
        if let Some(created) = self.created.and_then(|seconds| jiff::Timestamp::from_second(seconds).ok()) {
            metadata.insert("creationTimestamp".to_owned(), Value::from(created.to_string()));
        }
        for (name, map) in [("labels", self.labels), ("annotations", self.annotations)] {
            if !map.is_empty() {
                metadata.insert(name.to_owned(), Value::Object(map));
            }
        }
        let mut object = Map::new();
        object.insert("apiVersion".to_owned(), json!(self.api_version));
        object.insert("kind".to_owned(), json!(self.kind));
        object.insert("metadata".to_owned(), Value::Object(metadata));
        object.extend(self.fields);
        TranslatedObject { value: Value::Object(object), source: ObjectSource::Entity(self.source) }
    }
}
