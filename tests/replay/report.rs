//! The files with reports. Unknown fields are errors, because a misspelled expectation would expect nothing.

use std::collections::BTreeMap;
use std::fs;

use serde::Deserialize;

use crate::harness::program::root;

/// One report, or several of the same error.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Report {
    /// Where the error was reported: addresses of public issues or advisories, or their identifiers.
    report: Vec<String>,
    /// What was wrong, in one sentence.
    pub(crate) about: String,
    /// Manifests in addition to replay/shared.yaml. `@port@` is the port of the Gateway.
    pub(crate) objects: Option<String>,
    /// More flags of `portico run`. Those that start with `--ingress-class` are for `portico check`, too.
    #[serde(default)]
    pub(crate) flags: Vec<String>,
    /// Parts of the output of `portico check`, with single spaces. An empty list expects that nothing is wrong.
    pub(crate) reported: Option<Vec<String>>,
    #[serde(default)]
    pub(crate) requests: Vec<Request>,
    /// Tests that replay what a request cannot show, as `FILE::FUNCTION`.
    #[serde(default)]
    pub(crate) tests: Vec<String>,
}

/// A request and what is expected of its response.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Request {
    /// Arguments of curl, in the quotes of a shell. Requests to any host are sent to the Gateway, or if the objects
    /// have an Ingress, to the port of Ingresses.
    pub(crate) curl: String,
    pub(crate) status: u16,
    /// The Service whose backend got the request.
    pub(crate) backend: Option<String>,
    /// What the backend received.
    #[serde(default)]
    pub(crate) received: Received,
    /// Fields of the response: all values in their order, joined with `, `; null if there is none.
    #[serde(default)]
    pub(crate) fields: BTreeMap<String, Option<String>>,
    /// How often the request is sent; each response is compared.
    #[serde(default = "once")]
    pub(crate) times: u32,
}

/// What a backend received, as far as it is of interest.
#[derive(Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Received {
    pub(crate) method: Option<String>,
    pub(crate) path: Option<String>,
    pub(crate) query: Option<String>,
    pub(crate) host: Option<String>,
    pub(crate) body: Option<String>,
    /// All values in their order, joined with `, `; null if there is none.
    #[serde(default)]
    pub(crate) headers: BTreeMap<String, Option<String>>,
}

impl Report {
    /// The first source, which names the report in messages.
    pub(crate) fn id(&self) -> &str {
        self.report.first().map_or("a report without a source", String::as_str)
    }

    pub(crate) fn uses_ingresses(&self) -> bool {
        self.objects.as_deref().is_some_and(|objects| objects.contains("kind: Ingress\n"))
    }
}

fn once() -> u32 {
    1
}

/// The reports of all files, in the order of their names.
pub(crate) fn reports() -> Vec<Report> {
    let folder = root().join("tests/replay/reports");
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| {
        let text = fs::read_to_string(path).unwrap();
        serde_saphyr::from_str::<Vec<Report>>(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    };
    paths.iter().flat_map(read).collect()
}
