//! Where objects and their fields are in a file.

use std::path::Path;
use std::sync::Arc;

use super::documents::Document;
use super::outline::CaretTarget;
use super::position::{FilePosition, LineIndex, TextSpan};
use super::translated::ObjectSource;
use super::yaml;

/// The position of an object in its file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ObjectPosition {
    /// The index of the document.
    pub(super) document: u32,
    /// The first line of the document.
    pub(super) line: u32,
    /// Indexes into the `items` of lists, outermost first. Empty if the document itself is the object.
    pub(super) trail: Box<[u32]>,
    /// For an object of a translated file, what it was made from.
    pub(super) source: Option<ObjectSource>,
}

/// A field to find with `locate`.
pub(super) struct FieldQuery<'a> {
    pub(super) trail: &'a [u32],
    pub(super) field: &'a str,
    pub(super) caret: CaretTarget,
    /// Where the object is in a translated file.
    pub(super) source: Option<&'a ObjectSource>,
}

/// Positions of fields within a document, in one pass over its text.
pub(super) fn locate(file: &Arc<Path>, document: &Document<'_>, queries: &[FieldQuery<'_>]) -> Vec<FilePosition> {
    let outline = yaml::outline(document.text);
    let lines = LineIndex::build(document.text);
    let secrets = outline.as_ref().map(|outline| outline.secret_lines()).unwrap_or_default();
    let positions = queries.iter().map(|query| {
        if let Some(ObjectSource::Line(line)) = query.source {
            return match line {
                0 => FilePosition::whole_file(Arc::clone(file)),
                line => FilePosition::without_excerpt(Arc::clone(file), *line, 1),
            };
        }
        let Some(outline) = &outline else {
            return FilePosition::without_excerpt(Arc::clone(file), document.line, 1);
        };
        let span = match query.source.map(|source| source.path_of(query.field)) {
            Some(path) if path.is_empty() => TextSpan { line: 1, column: 1, width: 1 },
            Some(path) => outline.locate(query.trail, &path, query.caret),
            None => outline.locate(query.trail, query.field, query.caret),
        };
        let mut position = FilePosition::within(file, &lines, document.line, span);
        if query.source.is_some() || secrets.iter().any(|lines| lines.contains(&span.line)) {
            position.excerpt = None;
        }
        position
    });
    positions.collect()
}
