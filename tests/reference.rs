//! Reference pages generated from the code: flags, custom resources, permissions, versions. `UPDATE=1 cargo test
//! --workspace --test library reference::` writes them.

mod compatibility;
mod crds;
mod flags;
mod ingress_nginx;
mod permissions;

use crate::golden::{Golden, expect_none};

#[test]
fn reference_pages_match_the_code() {
    let pages = [
        ("compatibility", compatibility::page()),
        ("crds", crds::page()),
        ("flags", flags::page()),
        ("ingress-nginx", ingress_nginx::page()),
        ("permissions", permissions::page()),
    ];
    let compared = pages.iter().map(|(name, text)| Golden::new(format!("../docs/reference/{name}.md")).compare(text));
    let differing: Vec<String> = compared.filter_map(Result::err).map(|error| error.replace("tests/../", "")).collect();
    expect_none(&differing, "reference");
}

/// Escapes text for a table cell: in one line, without `|` and `<` that have a meaning in Markdown.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('<', "&lt;")
}
