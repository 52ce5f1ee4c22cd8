//! Header fields that plugins add, and filters of an HTTPRoute that add the same fields without plugins.

use serde_json::json;

/// Header fields, each with its name and value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct AddedFields {
    pub(crate) request: Vec<(String, String)>,
    pub(crate) response: Vec<(String, String)>,
}

impl AddedFields {
    /// Makes the value of the last field of requests longer, by this number of bytes.
    pub(crate) fn lengthen(&mut self, bytes: usize) {
        if let Some((_, value)) = self.request.last_mut() {
            value.extend(std::iter::repeat_n('-', bytes));
        }
    }

    /// Filters of an HTTPRoute that add these fields, as the items of a list.
    pub(crate) fn filters(&self) -> String {
        let filter = |kind: &str, field: &str, fields: &[(String, String)]| {
            let fields: Vec<_> = fields.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
            (!fields.is_empty()).then(|| json!({"type": kind, field: {"set": fields}}).to_string())
        };
        let request = filter("RequestHeaderModifier", "requestHeaderModifier", &self.request);
        let response = filter("ResponseHeaderModifier", "responseHeaderModifier", &self.response);
        request.into_iter().chain(response).collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn listed(added: &AddedFields) -> Value {
        serde_json::from_str(&format!("[{}]", added.filters())).unwrap()
    }

    #[test]
    fn each_direction_with_fields_has_a_filter() {
        let mut added = AddedFields::default();
        added.lengthen(3);
        assert_eq!((added.filters().as_str(), &added), ("", &AddedFields::default()));
        added.request.push(("a".to_owned(), "1".to_owned()));
        added.lengthen(3);
        let request = json!({
            "type": "RequestHeaderModifier",
            "requestHeaderModifier": {"set": [{"name": "a", "value": "1---"}]},
        });
        assert_eq!(listed(&added), json!([request]));
        added.response.push(("b".to_owned(), "2".to_owned()));
        let response = json!({
            "type": "ResponseHeaderModifier",
            "responseHeaderModifier": {"set": [{"name": "b", "value": "2"}]},
        });
        assert_eq!(listed(&added), json!([request, response]));
    }
}
