//! Starts `slapd` for a test, with a few users and groups, optionally with TLS.

use std::net::Ipv4Addr;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;
use tokio::net::TcpStream;

use crate::harness::polling::becomes_true;
use crate::harness::ports::free_port;
use crate::redis::server::Authority;

const SETTINGS: &str = "\
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
database mdb
suffix dc=example,dc=com
rootdn cn=portico,dc=example,dc=com
rootpw only-for-tests
directory directory
overlay memberof
";

/// The server maintains `memberOf` itself when groups change; here, they are loaded with it.
const ENTRIES: &str = "\
dn: dc=example,dc=com
objectClass: domain
dc: example

dn: ou=users,dc=example,dc=com
objectClass: organizationalUnit
ou: users

dn: uid=anna,ou=users,dc=example,dc=com
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: Example
userPassword: annas-password
memberOf: cn=staff,dc=example,dc=com
memberOf: cn=night,dc=example,dc=com

dn: uid=bert,ou=users,dc=example,dc=com
objectClass: inetOrgPerson
uid: bert
cn: Bert
sn: Example
userPassword: berts-password

dn: uid=a\\2Cb\\2Bc,ou=users,dc=example,dc=com
objectClass: inetOrgPerson
uid: a,b+c
cn: Comma
sn: Example
userPassword: comma
";

/// A running server, which is stopped on drop.
pub(crate) struct SlapdProcess {
    pub(crate) port: u16,
    /// The port with TLS from the beginning; 0 without TLS.
    pub(crate) tls_port: u16,
    folder: TempDir,
    process: Child,
}

impl SlapdProcess {
    pub(crate) async fn start() -> SlapdProcess {
        SlapdProcess::spawn_until_listening(folder_with(SETTINGS), false).await
    }

    /// Starts a server with TLS on a port of its own and with StartTLS, and a certificate for this name.
    pub(crate) async fn start_with_tls(authority: &Authority, name: &str) -> SlapdProcess {
        let (certificate, key) = authority.issue(name);
        let folder = folder_with(&format!("TLSCertificateFile cert\nTLSCertificateKeyFile key\n{SETTINGS}"));
        std::fs::write(folder.path().join("cert"), certificate).unwrap();
        std::fs::write(folder.path().join("key"), key).unwrap();
        SlapdProcess::spawn_until_listening(folder, true).await
    }

    /// Starts the server on free ports. Retries with other ports if another process has taken them in the meantime.
    async fn spawn_until_listening(folder: TempDir, has_tls: bool) -> SlapdProcess {
        for _ in 0..10 {
            let (port, tls_port) =
                (free_port(Ipv4Addr::LOCALHOST), if has_tls { free_port(Ipv4Addr::LOCALHOST) } else { 0 });
            let mut process = spawn(&folder, port, tls_port);
            if is_listening(port, &mut process).await {
                return SlapdProcess { port, tls_port, folder, process };
            }
        }
        panic!("slapd does not start; run it with -d 1 to see why");
    }

    /// Stops the server, if it runs, and starts it again on the same port.
    pub(crate) async fn restart(&mut self) {
        self.end();
        self.process = spawn(&self.folder, self.port, self.tls_port);
        assert!(is_listening(self.port, &mut self.process).await, "slapd does not start again on its port");
    }
}

impl SlapdProcess {
    /// Ends the server, which may already have ended.
    pub(crate) fn end(&mut self) {
        let _ended = self.process.kill().and_then(|()| self.process.wait());
    }
}

impl Drop for SlapdProcess {
    fn drop(&mut self) {
        self.end();
    }
}

/// A folder with these settings and a database with the entries.
fn folder_with(settings: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("slapd.conf"), settings).unwrap();
    std::fs::write(folder.path().join("entries.ldif"), ENTRIES).unwrap();
    std::fs::create_dir(folder.path().join("directory")).unwrap();
    let loaded = Command::new("/usr/sbin/slapadd")
        .args(["-f", "slapd.conf", "-l", "entries.ldif"])
        .current_dir(folder.path())
        .output()
        .unwrap_or_else(|error| panic!("slapadd: {error}; `scripts/setup.sh test` installs slapd"));
    assert!(loaded.status.success(), "{}", String::from_utf8_lossy(&loaded.stderr));
    folder
}

/// Debug level 0 keeps the server in the foreground.
fn spawn(folder: &TempDir, port: u16, tls_port: u16) -> Child {
    let mut addresses = format!("ldap://127.0.0.1:{port}");
    if tls_port != 0 {
        addresses += &format!(" ldaps://127.0.0.1:{tls_port}");
    }
    Command::new("/usr/sbin/slapd")
        .args(["-d", "0", "-f", "slapd.conf", "-h", &addresses])
        .current_dir(folder.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Waits until the server accepts connections. False if it ends or does not start in time.
async fn is_listening(port: u16, process: &mut Child) -> bool {
    let mut has_ended = || process.try_wait().unwrap().is_some();
    let listens_or_has_ended = becomes_true(|| {
        let has_ended = has_ended();
        async move { has_ended || TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.is_ok() }
    })
    .await;
    listens_or_has_ended && !has_ended()
}
