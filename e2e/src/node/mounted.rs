//! The volumes of one Pod, in its root: filled before it starts, kept up to date while it runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::sleep;

use super::files::{Access, Published};
use super::plan::Plan;
use super::sandbox::Sandbox;
use super::token::Tokens;
use super::volume::{Content, Reader, Source};
use super::{Host, environment};

/// How often volumes are compared with what they are made from. The kubelet takes about a minute, too.
const REFRESH: Duration = Duration::from_secs(20);

pub(crate) struct Mounted<'a> {
    host: &'a Host,
    pod: &'a Pod,
    plan: &'a Plan,
    sandbox: &'a Sandbox,
    tokens: Tokens,
    published: Vec<(Published, &'a [Source])>,
}

impl<'a> Mounted<'a> {
    pub(crate) fn new(host: &'a Host, pod: &'a Pod, plan: &'a Plan, sandbox: &'a Sandbox) -> Mounted<'a> {
        Mounted { host, pod, plan, sandbox, tokens: Tokens::default(), published: Vec::new() }
    }

    /// Fills all volumes. The error says what is missing; call it again until there is none.
    pub(crate) async fn mount(&mut self) -> Result<(), String> {
        let root = self.sandbox.root();
        let group = self.plan.privileges.group_of_volumes;
        self.published.clear();
        for mount in &self.plan.mounts {
            let folder = root.join(&mount.path);
            match &mount.content {
                Content::Empty => empty(&folder, group).map_err(|error| format!("{error:#}"))?,
                Content::Files { sources, mode } => {
                    let files = self.reader().read(sources).await?;
                    let access = Access { mode: *mode, group };
                    let published = Published::new(folder, access, files).map_err(|error| format!("{error:#}"))?;
                    self.published.push((published, sources));
                }
            }
        }
        environment::names(&root, self.pod, self.sandbox.address).map_err(|error| format!("{error:#}"))
    }

    /// Follows what the volumes are made from. Does not end.
    pub(crate) async fn refresh(&mut self) {
        loop {
            sleep(REFRESH).await;
            let mut published = std::mem::take(&mut self.published);
            for (published, sources) in &mut published {
                // What has gone stays as it was, as on every node.
                let Ok(files) = self.reader().read(sources).await else { continue };
                if let Err(error) = published.update(files) {
                    crate::progress::say(format_args!("A volume is not up to date: {error:#}"));
                }
            }
            self.published = published;
        }
    }

    fn reader(&mut self) -> Reader<'_> {
        let (client, address) = (&self.host.client, self.sandbox.address);
        Reader { client, pod: self.pod, address, tokens: &mut self.tokens }
    }
}

/// A folder that everybody in the Pod may write to.
fn empty(folder: &Path, group: Option<u32>) -> Result<()> {
    let cannot = || format!("cannot make {}", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    chown(folder, None, group).with_context(cannot)?;
    fs::set_permissions(folder, Permissions::from_mode(0o777)).with_context(cannot)
}
