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
    match folder {
        None => print(&text),
        Some(folder) if objects.is_empty() => write_files(&[], folder),
        Some(folder) => write_files(&[(FILE, &text)], folder),
    }
}

/// Writes files, each with its name, into a folder that is empty or does not exist.
pub(super) fn write_files(files: &[(&str, &str)], folder: &Path) -> anyhow::Result<()> {
    let shown = folder.display();
    fs::create_dir_all(folder).with_context(|| format!("--output {shown}: cannot create the folder"))?;
    let mut entries = fs::read_dir(folder).with_context(|| format!("--output {shown}: cannot read the folder"))?;
    if entries.next().is_some() {
        bail!("--output {shown}: the folder is not empty; name a new one");
    }
    for (name, text) in files {
        fs::write(folder.join(name), text).with_context(|| format!("--output {shown}: cannot write {name}"))?;
    }
    Ok(())
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
