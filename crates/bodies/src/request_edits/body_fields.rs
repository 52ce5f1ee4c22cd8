//! Editing of the fields of a JSON body, whose new values have the types that the configuration declares.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::edits::{BodyName, EditAction, EditableFields, RetainedFields};
use crate::json_fields::{JsonFields, JsonPath};

impl EditableFields<BodyName> for JsonFields<'_> {
    fn edit(
        &mut self,
        name: &BodyName,
        action: &EditAction<BodyName>,
        value: Option<&[u8]>,
    ) -> Result<bool, &'static str> {
        Ok(match action {
            EditAction::Remove => self.remove(&name.path),
            EditAction::Rename(new_name) => self.rename(&name.path, &new_name.text),
            EditAction::Replace(_) => self.replace(&name.path, &typed(name, value)?),
            EditAction::Add(_) => self.add(&name.path, &typed(name, value)?),
            EditAction::Append(_) => self.append(&name.path, &typed(name, value)?, true),
        })
    }
}

impl RetainedFields for JsonFields<'_> {
    fn retain(&mut self, names: &[BodyName]) -> bool {
        let paths: Vec<&JsonPath> = names.iter().map(|name| &name.path).collect();
        JsonFields::retain(self, &paths)
    }
}

fn typed<'v>(name: &BodyName, value: Option<&[u8]>) -> Result<Cow<'v, RawValue>, &'static str> {
    let text = std::str::from_utf8(value.unwrap_or_default()).map_err(|_| NOT_TEXT)?;
    name.json_type.value(text).map(Cow::Owned).ok_or("the value is not a number")
}

const NOT_TEXT: &str = "the value is not UTF-8, which JSON requires";
