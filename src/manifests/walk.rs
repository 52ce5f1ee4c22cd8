//! From the paths of the command line to the files under them, in sorted order.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::place::Place;
use super::refusal::Refusal;
use super::text::{Stamp, Unread};

/// A path of the command line.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    /// It was a folder when last seen: if it vanishes, its objects stay.
    was_folder: bool,
}

/// What is there now.
#[derive(Debug, Default)]
pub(super) struct Listing {
    max_files: usize,
    /// Sorted by path; a file that is reached by two names is listed under the first.
    pub(super) files: Vec<Found>,
    /// Folders whose events matter.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Folders that could not be read to the end: what was known below them stays.
    pub(super) kept: Vec<PathBuf>,
    pub(super) refusals: Vec<Refusal>,
}

#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: Arc<Path>,
    pub(super) stamp: Stamp,
    /// A pipe given by name (`<(helm template …)`): it can be read once only.
    pub(super) pipe: bool,
}

impl Root {
    pub(super) fn new(path: PathBuf) -> Self {
        Root { path, was_folder: false }
    }
}

/// Lists all files below the roots.
pub(super) fn list(roots: &mut [Root]) -> Listing {
    list_at_most(MAX_FILES, roots)
}

fn list_at_most(max_files: usize, roots: &mut [Root]) -> Listing {
    let mut listing = Listing { max_files, ..Listing::default() };
    for root in roots {
        listing.root(root);
    }
    listing.files.sort_by(|left, right| left.path.cmp(&right.path));
    let mut seen = HashSet::new();
    listing.files.retain(|found| seen.insert(found.stamp.identity()));
    listing
}

impl Listing {
    fn root(&mut self, root: &mut Root) {
        let metadata = match fs::metadata(&root.path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.folders.insert(nearest_existing(&root.path));
                self.missing_root(root, &error);
                return;
            }
        };
        root.was_folder = metadata.is_dir();
        if !metadata.is_dir() {
            self.folders.insert(parent(&root.path));
            self.follow_file(&root.path);
            self.found(&root.path, &metadata, true);
            return;
        }
        self.follow_links(&root.path);
        let before = (self.files.len(), self.refusals.len());
        self.folder(&root.path, &metadata, &mut Vec::new());
        // A folder that went while we looked into it did not lose its files one by one. The event of it is on its way.
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        if fs::metadata(&root.path).ok().as_ref().map(identity) != Some(identity(&metadata)) {
            self.kept.push(root.path.clone());
        }
        if before == (self.files.len(), self.refusals.len()) {
            let message = "no manifests in this folder".to_owned();
            let remedy = "put files that end in .yaml, .yml or .json into it";
            self.refuse(&root.path, "EmptyFolder", message, remedy, Refusal::into_warning);
        }
    }

    fn missing_root(&mut self, root: &Root, error: &io::Error) {
        let Unread { message, remedy, .. } = Unread::of(error);
        if error.kind() != io::ErrorKind::NotFound {
            self.kept.push(root.path.clone());
            self.refuse(&root.path, "Unreadable", message, remedy, |refusal| refusal);
        } else if root.was_folder {
            self.kept.push(root.path.clone());
            self.refuse(
                &root.path,
                "Vanished",
                "the folder is gone".to_owned(),
                "bring it back, or restart without it",
                |refusal| Refusal { meanwhile: Some("Its objects stay as they last were.".to_owned()), ..refusal },
            );
        } else {
            let message = "no such file or folder".to_owned();
            self.refuse(&root.path, "NotFound", message, "correct the path, or create it", |refusal| refusal);
        }
    }

    /// `above` are the folders we are in, by identity: a link back to one of them is a loop.
    fn folder(&mut self, path: &Path, metadata: &Metadata, above: &mut Vec<(u64, u64)>) {
        let identity = (metadata.dev(), metadata.ino());
        if above.contains(&identity) || above.len() >= MAX_DEPTH {
            let message = "the folder contains itself through a symbolic link".to_owned();
            self.refuse(path, "Loop", message, "remove the link", |refusal| refusal);
            return;
        }
        self.folders.insert(path.to_owned());
        let names = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))).collect()
        });
        let mut names: Vec<(_, FileType)> = match names {
            Ok(names) => names,
            Err(error) if error.kind() == io::ErrorKind::NotFound && !above.is_empty() => return,
            Err(error) => {
                let Unread { message, remedy, .. } = Unread::of(&error);
                self.kept.push(path.to_owned());
                self.refuse(path, "Unreadable", message, remedy, |refusal| refusal);
                return;
            }
        };
        names.sort_by(|left, right| left.0.cmp(&right.0));
        above.push(identity);
        for (name, file_type) in names {
            // Hidden files belong to editors, and `..data` to the ConfigMap volume whose links lead into it.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let is_manifest = is_manifest(Path::new(&name));
            if !is_manifest && !file_type.is_dir() && !file_type.is_symlink() {
                continue;
            }
            if self.files.len() >= self.max_files {
                self.kept.push(path.to_owned());
                let message = format!("more than {} files; those from here on are not read", self.max_files);
                self.refuse(
                    path,
                    "TooManyFiles",
                    message,
                    "put many objects into one file, divided by ---",
                    |refusal| refusal,
                );
                break;
            }
            let path = path.join(&name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.folder(&path, &metadata, above),
                Ok(metadata) if is_manifest => {
                    if file_type.is_symlink() {
                        self.follow_file(&path);
                    }
                    self.found(&path, &metadata, false);
                }
                Err(error) if is_manifest => self.lost(&path, file_type, &error),
                _ => {}
            }
        }
        above.pop();
    }

    fn found(&mut self, path: &Path, metadata: &Metadata, by_name: bool) {
        let file_type = metadata.file_type();
        let pipe = by_name && (file_type.is_fifo() || file_type.is_char_device());
        if metadata.is_file() || pipe {
            self.files.push(Found { path: Arc::from(path), stamp: Stamp::of(metadata), pipe });
        } else {
            // Opening a pipe waits for its writer, for ever if there is none.
            let message = "this is a pipe, a socket or a device".to_owned();
            self.refuse(path, "NotAFile", message, "put a regular file here", |refusal| refusal);
        }
    }

    /// A name without a file behind it: deleted since the folder was read, or a link that leads nowhere.
    fn lost(&mut self, path: &Path, file_type: FileType, error: &io::Error) {
        let Unread { message, remedy, .. } = Unread::of(error);
        match error.kind() {
            io::ErrorKind::NotFound if !file_type.is_symlink() => {}
            io::ErrorKind::NotFound => {
                let message = "the symbolic link leads nowhere".to_owned();
                self.refuse(path, "NotFound", message, "correct or remove the link", |refusal| refusal);
            }
            _ => {
                self.kept.push(path.to_owned());
                self.refuse(path, "Unreadable", message, remedy, |refusal| refusal);
            }
        }
    }

    /// Edits of a file behind links show up where the file is.
    fn follow_file(&mut self, path: &Path) {
        if let Ok(target) = fs::canonicalize(path) {
            self.folders.insert(parent(&target));
        }
        self.follow_links(path);
    }

    /// Each link in a path may be turned to something else: a checkout that is swapped as a whole is one in the middle.
    fn follow_links(&mut self, path: &Path) {
        let mut waiting = vec![path.to_owned()];
        for _ in 0..MAX_LINKS {
            let Some(path) = waiting.pop() else { return };
            for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
                let Ok(target) = fs::read_link(ancestor) else { continue };
                let (folder, rest) = (parent(ancestor), path.strip_prefix(ancestor).unwrap_or(Path::new("")));
                waiting.push(folder.join(target).join(rest));
                self.folders.insert(folder);
            }
        }
    }

    fn refuse(
        &mut self,
        path: &Path,
        reason: &'static str,
        message: String,
        remedy: &str,
        adjust: impl FnOnce(Refusal) -> Refusal,
    ) {
        let refusal = Refusal::of_file(Place::whole(Arc::from(path)), reason, message, remedy);
        self.refusals.push(adjust(refusal));
    }
}

/// Whether a file or link of this path would be listed in its folder.
pub(super) fn is_listed(path: &Path) -> bool {
    let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !hidden && is_manifest(path)
}

fn is_manifest(name: &Path) -> bool {
    let extension = name.extension().and_then(|extension| extension.to_str());
    extension.is_some_and(|extension| EXTENSIONS.iter().any(|known| known.eq_ignore_ascii_case(extension)))
}

fn parent(path: &Path) -> PathBuf {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}

fn nearest_existing(path: &Path) -> PathBuf {
    let above = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir());
    above.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// Links that are followed from one path. The operating system gives up after as many.
const MAX_LINKS: usize = 40;
const EXTENSIONS: &[&str] = &["yaml", "yml", "json"];
const MAX_FILES: usize = 50_000;
/// Folders in folders. Links can make a tree endless without a loop that is seen.
const MAX_DEPTH: usize = 40;

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Relative paths of the files found, and `reason path` of the refusals.
    fn listed(root: &Path, paths: &[&str]) -> (Vec<String>, Vec<String>) {
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let mut roots: Vec<_> = paths.iter().map(|path| Root::new(root.join(path))).collect();
        let listing = list(&mut roots);
        let refusals =
            listing.refusals.iter().map(|refusal| format!("{} {}", refusal.reason, relative(&refusal.place.file)));
        (listing.files.iter().map(|found| relative(&found.path)).collect(), refusals.collect())
    }

    #[test]
    fn folders_are_walked_in_order_and_never_for_ever() {
        let temp = tempfile::tempdir().unwrap();
        let root = temp.path();
        for folder in ["a/b", "empty", "volume/..2026_1", "a/.git", "loop/inner"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        for file in [
            "z.yaml",
            "a/2.yml",
            "a/1.JSON",
            "a/b/x.yaml",
            "a/readme.md",
            "a/.hidden.yaml",
            "a/.git/c.yaml",
            "volume/..2026_1/key.yaml",
        ] {
            fs::write(root.join(file), "").unwrap();
        }
        symlink("..2026_1", root.join("volume/..data")).unwrap();
        symlink("..data/key.yaml", root.join("volume/key.yaml")).unwrap();
        symlink("..", root.join("loop/inner/back")).unwrap();
        symlink("nowhere.yaml", root.join("loop/dangling.yaml")).unwrap();
        let socket = std::os::unix::net::UnixListener::bind(root.join("loop/socket.yaml")).unwrap();

        let cases: &[(&[&str], &[&str], &[&str])] = &[
            (&["a"], &["a/1.JSON", "a/2.yml", "a/b/x.yaml"], &[]),
            (&["z.yaml", "a"], &["a/1.JSON", "a/2.yml", "a/b/x.yaml", "z.yaml"], &[]),
            (&["a", "a/2.yml", "a"], &["a/1.JSON", "a/2.yml", "a/b/x.yaml"], &[]),
            (&["a/readme.md"], &["a/readme.md"], &[]),
            (&["empty"], &[], &["EmptyFolder empty"]),
            (&["missing", "missing.yaml"], &[], &["NotFound missing", "NotFound missing.yaml"]),
            (&["volume"], &["volume/key.yaml"], &[]),
            (&["loop"], &[], &["NotFound loop/dangling.yaml", "Loop loop/inner/back", "NotAFile loop/socket.yaml"]),
        ];
        for (paths, files, refusals) in cases {
            let (found, refused) = listed(root, paths);
            assert_eq!(
                (found, refused),
                (files.iter().map(ToString::to_string).collect(), refusals.iter().map(ToString::to_string).collect()),
                "{paths:?}"
            );
        }
        drop(socket);
    }

    #[test]
    fn folders_whose_events_matter_are_known() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        for folder in ["a/b", "far"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("far/x.yaml"), "").unwrap();
        symlink(root.join("far/x.yaml"), root.join("a/x.yaml")).unwrap();
        let folders = |path: &str| list(&mut [Root::new(root.join(path))]).folders;
        let expected = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(folders("a"), expected(&["a", "a/b", "far"]));
        assert_eq!(folders("far/x.yaml"), expected(&["far"]));
        // A checkout that is swapped by turning a link.
        for folder in ["trees/v1/shop", "git"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        symlink("../trees/head", root.join("git/current")).unwrap();
        symlink("v1", root.join("trees/head")).unwrap();
        fs::write(root.join("trees/v1/shop/y.yaml"), "").unwrap();
        let links: Vec<_> = ["git", "git/../trees"].iter().map(|name| root.join(name)).collect();
        let mut swapped = BTreeSet::from_iter(links.clone());
        swapped.insert(root.join("git/current/shop"));
        assert_eq!(folders("git/current/shop"), swapped);
        let mut swapped = BTreeSet::from_iter(links);
        swapped.extend([root.join("git/current/shop"), root.join("trees/v1/shop")]);
        assert_eq!(folders("git/current/shop/y.yaml"), swapped);
        symlink("loop", root.join("far/loop")).unwrap();
        assert_eq!(folders("far/loop"), expected(&["far"]), "links in a circle end");
        assert_eq!(folders("far/none/deep"), expected(&["far"]));
    }

    #[test]
    fn there_is_an_end_to_the_number_of_files() {
        let temp = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yaml", "c.yaml"] {
            fs::write(temp.path().join(file), "").unwrap();
        }
        let at_most = |files| list_at_most(files, &mut [Root::new(temp.path().to_owned())]);
        assert!(at_most(3).refusals.is_empty());
        let listing = at_most(2);
        assert_eq!((listing.files.len(), listing.refusals.len(), listing.refusals[0].reason), (2, 1, "TooManyFiles"));
        assert_eq!(listing.kept, [temp.path()], "what was known of the others stays");
    }

    #[test]
    fn a_folder_that_vanishes_keeps_what_was_in_it() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("folder");
        fs::create_dir(&path).unwrap();
        let mut roots = [Root::new(path.clone())];
        assert!(list(&mut roots).kept.is_empty());
        fs::remove_dir(&path).unwrap();
        let listing = list(&mut roots);
        assert_eq!((listing.kept, listing.refusals[0].reason), (vec![path], "Vanished"));
    }
}
