//! An isolated environment for the program: a folder, a loopback address and ports, so that tests run in parallel.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

use super::ports::free_port;

/// The environment of one run. Its address and ports vary; `normalize` replaces them in output.
pub(crate) struct Site {
    folder: TempDir,
    address: Ipv4Addr,
    ports: RefCell<BTreeMap<&'static str, u16>>,
}

impl Site {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder can be created");
        Site { folder, address: *ADDRESS, ports: RefCell::default() }
    }

    /// A path in the working folder of the program.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Address of the first Gateway.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Address of a second Gateway.
    pub(crate) fn next_address(&self) -> Ipv4Addr {
        let [first, second, third, fourth] = self.address.octets();
        Ipv4Addr::new(first, second + OCTET_VALUES, third, fourth)
    }

    /// The port with this name, which is one of `PORT_NAMES`.
    pub(crate) fn port(&self, name: &str) -> u16 {
        let (name, _) = PORT_NAMES.iter().find(|(known, _)| *known == name).expect("the name is in PORT_NAMES");
        *self.ports.borrow_mut().entry(name).or_insert_with(|| free_port(self.address))
    }

    /// `address:port` of a named port.
    pub(crate) fn address_of(&self, name: &str) -> String {
        format!("{}:{}", self.address, self.port(name))
    }

    /// Fills in placeholders and saves a file atomically: writes a temporary file and renames it.
    pub(crate) fn save(&self, name: &str, text: &str) {
        self.save_bytes(name, self.filled(text).as_bytes());
    }

    pub(crate) fn save_bytes(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().expect("the path is below the folder")).unwrap();
        let temporary = self.path(".saving");
        fs::write(&temporary, bytes).unwrap();
        fs::rename(&temporary, &path).unwrap();
    }

    /// Overwrites a file in place, as simple editors do.
    pub(crate) fn overwrite(&self, name: &str, text: &str) {
        fs::write(self.path(name), self.filled(text)).unwrap();
    }

    pub(crate) fn remove(&self, name: &str) {
        fs::remove_file(self.path(name)).unwrap();
    }

    /// Replaces placeholders such as `@address@` and `@port@` by the values of this site.
    pub(crate) fn filled(&self, text: &str) -> String {
        let mut parts = text.split('@');
        let mut filled = parts.next().unwrap_or_default().to_owned();
        let mut can_be_name = true;
        for part in parts {
            match self.placeholder_value(part).filter(|_| can_be_name) {
                Some(value) => {
                    filled += &value;
                    can_be_name = false;
                }
                None => {
                    if can_be_name {
                        filled.push('@');
                    }
                    filled += part;
                    can_be_name = true;
                }
            }
        }
        filled
    }

    fn placeholder_value(&self, name: &str) -> Option<String> {
        let pem = |pem: &str| BASE64_STANDARD.encode(pem);
        match name {
            "address" => Some(self.address.to_string()),
            "next-address" => Some(self.next_address().to_string()),
            "certificate" => Some(pem(&CERTIFICATES.certificate)),
            "key" => Some(pem(&CERTIFICATES.key)),
            "another-key" => Some(pem(&CERTIFICATES.another_key)),
            _ => PORT_NAMES.iter().any(|(known, _)| *known == name).then(|| self.port(name).to_string()),
        }
    }

    /// Replaces addresses and ports of this site by those in expected output. They have the same length, which
    /// preserves the alignment of columns and carets.
    pub(crate) fn normalize(&self, text: &str) -> String {
        let mut text = text.replace(&self.address.to_string(), NORMALIZED_ADDRESS);
        text = text.replace(&self.next_address().to_string(), NORMALIZED_NEXT_ADDRESS);
        for (name, port) in self.ports.borrow().iter() {
            let (_, normalized) =
                PORT_NAMES.iter().find(|(known, _)| known == name).expect("the name was checked on creation");
            text = replace_number(&text, *port, normalized);
        }
        without_times(&text)
    }
}

/// Replaces a number, but not its digits within a longer number.
fn replace_number(text: &str, number: u16, normalized: &str) -> String {
    let number = number.to_string();
    let mut replaced = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(index) = rest.find(&number) {
        let (before, after) = (&rest[..index], &rest[index + number.len()..]);
        let is_part = before.ends_with(|character: char| character.is_ascii_digit())
            || after.starts_with(|character: char| character.is_ascii_digit());
        replaced += before;
        replaced += if is_part { &number } else { normalized };
        rest = after;
    }
    replaced + rest
}

/// Replaces the durations in `live after 1.2 ms`, which vary, by 0.0.
pub(crate) fn without_times(text: &str) -> String {
    let mut parts = text.split("live after ");
    let mut normalized = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        normalized += "live after ";
        let number = part.find(|character: char| !character.is_ascii_digit() && character != '.').unwrap_or(part.len());
        normalized += if number > 0 { "0.0" } else { "" };
        normalized += &part[number..];
    }
    normalized
}

/// Names of ports and their normalized values, with five digits like ephemeral ports.
const PORT_NAMES: &[(&str, &str)] = &[
    ("port", "18080"),
    ("other", "18081"),
    ("http", "18082"),
    ("open", "18083"),
    ("guarded", "18084"),
    ("datagrams", "18085"),
    ("dns", "18086"),
    ("vault", "18200"),
    ("echo", "19000"),
    ("status", "18100"),
    ("admin", "18101"),
];

const NORMALIZED_ADDRESS: &str = "127.100.100.100";
const NORMALIZED_NEXT_ADDRESS: &str = "127.100.100.101";

/// Number of values of an octet: all have three digits, and adding this number again gives the next address.
const OCTET_VALUES: u8 = 77;

/// An address per test process, with three digits in each octet. All of 127.0.0.0/8 is local, and outgoing connections
/// use 127.0.0.1, so only sockets of this test process use the address.
static ADDRESS: LazyLock<Ipv4Addr> = LazyLock::new(|| {
    let number = std::process::id();
    let values = u32::from(OCTET_VALUES);
    let octet = |divisor: u32| 100 + u8::try_from(number / divisor % values).expect("the remainder is less than 77");
    let address = Ipv4Addr::new(127, octet(values * values), octet(values), octet(1));
    // Other systems than Linux may only have 127.0.0.1.
    assert!(TcpListener::bind((address, 0)).is_ok(), "cannot listen on {address}; these tests need Linux");
    address
});

/// The address of this test process, for servers of tests without a [`Site`], or that listen before it exists.
pub(crate) fn own_address() -> Ipv4Addr {
    *ADDRESS
}

/// A certificate with its key, and an unrelated key.
struct TestCertificate {
    certificate: String,
    key: String,
    another_key: String,
}

static CERTIFICATES: LazyLock<TestCertificate> = LazyLock::new(|| {
    let key = KeyPair::generate().expect("a key can be generated");
    let params = CertificateParams::new(vec!["secure.example".to_owned()]).expect("the name is valid");
    let certificate = params.self_signed(&key).expect("self-signing succeeds");
    let another_key = KeyPair::generate().expect("a key can be generated").serialize_pem();
    TestCertificate { certificate: certificate.pem(), key: key.serialize_pem(), another_key }
});

/// All files below a folder by relative path, sorted.
pub(crate) fn files_below(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut unread = vec![folder.to_owned()];
    while let Some(next) = unread.pop() {
        for entry in fs::read_dir(&next).unwrap_or_else(|error| panic!("{}: {error}", next.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                unread.push(path);
            } else {
                let name = path.strip_prefix(folder).expect("the path is below the folder").display().to_string();
                files.insert(name, fs::read(&path).unwrap());
            }
        }
    }
    files
}
