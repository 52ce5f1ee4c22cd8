//! Debian's nginx and Varnish as processes, with the configurations of the results in the package of the tests.

use std::net::TcpStream;
use std::process::Command;

use crate::harness::eventually;
use crate::harness::program::Program;
use crate::harness::site::Site;

/// A cache that listens on a port of 127.0.0.1, and requests responses from another one.
pub(super) struct OtherCache {
    /// With its version.
    pub(super) name: String,
    _process: Program,
}

impl OtherCache {
    pub(super) fn nginx(site: &Site, port: u16, origin: u16) -> OtherCache {
        let config = NGINX.replace("PORT", &port.to_string()).replace("ORIGIN", &origin.to_string());
        site.save("nginx/nginx.conf", &config);
        let mut nginx = Command::new("/usr/sbin/nginx");
        nginx.arg("-p").arg(site.path("nginx")).args(["-c", "nginx.conf", "-e", "stderr"]);
        // It ends as `nginx version: nginx/1.22.1`.
        OtherCache::start(nginx, port, "-v", |text| format!("nginx {}", text.rsplit('/').next().unwrap_or_default()))
    }

    pub(super) fn varnish(site: &Site, port: u16, origin: u16) -> OtherCache {
        let mut varnish = Command::new("/usr/sbin/varnishd");
        let [listen, origin] = [port, origin].map(|port| format!("127.0.0.1:{port}"));
        varnish.args(["-F", "-j", "none", "-a", &listen, "-b", &origin, "-s", "malloc,64M", "-n"]);
        varnish.arg(site.path("varnish").canonicalize().unwrap_or_else(|_| site.path("varnish")));
        varnish.args(["-p", "default_ttl=0", "-p", "default_grace=0", "-p", "default_keep=3600"]);
        // It begins as `varnishd (varnish-7.1.1 revision …)`.
        let name = |text: &str| {
            let version = text.split("(varnish-").nth(1).and_then(|rest| rest.split(' ').next());
            format!("Varnish {}", version.unwrap_or_default())
        };
        OtherCache::start(varnish, port, "-V", name)
    }

    fn start(command: Command, port: u16, version: &str, name: impl Fn(&str) -> String) -> OtherCache {
        let program = command.get_program().to_owned();
        let output = Command::new(&program).arg(version).output();
        let output = output
            .unwrap_or_else(|error| panic!("{}: {error}; `scripts/setup.sh full` installs it", program.display()));
        let name = name(String::from_utf8_lossy(&output.stderr).trim());
        // Both have a child process each.
        let process = Program::start_group(command);
        eventually(&format!("{name} listens"), || TcpStream::connect(("127.0.0.1", port)).ok());
        OtherCache { name, _process: process }
    }
}

/// All files are in the folder of the site. As root, the processes keep its rights, because the folder is root's.
const NGINX: &str = "daemon off;
user root;
worker_processes 1;
pid nginx.pid;
error_log stderr crit;
events {}
http {
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    proxy_cache_path cache keys_zone=cache:8m;
    server {
        listen 127.0.0.1:PORT;
        location / {
            proxy_pass http://127.0.0.1:ORIGIN;
            proxy_cache cache;
            proxy_cache_revalidate on;
        }
    }
}
";
