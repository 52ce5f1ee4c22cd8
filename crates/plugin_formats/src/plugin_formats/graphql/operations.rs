//! Documents whose fragments exist and end, and the operation of a request.

use std::collections::HashMap;

use super::document::{Fragment, GraphqlDocument, Operation, Selection};
use super::{DocumentError, DocumentLimits};

/// A document in which every spread leads to a fragment, without cycles, and with a limited number of levels.
#[derive(Debug)]
pub struct CheckedDocument<'t> {
    document: GraphqlDocument<'t>,
    /// The positions of the fragments, by name.
    fragments: HashMap<&'t str, usize>,
}

impl<'t> CheckedDocument<'t> {
    pub fn parse(text: &'t str, limits: &DocumentLimits) -> Result<Self, DocumentError> {
        let document = GraphqlDocument::parse(text, limits)?;
        let fragments: HashMap<&'t str, usize> =
            document.fragments.iter().enumerate().map(|(index, fragment)| (fragment.name, index)).collect();
        let heights = vec![FragmentHeight::Unknown; document.fragments.len()];
        let mut levels = Levels { document: &document, fragments: &fragments, heights, max: limits.depth };
        for operation in &document.operations {
            levels.of_selections(&operation.selections, 0)?;
        }
        for index in 0..document.fragments.len() {
            levels.of_fragment(index, 0)?;
        }
        Ok(CheckedDocument { document, fragments })
    }

    /// The operation of a request (section 6.1, `GetOperation`).
    pub fn operation(&self, name: Option<&str>) -> Result<&Operation<'t>, DocumentError> {
        let operations = &self.document.operations;
        match (name, &operations[..]) {
            (None, [operation]) => Ok(operation),
            (None, _) => Err(DocumentError::new("of several operations, operationName must name one")),
            (Some(name), _) => operations
                .iter()
                .find(|operation| operation.name == Some(name))
                .ok_or_else(|| DocumentError::new("the document has no operation with the name in operationName")),
        }
    }

    pub fn operations(&self) -> &[Operation<'t>] {
        &self.document.operations
    }

    pub fn fragment_count(&self) -> usize {
        self.document.fragments.len()
    }

    /// A fragment and its position.
    pub fn fragment(&self, name: &str) -> Option<(usize, &Fragment<'t>)> {
        let index = *self.fragments.get(name)?;
        Some((index, self.document.fragments.get(index)?))
    }
}

/// Finds how many levels selections have, with those of fragments. Each fragment is visited once.
struct Levels<'d, 't> {
    document: &'d GraphqlDocument<'t>,
    fragments: &'d HashMap<&'t str, usize>,
    heights: Vec<FragmentHeight>,
    max: usize,
}

#[derive(Clone, Copy)]
enum FragmentHeight {
    Unknown,
    /// It is being visited: a spread of it would be a cycle.
    Pending,
    Known(usize),
}

impl Levels<'_, '_> {
    /// The levels of these selections. `depth`: how many are around them.
    fn of_selections(&mut self, selections: &[Selection<'_>], depth: usize) -> Result<usize, DocumentError> {
        if depth > self.max {
            return Err(DocumentError::new("the document with its fragments is too deep"));
        }
        let mut height = 0;
        for selection in selections {
            let below = match selection {
                Selection::Field(field) => self.of_selections(&field.selections, depth + 1)?,
                Selection::Inline(inline) => self.of_selections(&inline.selections, depth + 1)?,
                Selection::Spread(name) => {
                    let index = *self
                        .fragments
                        .get(name)
                        .ok_or_else(|| DocumentError::new(format!("the fragment {name} of a spread does not exist")))?;
                    self.of_fragment(index, depth + 1)?
                }
            };
            height = height.max(below + 1);
        }
        Ok(height)
    }

    fn of_fragment(&mut self, index: usize, depth: usize) -> Result<usize, DocumentError> {
        let fragment = &self.document.fragments[index];
        let height = match self.heights[index] {
            FragmentHeight::Known(height) => height,
            FragmentHeight::Pending => {
                return Err(DocumentError::new(format!("the fragment {} contains itself", fragment.name)));
            }
            FragmentHeight::Unknown => {
                self.heights[index] = FragmentHeight::Pending;
                let height = self.of_selections(&fragment.selections, depth)?;
                self.heights[index] = FragmentHeight::Known(height);
                height
            }
        };
        match depth + height > self.max {
            true => Err(DocumentError::new("the document with its fragments is too deep")),
            false => Ok(height),
        }
    }
}
