//! The bill of materials that `make sbom` writes.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::root;

#[test]
fn the_bill_of_materials_names_every_crate_of_the_binary() {
    let output = Command::new("bash").arg("scripts/sbom.sh").current_dir(root()).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "scripts/sbom.sh: {}", String::from_utf8_lossy(&output.stderr));
    for (architecture, target) in [("amd64", "x86_64-unknown-linux-gnu"), ("arm64", "aarch64-unknown-linux-gnu")] {
        let file = root().join(format!("target/sbom/portico-{architecture}.cdx.json"));
        let text = fs::read_to_string(&file).unwrap();
        assert!(!text.contains(root().to_str().unwrap()), "{architecture}: it says where it was written");
        let bill: Value = serde_json::from_str(&text).unwrap();
        let form = (&bill["bomFormat"], &bill["specVersion"], &bill["metadata"]["component"]["name"]);
        assert_eq!(form, (&"CycloneDX".into(), &"1.5".into(), &"portico".into()), "{architecture}");
        let listed = bill["components"].as_array().unwrap();
        let named: BTreeSet<String> = listed.iter().map(|crate_| name(&crate_["name"], &crate_["version"])).collect();
        let linked = crates(target);
        assert_eq!(named, linked, "{architecture}: what is listed, and what goes into the binary");
        for crate_ in listed {
            let has = |field: &str| crate_[field].as_array().is_some_and(|values| !values.is_empty());
            assert!(has("hashes") && has("licenses"), "{architecture}: {crate_:#}");
        }
    }
}

fn name(name: &Value, version: &Value) -> String {
    format!("{} v{}", name.as_str().unwrap(), version.as_str().unwrap())
}

/// Those that cargo would compile for the program, without those that only builds take.
fn crates(target: &str) -> BTreeSet<String> {
    let mut command = Command::new(env!("CARGO"));
    command.args(["tree", "--locked", "--offline", "--package=portico", "--features=alloc-jemalloc"]);
    command.args(["--edges=no-dev,no-build", "--prefix=none", "--format={p}", "--target", target]);
    let output = command.current_dir(root()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    // The first one is the program itself.
    let names = text.lines().skip(1).filter(|line| !line.is_empty());
    names.map(|line| line.split(' ').take(2).collect::<Vec<_>>().join(" ")).collect()
}
