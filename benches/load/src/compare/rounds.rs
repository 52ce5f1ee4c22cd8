//! The figures of all rounds and the memory of idle connections, and their file.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::cases::Case;
use super::figures::Figures;

/// The figures of each server in one round of a case.
pub(crate) type Round = BTreeMap<String, Figures>;

/// The rounds of each case by its name. A round is complete, or it is not recorded.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Rounds {
    cases: BTreeMap<String, Vec<Round>>,
    /// The memory of each kind of idle connections by its name.
    #[serde(default, rename = "idle_kib")]
    idle: BTreeMap<String, IdleMemory>,
}

/// KiB of resident memory for each idle connection, by the name of the server.
pub(crate) type IdleMemory = BTreeMap<String, f64>;

impl Rounds {
    /// Reads the rounds of an earlier run. A missing file has none.
    pub(crate) fn read(file: &Path) -> Result<Rounds> {
        match fs::read(file) {
            Ok(text) => serde_json::from_slice(&text).with_context(|| format!("{} has other figures", file.display())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Rounds::default()),
            Err(error) => Err(error).with_context(|| format!("cannot read {}", file.display())),
        }
    }

    pub(crate) fn write(&self, file: &Path) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        // Atomically, so that a run that is interrupted here leaves a complete file.
        let new_file = file.with_extension("new");
        fs::write(&new_file, text)
            .and_then(|()| fs::rename(&new_file, file))
            .with_context(|| format!("cannot write {}", file.display()))
    }

    pub(crate) fn count(&self, case: &Case) -> usize {
        self.of(case).len()
    }

    pub(crate) fn of(&self, case: &Case) -> &[Round] {
        self.cases.get(case.name).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn add(&mut self, case: &Case, figures: impl IntoIterator<Item = (String, Figures)>) {
        self.cases.entry(case.name.to_owned()).or_default().push(figures.into_iter().collect());
    }

    /// The memory of this kind of idle connections, if it was measured.
    pub(crate) fn idle(&self, kind: &str) -> Option<&IdleMemory> {
        self.idle.get(kind)
    }

    pub(crate) fn add_idle(&mut self, kind: &str, memory: IdleMemory) {
        self.idle.insert(kind.to_owned(), memory);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_without_idle_connections_is_read_and_keeps_those_that_are_added() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("compare.json");
        fs::write(&file, r#"{"cases": {}}"#).unwrap();
        let mut rounds = Rounds::read(&file).unwrap();
        assert_eq!(rounds.idle("plain"), None);
        let memory: IdleMemory = [("portico".to_owned(), 1.5)].into();
        rounds.add_idle("plain", memory.clone());
        rounds.write(&file).unwrap();
        assert_eq!(Rounds::read(&file).unwrap().idle("plain"), Some(&memory));
    }
}
