//! Writes the objects of a migration: to standard output, or into a folder of their own.

use std::fs;
use std::path::Path;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::app::stdout::print;

/// Writes the objects as YAML. `folder`: `None` for standard output.
pub(super) fn write(objects: &[Value], folder: Option<&Path>) -> anyhow::Result<()> {
    let documents: Result<Vec<String>, _> = objects.iter().map(serde_saphyr::to_string).collect();
    let text = documents.context("an object cannot be written as YAML")?.join("---\n");
    let Some(folder) = folder else { return print(&text) };
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("--output {shown}: cannot create the folder"))?;
    let mut entries = fs::read_dir(folder).with_context(|| format!("--output {shown}: cannot read the folder"))?;
    if entries.next().is_some() {
        bail!("--output {shown}: the folder is not empty; name a new one");
    }
    if objects.is_empty() {
        return Ok(());
    }
    let file = folder.join(FILE);
    fs::write(&file, text).with_context(|| format!("--output {shown}: cannot write {FILE}"))
}

const FILE: &str = "gateway-api.yaml";

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_folder_must_be_empty() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new");
        write(&[json!({"kind": "A"}), json!({"kind": "B"})], Some(&path)).unwrap();
        assert_eq!(fs::read_to_string(path.join(FILE)).unwrap(), "kind: A\n---\nkind: B\n");
        let error = write(&[], Some(&path)).unwrap_err().to_string();
        assert!(error.ends_with("the folder is not empty; name a new one"), "{error}");
    }
}
