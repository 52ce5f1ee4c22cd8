//! Paths into values: children, and reading, setting and removing what a path leads to.

use std::rc::Rc;

use super::budget::{Flow, MAX_VALUE_DEPTH, StepBudget, Stop, error};
use super::value::{JqMembers, JqValue};

/// The keys that lead to a value, of which longer paths share the beginning.
#[derive(Clone, Default)]
pub(super) struct JqPath(Option<Rc<(JqPath, JqValue)>>);

impl JqPath {
    fn join(&self, key: JqValue) -> JqPath {
        JqPath(Some(Rc::new((self.clone(), key))))
    }

    pub(super) fn keys(&self) -> Vec<JqValue> {
        let (mut keys, mut path) = (Vec::new(), self);
        while let Some(node) = &path.0 {
            keys.push(node.1.clone());
            path = &node.0;
        }
        keys.reverse();
        keys
    }
}

/// A value, and where it is in the input of `path`, if that is wanted.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) value: JqValue,
    pub(super) path: Option<JqPath>,
}

impl Item {
    pub(super) fn plain(value: JqValue) -> Self {
        Item { value, path: None }
    }
}

/// The child of an item under a key: a name, a position, or the bounds of a slice.
pub(super) fn child(item: &Item, key: &JqValue) -> Result<Item, Stop> {
    let value = match (&item.value, key) {
        (JqValue::Object(members, _), JqValue::Text(name)) => members.get(name).cloned().unwrap_or(JqValue::Null),
        (JqValue::List(elements, _), JqValue::Number(number)) => {
            let index = position(number.value, elements.len());
            index.and_then(|index| elements.get(index)).cloned().unwrap_or(JqValue::Null)
        }
        (JqValue::Null, JqValue::Text(_) | JqValue::Number(_) | JqValue::Null) => JqValue::Null,
        (JqValue::Null, JqValue::Object(..)) => JqValue::Null,
        (JqValue::List(elements, _), JqValue::Object(bounds, _)) => {
            let (from, to) = slice_bounds(bounds, elements.len())?;
            JqValue::from(elements[from..to].to_vec())
        }
        (JqValue::Text(text), JqValue::Object(bounds, _)) => {
            let characters: Vec<char> = text.chars().collect();
            let (from, to) = slice_bounds(bounds, characters.len())?;
            JqValue::Text(characters[from..to].iter().collect::<String>().into())
        }
        (value, key) => {
            return error(format!("{} has no member with a key of type {}", value.type_name(), key.type_name()));
        }
    };
    Ok(Item { value, path: item.path.as_ref().map(|path| path.join(key.clone())) })
}

/// The children of an item.
pub(super) fn each(budget: &StepBudget, item: &Item, output: &mut dyn FnMut(Item) -> Flow) -> Flow {
    let join = |key: JqValue| item.path.as_ref().map(|path| path.join(key));
    match &item.value {
        JqValue::List(elements, _) => {
            for (index, value) in elements.iter().enumerate() {
                budget.spend(1)?;
                output(Item { value: value.clone(), path: join(JqValue::from(index)) })?;
            }
        }
        JqValue::Object(members, _) => {
            for (name, value) in members.iter() {
                budget.spend(1)?;
                output(Item { value: value.clone(), path: join(JqValue::Text(Rc::clone(name))) })?;
            }
        }
        value => return error(format!("{} cannot be iterated", value.type_name())),
    }
    Ok(())
}

/// The key of a slice, as `path` shows it.
pub(super) fn slice_key(from: JqValue, to: JqValue) -> JqValue {
    JqValue::from(JqMembers::from([("start".into(), from), ("end".into(), to)]))
}

fn slice_bounds(bounds: &JqMembers, length: usize) -> Result<(usize, usize), Stop> {
    let bound = |name: &str, otherwise: usize, round: fn(f64) -> f64| match bounds.get(name) {
        None | Some(JqValue::Null) => Ok(otherwise),
        Some(JqValue::Number(number)) => {
            let value = round(number.value);
            let value = if value < 0.0 { value + length as f64 } else { value };
            Ok(value.clamp(0.0, length as f64) as usize)
        }
        Some(_) => error("the bounds of a slice must be numbers"),
    };
    let (from, to) = (bound("start", 0, f64::floor)?, bound("end", length, f64::ceil)?);
    Ok((from, to.max(from)))
}

/// The position of an index, which counts from the end if it is negative. `None` before the start.
fn position(index: f64, length: usize) -> Option<usize> {
    let index = index.floor();
    let index = if index < 0.0 { index + length as f64 } else { index };
    (index >= 0.0).then_some(index as usize)
}

pub(super) fn get(root: &JqValue, keys: &[JqValue]) -> Result<JqValue, Stop> {
    let mut value = root.clone();
    for key in keys {
        if matches!(value, JqValue::Null) {
            return Ok(JqValue::Null);
        }
        value = child(&Item::plain(value), key)?.value;
    }
    Ok(value)
}

/// The root with another value at a path, whose missing members are created.
pub(super) fn set(budget: &StepBudget, root: JqValue, keys: &[JqValue], new: JqValue) -> Result<JqValue, Stop> {
    if keys.len() > MAX_VALUE_DEPTH {
        return Err(Stop::Exhausted);
    }
    let Some((key, rest)) = keys.split_first() else { return Ok(new) };
    budget.spend(1 + copied(&root))?;
    match (root, key) {
        (JqValue::Null, JqValue::Text(_)) => set(budget, JqValue::from(JqMembers::new()), keys, new),
        (JqValue::Null, JqValue::Number(_) | JqValue::Object(..)) => set(budget, JqValue::from(Vec::new()), keys, new),
        (JqValue::Object(mut members, _), JqValue::Text(name)) => {
            let map = Rc::make_mut(&mut members);
            let old = map.get_mut(name).map_or(JqValue::Null, |old| std::mem::replace(old, JqValue::Null));
            map.insert(Rc::clone(name), set(budget, old, rest, new)?);
            Ok(JqValue::object(members))
        }
        (JqValue::List(mut elements, _), JqValue::Number(number)) => {
            let Some(index) = position(number.value, elements.len()) else {
                return error("an index is before the start of the array");
            };
            budget.spend(index.saturating_sub(elements.len()))?;
            let list = Rc::make_mut(&mut elements);
            if index >= list.len() {
                list.resize(index + 1, JqValue::Null);
            }
            let old = std::mem::replace(&mut list[index], JqValue::Null);
            list[index] = set(budget, old, rest, new)?;
            Ok(JqValue::list(elements))
        }
        (JqValue::List(elements, _), JqValue::Object(bounds, _)) => {
            let (from, to) = slice_bounds(bounds, elements.len())?;
            let replaced = set(budget, JqValue::from(elements[from..to].to_vec()), rest, new)?;
            let JqValue::List(replaced, _) = replaced else { return error("a slice can only become an array") };
            budget.spend(elements.len() + replaced.len())?;
            Ok(JqValue::from([&elements[..from], &replaced, &elements[to..]].concat()))
        }
        (root, key) => error(format!("{} can have no member with a key of type {}", root.type_name(), key.type_name())),
    }
}

/// The steps for a value that is changed: a shared one is copied, and the depth of each is computed again.
fn copied(value: &JqValue) -> usize {
    match value {
        JqValue::List(elements, _) => 1 + elements.len() / if Rc::strong_count(elements) > 1 { 1 } else { 8 },
        JqValue::Object(members, _) => 1 + members.len() / if Rc::strong_count(members) > 1 { 1 } else { 8 },
        _ => 0,
    }
}

/// The root without what the paths lead to.
pub(super) fn delete(budget: &StepBudget, mut root: JqValue, mut paths: Vec<Vec<JqValue>>) -> Result<JqValue, Stop> {
    budget.spend(paths.len() * 16)?;
    // From the last to the first, so that positions stay those of the original.
    paths.sort();
    paths.dedup();
    for keys in paths.iter().rev() {
        root = delete_one(budget, root, keys)?;
    }
    Ok(root)
}

fn delete_one(budget: &StepBudget, root: JqValue, keys: &[JqValue]) -> Result<JqValue, Stop> {
    if keys.len() > MAX_VALUE_DEPTH {
        return Err(Stop::Exhausted);
    }
    let Some((key, rest)) = keys.split_first() else { return Ok(JqValue::Null) };
    budget.spend(1 + copied(&root))?;
    match (root, key) {
        (JqValue::Null, _) => Ok(JqValue::Null),
        (JqValue::Object(mut members, _), JqValue::Text(name)) => {
            let map = Rc::make_mut(&mut members);
            if rest.is_empty() {
                budget.spend(map.len())?;
                map.shift_remove(name);
            } else if let Some(member) = map.get_mut(name) {
                let old = std::mem::replace(member, JqValue::Null);
                *member = delete_one(budget, old, rest)?;
            }
            Ok(JqValue::object(members))
        }
        (JqValue::List(mut elements, _), JqValue::Number(number)) => {
            let index = position(number.value, elements.len());
            let list = Rc::make_mut(&mut elements);
            if let Some(index) = index.filter(|index| *index < list.len()) {
                if rest.is_empty() {
                    budget.spend(list.len() / 8)?;
                    list.remove(index);
                } else {
                    let old = std::mem::replace(&mut list[index], JqValue::Null);
                    list[index] = delete_one(budget, old, rest)?;
                }
            }
            Ok(JqValue::list(elements))
        }
        (JqValue::List(elements, _), JqValue::Object(bounds, _)) if rest.is_empty() => {
            let (from, to) = slice_bounds(bounds, elements.len())?;
            budget.spend(elements.len())?;
            Ok(JqValue::from([&elements[..from], &elements[to..]].concat()))
        }
        (root, key) => error(format!("{} has no member with a key of type {}", root.type_name(), key.type_name())),
    }
}
