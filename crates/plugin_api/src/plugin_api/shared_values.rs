//! What functions store for one request: values for other plugins (`kong.ctx.shared`), and fields of its log object
//! (`kong.log.set_serialize_value`).

use serde_json::Value;

use super::lua_value::LuaValue;

/// The values of one request. Their number and size are limited.
#[derive(Debug, Default)]
pub struct SharedValues {
    values: Vec<(Box<str>, LuaValue<'static>)>,
    log: Vec<LogObjectField>,
    bytes: usize,
}

/// A field to set in the log object of the request.
#[derive(Clone, Debug, PartialEq)]
pub struct LogObjectField {
    /// The names of the objects that contain the field, and of the field itself.
    pub path: Box<[String]>,
    /// `None` removes the field.
    pub value: Option<Value>,
    pub mode: LogFieldMode,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFieldMode {
    Set,
    /// Only if there is no such field.
    Add,
    /// Only if there is such a field.
    Replace,
}

impl SharedValues {
    pub fn get(&self, name: &[u8]) -> LuaValue<'_> {
        match self.values.iter().find(|(known, _)| known.as_bytes() == name) {
            Some((_, LuaValue::Text(text))) => LuaValue::text_or_nil(Some(text)),
            Some((_, value)) => value.clone(),
            None => LuaValue::Nil,
        }
    }

    /// Stores a value; nil removes it.
    pub fn set(&mut self, name: &str, value: LuaValue<'static>) -> Result<(), &'static str> {
        let length = if let LuaValue::Text(text) = &value { text.len() } else { 0 };
        self.spend(name.len() + length)?;
        self.values.retain(|(known, _)| **known != *name);
        if value != LuaValue::Nil {
            if self.values.len() >= MAX_ENTRIES {
                return Err(TOO_MUCH);
            }
            self.values.push((name.into(), value));
        }
        Ok(())
    }

    /// The fields in the order in which they were added.
    pub fn log_values(&self) -> &[LogObjectField] {
        &self.log
    }

    pub fn add_log_value(&mut self, value: LogObjectField) -> Result<(), &'static str> {
        let names: usize = value.path.iter().map(String::len).sum();
        self.spend(names + value.value.as_ref().map_or(0, size))?;
        if self.log.len() >= MAX_ENTRIES {
            return Err(TOO_MUCH);
        }
        self.log.push(value);
        Ok(())
    }

    fn spend(&mut self, bytes: usize) -> Result<(), &'static str> {
        self.bytes = self.bytes.saturating_add(bytes);
        if self.bytes > MAX_BYTES { Err(TOO_MUCH) } else { Ok(()) }
    }
}

/// About how many bytes a value of a function has. Functions write few levels.
fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.iter().map(|(name, value)| name.len() + size(value)).sum(),
        Value::Array(items) => items.iter().map(size).sum(),
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
    }
}

/// Splits the name of a field of a log object at its dots, except those after a backslash. The number of parts is
/// limited, because each is a level of the object.
pub fn parse_path(name: &str) -> Result<Box<[String]>, &'static str> {
    let mut parts = vec![String::new()];
    let mut characters = name.chars().peekable();
    while let Some(character) = characters.next() {
        let last = parts.len() - 1;
        match character {
            '\\' if characters.next_if_eq(&'.').is_some() => parts[last].push('.'),
            '.' => parts.push(String::new()),
            character => parts[last].push(character),
        }
        if parts.len() > MAX_PATH_PARTS {
            return Err("the name of the field has more than 16 parts");
        }
    }
    if parts.iter().any(String::is_empty) {
        return Err("the name of the field has an empty part");
    }
    Ok(parts.into())
}

const TOO_MUCH: &str = "the functions store too many or too large values for one request";
/// Of each kind.
const MAX_ENTRIES: usize = 64;
const MAX_BYTES: usize = 64 << 10;
const MAX_PATH_PARTS: usize = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_split_at_dots() {
        let cases: [(&str, &[&str]); 3] = [("a", &["a"]), ("a.b.c", &["a", "b", "c"]), (r"a\.b.c", &["a.b", "c"])];
        for (name, expected) in cases {
            assert_eq!(&*parse_path(name).unwrap(), expected, "{name}");
        }
        for name in ["", "a..b", ".a", "a."] {
            assert_eq!(parse_path(name), Err("the name of the field has an empty part"), "{name}");
        }
        assert_eq!(parse_path(&["a"; MAX_PATH_PARTS].join(".")).map(|path| path.len()), Ok(MAX_PATH_PARTS));
        let deep = "a.".repeat(30_000);
        assert_eq!(parse_path(&deep), Err("the name of the field has more than 16 parts"));
    }

    #[test]
    fn fields_of_log_objects_are_limited() {
        let field = |length: usize| LogObjectField {
            path: parse_path("a.b").unwrap(),
            value: Some(Value::String("a".repeat(length))),
            mode: LogFieldMode::Set,
        };
        let mut values = SharedValues::default();
        for _ in 0..MAX_ENTRIES {
            values.add_log_value(field(1)).unwrap();
        }
        assert_eq!(values.add_log_value(field(1)), Err(TOO_MUCH));
        assert_eq!(SharedValues::default().add_log_value(field(MAX_BYTES)), Err(TOO_MUCH));
    }

    #[test]
    fn values_are_replaced_removed_and_limited() {
        let mut values = SharedValues::default();
        values.set("a", LuaValue::Number(1.0)).unwrap();
        values.set("a", LuaValue::Boolean(true)).unwrap();
        assert_eq!(values.get(b"a"), LuaValue::Boolean(true));
        values.set("a", LuaValue::Nil).unwrap();
        assert_eq!(values.get(b"a"), LuaValue::Nil);
        for number in 0..MAX_ENTRIES {
            values.set(&format!("{number}"), LuaValue::Boolean(false)).unwrap();
        }
        assert_eq!(values.set("one more", LuaValue::Boolean(false)), Err(TOO_MUCH));
        let mut values = SharedValues::default();
        let text = |length: usize| LuaValue::Text(vec![b'a'; length].into());
        assert_eq!(values.set("a", text(MAX_BYTES)), Err(TOO_MUCH));
    }
}
