//! The operations of a configuration, and the statuses that they apply to.

use std::ops::RangeInclusive;

use http::StatusCode;

use super::entry::ConfigReader;
use crate::json_fields::JsonType;

/// Lists of entries, of which those that the plugins do not have are empty.
#[derive(Debug, Default)]
pub(crate) struct ResponseEditConfig {
    pub remove: EditOperation,
    pub rename: EditOperation,
    pub replace: EditOperation,
    pub add: EditOperation,
    pub append: EditOperation,
    /// What replaces the whole body, under the conditions of `replace`.
    pub new_body: Option<String>,
    /// The only fields of JSON bodies that the client gets.
    pub allowed_json: Option<Vec<String>>,
    /// Whether names of fields of JSON bodies are paths.
    pub has_paths: bool,
}

/// The entries of one operation.
#[derive(Debug, Default)]
pub(crate) struct EditOperation {
    pub headers: Vec<String>,
    pub json: Vec<String>,
    /// The types of the values in `json`, by position.
    pub json_types: Vec<JsonType>,
    /// The statuses that the operation applies to, such as `200` or `500-599`; if there are none, to all.
    pub if_status: Vec<String>,
}

/// The operations that apply to a response.
#[derive(Clone, Copy, Debug)]
pub(super) struct ActiveOperations {
    pub(super) remove: bool,
    pub(super) rename: bool,
    pub(super) replace: bool,
    pub(super) add: bool,
    pub(super) append: bool,
}

/// The conditions of all operations.
pub(super) struct OperationStatuses {
    remove: StatusList,
    rename: StatusList,
    replace: StatusList,
    add: StatusList,
    append: StatusList,
}

/// Ranges of statuses. If there is none, every status is in the list.
struct StatusList(Box<[RangeInclusive<u16>]>);

impl OperationStatuses {
    pub(super) fn build(config: &ResponseEditConfig, reader: &mut ConfigReader<'_>) -> Self {
        OperationStatuses {
            remove: StatusList::build(&config.remove, "remove", reader),
            rename: StatusList::build(&config.rename, "rename", reader),
            replace: StatusList::build(&config.replace, "replace", reader),
            add: StatusList::build(&config.add, "add", reader),
            append: StatusList::build(&config.append, "append", reader),
        }
    }

    pub(super) fn active(&self, status: StatusCode) -> ActiveOperations {
        ActiveOperations {
            remove: self.remove.contains(status),
            rename: self.rename.contains(status),
            replace: self.replace.contains(status),
            add: self.add.contains(status),
            append: self.append.contains(status),
        }
    }
}

impl StatusList {
    fn build(operation: &EditOperation, name: &str, reader: &mut ConfigReader<'_>) -> Self {
        let mut ranges = Vec::new();
        for (index, text) in operation.if_status.iter().enumerate() {
            match range(text) {
                Some(range) => ranges.push(range),
                None => {
                    let path = format!("{name}.if_status[{index}]");
                    let message = format!("{text:?} is neither a status nor a range of statuses");
                    reader.error(&path, message, "write a status such as 404, or a range such as 500-599");
                }
            }
        }
        StatusList(ranges.into())
    }

    fn contains(&self, status: StatusCode) -> bool {
        self.0.is_empty() || self.0.iter().any(|range| range.contains(&status.as_u16()))
    }
}

fn range(text: &str) -> Option<RangeInclusive<u16>> {
    let status = |text: &str| {
        let has_digits = text.len() == 3 && text.bytes().all(|byte| byte.is_ascii_digit());
        text.parse::<u16>().ok().filter(|status| has_digits && (100..=599).contains(status))
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (status(first)?, status(last)?),
        None => (status(text)?, status(text)?),
    };
    (first <= last).then_some(first..=last)
}

#[cfg(test)]
mod tests {
    use super::range;

    #[test]
    fn statuses_and_ranges_are_read() {
        assert_eq!((range("404"), range("500-599")), (Some(404..=404), Some(500..=599)));
        for invalid in ["", "99", "600", "5xx", "500-", "-500", "599-500", "500-599-600", "+50", " 500"] {
            assert_eq!(range(invalid), None, "{invalid}");
        }
    }
}
