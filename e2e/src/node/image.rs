//! Images of the node, which are folders and programs on this machine; a Pod's root is filled from one of them.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Paths of the images.
#[derive(Clone, Debug)]
pub(crate) struct Images {
    /// The echo server of the conformance suite, for all of its tags.
    pub(crate) echo_basic: PathBuf,
    /// The output of `make image-root-test`, for all tags, so that manifests can be tested unchanged.
    pub(crate) portico: PathBuf,
}

/// An image of a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Image {
    content: ImageContent,
    pub(crate) entrypoint: &'static str,
    /// The user of its program, unless the Pod sets one.
    pub(crate) user: u32,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum ImageContent {
    /// A static program, which becomes the entry point.
    Program(PathBuf),
    Folder(PathBuf),
}

/// The user ID of "nonroot" in distroless images.
const NONROOT_UID: u32 = 65532;

impl Images {
    /// The image of this name. The error says why it is missing.
    pub(crate) fn find(&self, name: &str) -> Result<Image, String> {
        let last_segment = name.rsplit('/').next().unwrap_or(name);
        match last_segment.split([':', '@']).next() {
            Some("echo-basic") => {
                let content = ImageContent::Program(self.echo_basic.clone());
                Ok(Image { content, entrypoint: "/echo-basic", user: NONROOT_UID })
            }
            Some("portico") => self.portico(),
            _ => Err(format!("there is no image `{name}` on this node, only echo-basic and portico with any tag")),
        }
    }

    fn portico(&self) -> Result<Image, String> {
        let entrypoint = "/usr/bin/portico";
        if !self.portico.join(&entrypoint[1..]).exists() {
            return Err(format!("{} is not built yet; run `make image-root-test`", self.portico.display()));
        }
        Ok(Image { content: ImageContent::Folder(self.portico.clone()), entrypoint, user: NONROOT_UID })
    }
}

impl Image {
    /// Adds the image's files to the root of a Pod.
    pub(crate) fn fill(&self, root: &Path) -> Result<()> {
        match &self.content {
            ImageContent::Program(program) => link_or_copy(program, &root.join(&self.entrypoint[1..])),
            ImageContent::Folder(folder) => copy_tree(folder, root),
        }
    }
}

fn copy_tree(from: &Path, to: &Path) -> Result<()> {
    let message = || format!("cannot copy {} to {}", from.display(), to.display());
    for entry in fs::read_dir(from).with_context(message)? {
        let entry = entry.with_context(message)?;
        let (file_type, target) = (entry.file_type().with_context(message)?, to.join(entry.file_name()));
        if file_type.is_dir() {
            fs::create_dir_all(&target).with_context(message)?;
            let mode = entry.metadata().with_context(message)?.permissions().mode();
            fs::set_permissions(&target, Permissions::from_mode(mode)).with_context(message)?;
            copy_tree(&entry.path(), &target)?;
        } else if file_type.is_symlink() {
            symlink(fs::read_link(entry.path()).with_context(message)?, &target).with_context(message)?;
        } else {
            link_or_copy(&entry.path(), &target)?;
        }
    }
    Ok(())
}

/// Hard-links a file, because programs are large and there are many Pods; copies it across file systems.
fn link_or_copy(from: &Path, to: &Path) -> Result<()> {
    let linked = fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop));
    linked.with_context(|| format!("cannot copy {} to {}", from.display(), to.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_tags_of_an_image_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let images = Images { echo_basic: PathBuf::from("/cache/echo"), portico: folder.path().to_owned() };
        for name in [
            "gcr.io/k8s-staging-gateway-api/echo-basic:v20231214-v1.0.0-140-gf544a46e",
            "registry.example/gateway-api/conformance/echo-basic:v0.1.0",
            "echo-basic",
            "a/echo-basic@sha256:0123",
        ] {
            assert_eq!(
                images.find(name).unwrap().content,
                ImageContent::Program(PathBuf::from("/cache/echo")),
                "{name}"
            );
        }
        for (name, expected) in [
            ("echo-basic/nginx:1", "there is no image `echo-basic/nginx:1`"),
            ("echo-advanced:v1", "there is no image"),
            ("portico:e2e", "run `make image-root-test`"),
            ("registry.example/portico:0.1.0", "run `make image-root-test`"),
        ] {
            let error = images.find(name).unwrap_err();
            assert!(error.contains(expected), "{name}: {error}");
        }
    }

    #[test]
    fn root_has_the_files_and_modes_of_the_image() {
        let folder = tempfile::tempdir().unwrap();
        let (image, root) = (folder.path().join("image"), folder.path().join("root"));
        fs::create_dir_all(image.join("usr/bin")).unwrap();
        fs::create_dir_all(image.join("tmp")).unwrap();
        fs::set_permissions(image.join("tmp"), Permissions::from_mode(0o1777)).unwrap();
        fs::write(image.join("usr/bin/portico"), "program").unwrap();
        fs::create_dir(&root).unwrap();
        let images = Images { echo_basic: PathBuf::new(), portico: image };
        images.find("portico:e2e").unwrap().fill(&root).unwrap();
        assert_eq!(fs::read_to_string(root.join("usr/bin/portico")).unwrap(), "program");
        assert_eq!(fs::metadata(root.join("tmp")).unwrap().permissions().mode() & 0o7777, 0o1777);
    }
}
