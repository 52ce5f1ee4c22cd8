//! The report of a verification: a table with differences and remarks below it, or JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use serde::Serialize;

use super::admin_client::GatewayRecord;
use super::balancing::{BackendBalancing, ServedBalancing};
use super::explanation::rule_name;
use super::judgment::Judgment;
use crate::report::{count as counted, escape_controls, table};

/// A request, what served it, and whether that is what the manifests say.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifiedRequest {
    /// `HTTPRoute default/shop`
    pub(super) object: String,
    /// The name of the rule or its index; absent for Ingresses.
    pub(super) rule: Option<String>,
    /// The match: `spec.rules[0].matches[1]`.
    pub(super) field: String,
    /// `namespace/gateway/listener`
    pub(super) listener: Option<String>,
    /// `GET http://shop.example/cart`
    pub(super) request: Option<String>,
    pub(super) dry_run: bool,
    pub(super) served_by: Option<ServedBy>,
    pub(super) result: VerificationResult,
    /// The difference, the reason why no request was sent, or a remark.
    pub(super) message: Option<String>,
}

/// What served a request, as the gateway recorded it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ServedBy {
    listener: Option<String>,
    /// `HTTPRoute default/shop`
    object: Option<String>,
    rule: Option<String>,
    path: Option<String>,
    backend: Option<String>,
    endpoint: Option<String>,
    /// Why the endpoint was picked, as in the access log.
    picked: Option<String>,
    /// How endpoints of the backend are chosen, if something has set that.
    load_balancing: Option<BackendBalancing>,
    status: Option<u16>,
    source: Option<String>,
    reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum VerificationResult {
    Agrees,
    Differs,
    NotDerived,
}

impl From<GatewayRecord> for ServedBy {
    fn from(observation: GatewayRecord) -> Self {
        let GatewayRecord {
            listener,
            route,
            rule,
            path,
            backend,
            endpoint,
            picked,
            status,
            source,
            reason,
            dry_run: _,
        } = observation;
        let object = route.map(|route| rule_name(&route, None));
        ServedBy {
            listener,
            object,
            rule,
            path,
            backend,
            endpoint,
            picked,
            load_balancing: None,
            status,
            source,
            reason,
        }
    }
}

impl VerifiedRequest {
    pub(super) fn set_judgment(&mut self, judgment: Judgment) {
        (self.result, self.message) = match judgment {
            Judgment::Agrees(remark) => (VerificationResult::Agrees, remark),
            Judgment::Differs(difference) => (VerificationResult::Differs, Some(difference)),
            Judgment::NotDerived(reason) => (VerificationResult::NotDerived, Some(reason)),
        };
    }

    /// Adds how the gateway chooses among the endpoints of the backend.
    pub(super) fn set_balancing(&mut self, balancing: &ServedBalancing) {
        if let Some(served) = &mut self.served_by {
            served.load_balancing = served.backend.as_ref().and_then(|backend| balancing.of_backend(backend));
        }
    }

    pub fn result(&self) -> VerificationResult {
        self.result
    }

    fn cells(&self) -> [String; 6] {
        let status = self.served_by.as_ref().and_then(|served| served.status).map(|status| status.to_string());
        [
            self.object.clone(),
            self.rule.clone().unwrap_or_else(|| "-".to_owned()),
            self.request.clone().unwrap_or_else(|| "-".to_owned()),
            self.served_by_cell(),
            if self.dry_run { "dry run".to_owned() } else { status.unwrap_or_else(|| "-".to_owned()) },
            match self.result {
                VerificationResult::Agrees => "ok".to_owned(),
                VerificationResult::Differs => "differs".to_owned(),
                VerificationResult::NotDerived => "not derived".to_owned(),
            },
        ]
    }

    /// `default/shop:80 (10.0.0.7:8080)` if the rule is the expected one; otherwise with the rule that served.
    fn served_by_cell(&self) -> String {
        let Some(served) = &self.served_by else { return "-".to_owned() };
        let backend = match (&served.backend, &served.endpoint, served.source.as_deref()) {
            (Some(backend), Some(endpoint), _) => match served.picked.as_deref() {
                None | Some("preferred") => format!("{backend} ({endpoint})"),
                Some(picked) => format!("{backend} ({endpoint}, {picked})"),
            },
            (Some(backend), None, _) => backend.clone(),
            (None, _, Some("plugin")) => "a plugin".to_owned(),
            (None, ..) => "Portico".to_owned(),
        };
        let is_expected_rule = self.rule.is_none() || served.rule == self.rule;
        match &served.object {
            Some(object) if *object == self.object && is_expected_rule => backend,
            Some(object) => {
                format!("rule {} of {object}: {backend}", served.rule.as_deref().unwrap_or_default())
            }
            None => "no rule".to_owned(),
        }
    }

    fn balancing(&self) -> Option<(&str, &BackendBalancing)> {
        let served = self.served_by.as_ref()?;
        Some((served.backend.as_deref()?, served.load_balancing.as_ref()?))
    }

    /// The place and the request, and then the message in a line of its own.
    fn message_lines(&self) -> Option<String> {
        let message = escape_controls(self.message.as_ref()?);
        let request = self.request.as_ref().map(|request| format!(", {request}")).unwrap_or_default();
        let listener = self.listener.as_ref().map(|listener| format!(" on {listener}")).unwrap_or_default();
        let place = escape_controls(&format!("{} {}{request}{listener}", self.object, self.field));
        Some(format!("  {place}:\n    {message}\n"))
    }
}

/// The report as a table, for terminals.
pub fn text(requests: &[VerifiedRequest]) -> String {
    let mut text = String::new();
    if !requests.is_empty() {
        let heading = ["ROUTE", "RULE", "REQUEST", "SERVED BY", "STATUS", "RESULT"];
        text.push_str(&table(heading, requests.iter().map(VerifiedRequest::cells)));
    }
    for (title, result) in [
        ("Differences", VerificationResult::Differs),
        ("Not derived", VerificationResult::NotDerived),
        ("Remarks", VerificationResult::Agrees),
    ] {
        let of_result = requests.iter().filter(|request| request.result == result);
        let lines: String = of_result.filter_map(VerifiedRequest::message_lines).collect();
        if !lines.is_empty() {
            write!(text, "\n{title}:\n{lines}").expect("writing to a string cannot fail");
        }
    }
    let backends: BTreeMap<&str, &BackendBalancing> = requests.iter().filter_map(VerifiedRequest::balancing).collect();
    if !backends.is_empty() {
        text.push_str("\nLoad balancing:\n");
    }
    for (backend, balancing) in backends {
        let line = escape_controls(&format!("{backend}: {}", balancing.description()));
        writeln!(text, "  {line}").expect("writing to a string cannot fail");
    }
    let count = |result| requests.iter().filter(|request| request.result == result).count() as u64;
    let [agree, differ, not_derived] =
        [VerificationResult::Agrees, VerificationResult::Differs, VerificationResult::NotDerived].map(count);
    let summary = format!("{agree} as written, {differ} different, {not_derived} not derived");
    if !text.is_empty() {
        text.push('\n');
    }
    writeln!(text, "{}: {summary}", counted(agree + differ + not_derived, "request"))
        .expect("writing to a string cannot fail");
    text
}

/// The report for programs.
pub fn json(requests: &[VerifiedRequest]) -> String {
    let value = serde_json::to_value(requests).expect("a report serializes to JSON");
    format!("{value:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(rule: &str, judgment: Judgment, observation: Option<GatewayRecord>) -> VerifiedRequest {
        let mut request = VerifiedRequest {
            object: "HTTPRoute default/shop".to_owned(),
            rule: Some(rule.to_owned()),
            field: format!("spec.rules[{rule}].matches[0]"),
            listener: Some("default/web/http".to_owned()),
            request: observation.as_ref().map(|_| "GET http://shop.example/".to_owned()),
            dry_run: observation.as_ref().is_some_and(|observation| observation.dry_run),
            served_by: observation.map(ServedBy::from),
            result: VerificationResult::Agrees,
            message: None,
        };
        request.set_judgment(judgment);
        request
    }

    fn observation(route: &str, rule: &str) -> GatewayRecord {
        GatewayRecord {
            route: Some(route.to_owned()),
            rule: Some(rule.to_owned()),
            backend: Some("default/echo:80".to_owned()),
            endpoint: Some("127.0.0.1:9000".to_owned()),
            status: Some(200),
            source: Some("endpoint".to_owned()),
            ..GatewayRecord::default()
        }
    }

    fn requests() -> [VerifiedRequest; 4] {
        let shop = "HTTPRoute/default/shop";
        let hashed = GatewayRecord { picked: Some("hash".to_owned()), ..observation(shop, "0") };
        let mut first = request("0", Judgment::Agrees(None), Some(hashed));
        first.served_by.as_mut().unwrap().load_balancing = Some(BackendBalancing {
            algorithm: "Maglev by the hash of Path".to_owned(),
            algorithm_source: Some("BackendPolicy default/echo".to_owned()),
            sessions: None,
            sessions_source: None,
        });
        let dry_run = GatewayRecord { endpoint: None, dry_run: true, ..observation(shop, "1") };
        [
            first,
            request("1", Judgment::Agrees(Some("a remark".to_owned())), Some(dry_run)),
            request(
                "2",
                Judgment::Differs("it is shadowed".to_owned()),
                Some(observation("HTTPRoute/default/api", "1")),
            ),
            request("3", Judgment::NotDerived("a reason".to_owned()), None),
        ]
    }

    #[test]
    fn table_is_followed_by_differences_and_remarks() {
        // Without the spaces that align the columns.
        let expected = "\
ROUTE RULE REQUEST SERVED BY STATUS RESULT
HTTPRoute default/shop 0 GET http://shop.example/ default/echo:80 (127.0.0.1:9000, hash) 200 ok
HTTPRoute default/shop 1 GET http://shop.example/ default/echo:80 dry run ok
HTTPRoute default/shop 2 GET http://shop.example/ rule 1 of HTTPRoute default/api: default/echo:80 (127.0.0.1:9000) \
200 differs
HTTPRoute default/shop 3 - - - not derived

Differences:
HTTPRoute default/shop spec.rules[2].matches[0], GET http://shop.example/ on default/web/http:
it is shadowed

Not derived:
HTTPRoute default/shop spec.rules[3].matches[0] on default/web/http:
a reason

Remarks:
HTTPRoute default/shop spec.rules[1].matches[0], GET http://shop.example/ on default/web/http:
a remark

Load balancing:
default/echo:80: Maglev by the hash of Path (BackendPolicy default/echo)

4 requests: 2 as written, 1 different, 1 not derived
";
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&text(&requests())), expected.lines().collect::<Vec<_>>());
        assert_eq!(text(&[]), "0 requests: 0 as written, 0 different, 0 not derived\n");
    }

    #[test]
    fn json_has_an_entry_for_each_request() {
        let value: serde_json::Value = serde_json::from_str(&json(&requests())).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 4);
        assert_eq!(value[0]["servedBy"]["loadBalancing"]["algorithm"], "Maglev by the hash of Path");
        assert_eq!(value[2]["result"], "differs");
        assert_eq!(value[2]["servedBy"]["object"], "HTTPRoute default/api");
        assert_eq!((&value[3]["result"], &value[3]["servedBy"]), (&"notDerived".into(), &serde_json::Value::Null));
    }
}
