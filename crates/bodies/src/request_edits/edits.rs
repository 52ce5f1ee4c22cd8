//! Edits of fields in the order of their execution: remove, rename, replace, add, append. The same code edits headers,
//! the query and all formats of bodies.

use std::borrow::Cow;

use super::RequestEditError;
use crate::json_fields::{JsonPath, JsonType};
use crate::plugin_api::lua_value::Budget;
use crate::plugin_formats::template::{Template, Variables};

/// The edits of headers, of the query or of bodies, by the type of their names.
pub(super) struct FieldEdits<N>(Box<[FieldEdit<N>]>);

pub(super) struct FieldEdit<N> {
    /// The path below `config`, for example `add.headers[0]`.
    pub(super) path: Box<str>,
    pub(super) name: N,
    pub(super) action: EditAction<N>,
}

pub(super) enum EditAction<N> {
    Remove,
    Rename(N),
    Replace(Template),
    Add(Template),
    Append(Template),
}

/// The edits for one request, with their values.
pub(super) struct Rendered<'p, N>(Vec<RenderedEdit<'p, N>>);

/// An edit with its value. `None` is nil, or an edit without a value.
type RenderedEdit<'p, N> = (&'p FieldEdit<N>, Option<Cow<'p, [u8]>>);

impl<N> Default for Rendered<'_, N> {
    fn default() -> Self {
        Rendered(Vec::new())
    }
}

/// The name of a field of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct BodyName {
    /// The whole name, which forms and multipart bodies have.
    pub(super) text: Box<str>,
    /// What it stands for in JSON.
    pub(super) path: JsonPath,
    /// The type of a new value in JSON.
    pub(super) json_type: JsonType,
}

/// Fields that can be edited.
pub(super) trait EditableFields<N> {
    /// Applies one edit. Returns whether it had an effect. Fails if the value is not valid.
    fn edit(&mut self, name: &N, action: &EditAction<N>, value: Option<&[u8]>) -> Result<bool, &'static str>;
}

/// Fields in one list, which names are compared with.
pub(super) trait ListedFields<N> {
    fn contains(&self, name: &N) -> bool;
    fn remove(&mut self, name: &N);
    /// Renames all fields of a name. Existing fields of the new name are removed.
    fn rename(&mut self, name: &N, new_name: &N);
    /// Leaves one field of the name, with this value. `None` is nil. Fails if the value is not valid.
    fn replace(&mut self, name: &N, value: Option<&[u8]>) -> Result<(), &'static str>;
    /// Adds a field that is not there.
    fn add(&mut self, name: &N, value: Option<&[u8]>) -> Result<(), &'static str> {
        self.append(name, value)
    }

    /// Adds a field, or one more value of it.
    fn append(&mut self, name: &N, value: Option<&[u8]>) -> Result<(), &'static str>;
}

impl<N, F: ListedFields<N>> EditableFields<N> for F {
    fn edit(&mut self, name: &N, action: &EditAction<N>, value: Option<&[u8]>) -> Result<bool, &'static str> {
        let applies = match action {
            EditAction::Remove | EditAction::Rename(_) | EditAction::Replace(_) => self.contains(name),
            EditAction::Add(_) => !self.contains(name),
            EditAction::Append(_) => true,
        };
        if !applies {
            return Ok(false);
        }
        match action {
            EditAction::Remove => self.remove(name),
            EditAction::Rename(new_name) => self.rename(name, new_name),
            EditAction::Replace(_) => self.replace(name, value)?,
            EditAction::Add(_) => self.add(name, value)?,
            EditAction::Append(_) => self.append(name, value)?,
        }
        Ok(true)
    }
}

/// Fields of which a configuration may allow only some.
pub(super) trait RetainedFields {
    /// Removes all other fields. Returns whether there were any.
    fn retain(&mut self, names: &[BodyName]) -> bool;
}

impl<N> FieldEdits<N> {
    pub(super) fn new(edits: Vec<FieldEdit<N>>) -> Self {
        FieldEdits(edits.into())
    }

    /// The names of all fields that the edits may change.
    pub(super) fn names(&self) -> impl Iterator<Item = &N> {
        self.0.iter().flat_map(|edit| {
            let new_name = if let EditAction::Rename(new_name) = &edit.action { Some(new_name) } else { None };
            [Some(&edit.name), new_name].into_iter().flatten()
        })
    }

    /// The fields that are renamed, with their new names.
    pub(super) fn renamed(&self) -> impl Iterator<Item = (&N, &N)> {
        self.0.iter().filter_map(|edit| match &edit.action {
            EditAction::Rename(new_name) => Some((&edit.name, new_name)),
            _ => None,
        })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Renders all values, also of edits that will not apply to the request.
    pub(super) fn render(
        &self,
        variables: &dyn Variables,
        budget: &mut Budget,
    ) -> Result<Rendered<'_, N>, RequestEditError> {
        let mut rendered = Vec::with_capacity(self.0.len());
        for edit in &self.0 {
            let value = match &edit.action {
                EditAction::Remove | EditAction::Rename(_) => None,
                EditAction::Replace(template) | EditAction::Add(template) | EditAction::Append(template) => {
                    match template.literal() {
                        Some(literal) => Some(Cow::Borrowed(literal.as_bytes())),
                        None => {
                            let value = template.render(variables, budget);
                            let value = value.map_err(|error| edit.error(&error.to_string()))?;
                            value.map(|value| Cow::Owned(value.into_owned()))
                        }
                    }
                }
            };
            rendered.push((edit, value));
        }
        Ok(Rendered(rendered))
    }
}

impl<N> FieldEdit<N> {
    fn error(&self, message: &str) -> RequestEditError {
        RequestEditError::Field(self.path.to_string(), message.to_owned())
    }
}

impl<N> Rendered<'_, N> {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Applies the edits. Returns whether one of them had an effect.
    pub(super) fn apply(&self, fields: &mut impl EditableFields<N>) -> Result<bool, RequestEditError> {
        let mut is_changed = false;
        for (edit, value) in &self.0 {
            let changed = fields.edit(&edit.name, &edit.action, value.as_deref());
            is_changed |= changed.map_err(|message| edit.error(message))?;
        }
        Ok(is_changed)
    }
}
