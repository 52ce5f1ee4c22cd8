//! What a report says about manifests of the Gateway API.

use serde::Serialize;

use super::rows::Difference;

/// Which hosts are converted, and what differs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayApiReport {
    /// Sorted by Ingress and host.
    pub rows: Vec<GatewayApiRow>,
    /// Requests with another response by the manifests, each with one example for all hosts.
    pub differences: Vec<Difference>,
}

/// An Ingress and one of its hosts: it is converted, or one thing stands in the way.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct GatewayApiRow {
    /// Namespace and name.
    pub object: String,
    /// Empty for all hosts.
    pub host: String,
    pub converted: bool,
    /// The annotation or the field that stands in the way.
    pub field: String,
    pub reason: String,
    /// An example of a request that the manifests could not serve in the same way.
    pub request: String,
    pub remedy: String,
}

impl GatewayApiReport {
    /// Whether a host is not converted.
    pub fn is_partial(&self) -> bool {
        self.rows.iter().any(|row| !row.converted)
    }

    /// The first table: Ingress, host, result and why.
    pub(super) fn row_cells(&self) -> Vec<[String; 4]> {
        let cells = self.rows.iter().map(|row| {
            let host = if row.host.is_empty() { "*" } else { &row.host };
            let (result, why) = match row.converted {
                true => ("converted", String::new()),
                false => {
                    let GatewayApiRow { field, reason, request, remedy, .. } = row;
                    ("left out", format!("{field}: {reason}, as for {request} → {remedy}"))
                }
            };
            [row.object.clone(), host.to_owned(), result.to_owned(), why]
        });
        cells.collect()
    }

    /// The second table: setting, request, before and after.
    pub(super) fn difference_cells(&self) -> Vec<[String; 4]> {
        let cells = self.differences.iter().map(|difference| {
            let Difference { name, request, before, after } = difference;
            [(*name).to_owned(), request.clone(), before.clone(), after.clone()]
        });
        cells.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_has_a_reason_and_an_example() {
        let row = |host: &str, converted| GatewayApiRow {
            object: "shop/web".to_owned(),
            host: host.to_owned(),
            converted,
            field: "spec.rules".to_owned(),
            reason: "it has none".to_owned(),
            request: "GET http://a.example/".to_owned(),
            remedy: "add one".to_owned(),
        };
        let mut report = GatewayApiReport { rows: vec![row("a.example", true)], ..GatewayApiReport::default() };
        assert!(!report.is_partial());
        report.rows.push(row("", false));
        assert!(report.is_partial());
        let cells = report.row_cells();
        assert_eq!(cells[0], ["shop/web", "a.example", "converted", ""]);
        let why = "spec.rules: it has none, as for GET http://a.example/ → add one";
        assert_eq!(cells[1], ["shop/web", "*", "left out", why]);
    }
}
