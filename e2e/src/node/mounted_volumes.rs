//! The volumes of one Pod, as folders below its root folder: filled before the Pod starts, and kept up to date while it
//! runs.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Pod;
use tokio::time::sleep;

use super::plan::PodPlan;
use super::published_folder::{Access, PublishedFolder};
use super::sandbox::Sandbox;
use super::token::Tokens;
use super::volume::{FileSource, VolumeContent, VolumeReader};
use super::{NodeContext, environment};

/// How often volumes are refreshed. The kubelet refreshes them about once a minute.
const REFRESH_INTERVAL: Duration = Duration::from_secs(20);

/// The volumes of one Pod.
pub(crate) struct MountedVolumes<'a> {
    node: &'a NodeContext,
    pod: &'a Pod,
    plan: &'a PodPlan,
    sandbox: &'a Sandbox,
    tokens: Tokens,
    /// The folders whose files are kept up to date, with the sources of the files.
    published: Vec<(PublishedFolder, &'a [FileSource])>,
}

impl<'a> MountedVolumes<'a> {
    pub(crate) fn new(
        node: &'a NodeContext,
        pod: &'a Pod,
        plan: &'a PodPlan,
        sandbox: &'a Sandbox,
    ) -> MountedVolumes<'a> {
        MountedVolumes { node, pod, plan, sandbox, tokens: Tokens::default(), published: Vec::new() }
    }

    /// Fills all volumes, and writes `hosts`, `hostname` and `resolv.conf` in `/etc`. The error says what is missing;
    /// the call is to be repeated until it succeeds.
    pub(crate) async fn mount(&mut self) -> Result<(), String> {
        let root = self.sandbox.root();
        let group = self.plan.privileges.group_of_volumes;
        self.published.clear();
        for mount in &self.plan.mounts {
            let folder = root.join(&mount.path);
            match &mount.content {
                VolumeContent::Empty => create_empty_dir(&folder, group).map_err(|error| format!("{error:#}"))?,
                VolumeContent::Files { sources, mode } => {
                    let files = self.reader().read(sources).await?;
                    let access = Access { mode: *mode, group };
                    let published =
                        PublishedFolder::new(folder, access, files).map_err(|error| format!("{error:#}"))?;
                    self.published.push((published, sources));
                }
            }
        }
        environment::write_etc_files(&root, self.pod, self.sandbox.address).map_err(|error| format!("{error:#}"))
    }

    /// Keeps the volumes up to date, forever.
    pub(crate) async fn refresh(&mut self) {
        loop {
            sleep(REFRESH_INTERVAL).await;
            let mut published = std::mem::take(&mut self.published);
            for (folder, sources) in &mut published {
                // The files of deleted objects are kept, as by the kubelet.
                let Ok(files) = self.reader().read(sources).await else { continue };
                if let Err(error) = folder.update(files) {
                    crate::progress::report(format_args!("Cannot update a volume: {error:#}"));
                }
            }
            self.published = published;
        }
    }

    fn reader(&mut self) -> VolumeReader<'_> {
        let (client, address) = (&self.node.client, self.sandbox.address);
        VolumeReader { client, pod: self.pod, address, tokens: &mut self.tokens }
    }
}

/// Creates a folder that all users in the Pod may write to.
fn create_empty_dir(folder: &Path, group: Option<u32>) -> Result<()> {
    let message = || format!("cannot make {}", folder.display());
    fs::create_dir_all(folder).with_context(message)?;
    chown(folder, None, group).with_context(message)?;
    fs::set_permissions(folder, Permissions::from_mode(0o777)).with_context(message)
}
