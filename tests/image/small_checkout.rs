//! A small program to test `scripts/image-root.sh`. Its output depends on place and time of the build: the path
//! of generated code, and the file name and date of C code.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::image::read;

const MANIFEST: &str = "[package]
name = 'portico'
version = '0.1.0'
edition = '2024'

[features]
alloc-jemalloc = []
";
const LOCK: &str = "version = 4\n\n[[package]]\nname = \"portico\"\nversion = \"0.1.0\"\n";

/// Compiles the C code like build scripts of crates: with the flags of the target and an absolute path.
const BUILD: &str = r#"
use std::{env, fs, process::Command};

fn main() {
    let out = env::var("OUT_DIR").unwrap();
    fs::write(format!("{out}/generated.rs"), "pub fn source_path() -> &'static str { file!() }").unwrap();
    let flags = env::var(format!("CFLAGS_{}", env::var("TARGET").unwrap().replace('-', "_"))).unwrap();
    let source = env::current_dir().unwrap().join("native.c");
    let object = format!("{out}/native.o");
    let compiled = Command::new("cc").args(flags.split(' ')).arg("-c").arg(source).args(["-o", &object]).status();
    assert!(compiled.unwrap().success());
    let archived = Command::new("ar").args(["rcsD", &format!("{out}/libnative.a"), &object]).status();
    assert!(archived.unwrap().success());
    println!("cargo::rustc-link-search=native={out}");
    println!("cargo::rustc-link-lib=static=native");
}
"#;
/// The recorded hash does not exist, as after a change of versions.
const FUNCTION_ORDER: &str = "_ZN7portico5third 01234567\n_ZN7portico5first\n";
const NATIVE: &str = "const char *native_place(void) { return __FILE__ \", \" __DATE__; }\n";
const MAIN: &str = r#"
use std::ffi::{CStr, c_char};

mod generated {
    include!(concat!(env!("OUT_DIR"), "/generated.rs"));
}

unsafe extern "C" {
    fn native_place() -> *const c_char;
}

#[inline(never)]
fn first() -> usize {
    std::hint::black_box(1)
}

#[inline(never)]
fn second() -> usize {
    std::hint::black_box(2)
}

#[inline(never)]
fn third() -> usize {
    std::hint::black_box(3)
}

fn main() {
    assert_eq!(first() + second() + third(), 6);
    println!("{}", generated::source_path());
    println!("{}", unsafe { CStr::from_ptr(native_place()) }.to_str().unwrap());
}
"#;

/// A checkout of the program in some folder.
pub(crate) struct SmallCheckout {
    _home: TempDir,
    folder: PathBuf,
}

impl SmallCheckout {
    pub(crate) fn create(name: &str) -> SmallCheckout {
        let home = tempfile::tempdir().unwrap();
        let checkout = SmallCheckout { folder: home.path().join(name), _home: home };
        for (file, text) in [
            ("Cargo.toml", MANIFEST),
            ("Cargo.lock", LOCK),
            ("build.rs", BUILD),
            ("native.c", NATIVE),
            ("src/main.rs", MAIN),
            ("LICENSE", "none\n"),
            ("rust-toolchain.toml", &read("rust-toolchain.toml")),
            ("scripts/image-root.sh", &read("scripts/image-root.sh")),
            ("scripts/ordered-linker.sh", &read("scripts/ordered-linker.sh")),
            ("scripts/function-order.txt", FUNCTION_ORDER),
        ] {
            checkout.write(file, text);
        }
        checkout
    }

    pub(crate) fn write(&self, file: &str, text: &str) {
        let path = self.folder.join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        if file.ends_with(".sh") {
            fs::set_permissions(path, Permissions::from_mode(0o755)).unwrap();
        }
    }

    /// Replaces an existing part of a file.
    pub(crate) fn replace(&self, file: &str, original: &str, replacement: &str) {
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        assert!(text.contains(original), "{file} does not contain {original:?} any more");
        self.write(file, &text.replace(original, replacement));
    }

    /// Runs the script with a minimal environment.
    pub(crate) fn build(&self) -> Output {
        let mut command = Command::new("bash");
        command.arg("scripts/image-root.sh").current_dir(&self.folder).stdin(Stdio::null()).env_clear();
        let kept = ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "RUSTUP_TOOLCHAIN"];
        command.envs(kept.iter().filter_map(|name| Some((name, std::env::var_os(name)?))));
        command.output().unwrap()
    }

    /// Builds the root folder and returns the checksum that the script prints.
    pub(crate) fn checksum(&self) -> String {
        let output = self.build();
        let (stdout, errors) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{stdout}{errors}");
        let sum = stdout.lines().last().and_then(|line| line.strip_prefix("image-root: sha256 "));
        sum.unwrap_or_else(|| panic!("no checksum:\n{stdout}")).to_owned()
    }

    /// The program in the root folder.
    pub(crate) fn program(&self) -> PathBuf {
        self.folder.join("target/image-root/usr/bin/portico")
    }

    /// Runs the program: it prints the path of its generated code, then the file and date of its C code.
    pub(crate) fn output(&self) -> String {
        let output = Command::new(self.program()).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}
