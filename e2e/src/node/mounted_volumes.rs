//! The volumes of one Pod in its root: filled before it starts, and kept up to date while it runs.

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

/// How often volumes are refreshed. The kubelet takes about a minute.
const REFRESH: Duration = Duration::from_secs(20);

pub(crate) struct MountedVolumes<'a> {
    host: &'a NodeContext,
    pod: &'a Pod,
    plan: &'a PodPlan,
    sandbox: &'a Sandbox,
    tokens: Tokens,
    published: Vec<(PublishedFolder, &'a [FileSource])>,
}

impl<'a> MountedVolumes<'a> {
    pub(crate) fn new(
        host: &'a NodeContext,
        pod: &'a Pod,
        plan: &'a PodPlan,
        sandbox: &'a Sandbox,
    ) -> MountedVolumes<'a> {
        MountedVolumes { host, pod, plan, sandbox, tokens: Tokens::default(), published: Vec::new() }
    }

    /// Fills all volumes. The error says what is missing; the call is to be repeated until it succeeds.
    pub(crate) async fn mount(&mut self) -> Result<(), String> {
        let root = self.sandbox.root();
        let group = self.plan.privileges.group_of_volumes;
        self.published.clear();
        for mount in &self.plan.mounts {
            let folder = root.join(&mount.path);
            match &mount.content {
                VolumeContent::Empty => empty(&folder, group).map_err(|error| format!("{error:#}"))?,
                VolumeContent::Files { sources, mode } => {
                    let files = self.reader().read(sources).await?;
                    let access = Access { mode: *mode, group };
                    let published =
                        PublishedFolder::new(folder, access, files).map_err(|error| format!("{error:#}"))?;
                    self.published.push((published, sources));
                }
            }
        }
        environment::write_name_files(&root, self.pod, self.sandbox.address).map_err(|error| format!("{error:#}"))
    }

    /// Keeps the volumes up to date, forever.
    pub(crate) async fn refresh(&mut self) {
        loop {
            sleep(REFRESH).await;
            let mut published = std::mem::take(&mut self.published);
            for (published, sources) in &mut published {
                // The files of deleted objects are kept, as by the kubelet.
                let Ok(files) = self.reader().read(sources).await else { continue };
                if let Err(error) = published.update(files) {
                    crate::progress::report(format_args!("Cannot update a volume: {error:#}"));
                }
            }
            self.published = published;
        }
    }

    fn reader(&mut self) -> VolumeReader<'_> {
        let (client, address) = (&self.host.client, self.sandbox.address);
        VolumeReader { client, pod: self.pod, address, tokens: &mut self.tokens }
    }
}

/// A folder that all users in the Pod may write to.
fn empty(folder: &Path, group: Option<u32>) -> Result<()> {
    let cannot = || format!("cannot make {}", folder.display());
    fs::create_dir_all(folder).with_context(cannot)?;
    chown(folder, None, group).with_context(cannot)?;
    fs::set_permissions(folder, Permissions::from_mode(0o777)).with_context(cannot)
}
