//! Lists the files below the paths of the command line, in sorted order, and the folders to watch for changes.

use std::collections::{BTreeSet, HashSet};
use std::fs::{self, FileType, Metadata};
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::diagnostic::ManifestDiagnostic;
use super::position::FilePosition;
use super::text::{FileReadError, FileStamp};
use crate::diagnostic::Diagnostic;

/// A path given on the command line.
#[derive(Debug)]
pub(super) struct ManifestRoot {
    path: PathBuf,
    /// Whether it was a folder when last listed: if the folder disappears, its objects are kept.
    was_folder: bool,
}

/// The result of listing all roots.
#[derive(Debug, Default)]
pub(super) struct FileListing {
    max_files: usize,
    /// Sorted by path. A file with several paths, through links, is listed under the first.
    pub(super) files: Vec<FoundFile>,
    /// The folders to watch.
    pub(super) folders: BTreeSet<PathBuf>,
    /// Folders that could not be listed completely, and files that could not be accessed: the previous records at and
    /// below these paths are kept.
    pub(super) incomplete: Vec<PathBuf>,
    pub(super) diagnostics: Vec<ManifestDiagnostic>,
}

#[derive(Debug)]
pub(super) struct FoundFile {
    pub(super) path: Arc<Path>,
    pub(super) stamp: FileStamp,
    /// A named pipe (`<(helm template …)`), which can be read only once.
    pub(super) is_pipe: bool,
}

impl ManifestRoot {
    pub(super) fn new(path: PathBuf) -> Self {
        ManifestRoot { path, was_folder: false }
    }
}

/// Lists all files below the roots.
pub(super) fn list(roots: &mut [ManifestRoot]) -> FileListing {
    list_at_most(MAX_FILES, roots)
}

fn list_at_most(max_files: usize, roots: &mut [ManifestRoot]) -> FileListing {
    let mut listing = FileListing { max_files, ..FileListing::default() };
    for root in roots {
        listing.add_root(root);
    }
    listing.files.sort_by(|left, right| left.path.cmp(&right.path));
    let mut seen = HashSet::new();
    listing.files.retain(|found| seen.insert(found.stamp.identity()));
    listing
}

impl FileListing {
    fn add_root(&mut self, root: &mut ManifestRoot) {
        let metadata = match fs::metadata(&root.path) {
            Ok(metadata) => metadata,
            Err(error) => {
                self.folders.insert(nearest_existing_folder(&root.path));
                self.report_missing_root(root, &error);
                return;
            }
        };
        root.was_folder = metadata.is_dir();
        if !metadata.is_dir() {
            self.folders.insert(parent(&root.path));
            self.watch_link_target(&root.path);
            self.add_file(&root.path, &metadata, true);
            return;
        }
        self.watch_links(&root.path);
        let counts = |listing: &FileListing| (listing.files.len(), listing.diagnostics.len(), listing.incomplete.len());
        let counts_before = counts(self);
        self.add_folder(&root.path, &metadata, &mut Vec::new());
        // If the folder was moved or replaced during the listing, missing files count as unread, not as deleted; an
        // event follows.
        let identity = |metadata: &Metadata| (metadata.dev(), metadata.ino());
        if fs::metadata(&root.path).ok().as_ref().map(identity) != Some(identity(&metadata)) {
            self.incomplete.push(root.path.clone());
        }
        if counts_before == counts(self) {
            let message = "no manifests in this folder";
            let remedy = "put files that end in .yaml, .yml or .json into it";
            let empty = Diagnostic::of_file("EmptyFolder", message, remedy);
            self.report(&root.path, empty.into_warning());
        }
    }

    fn report_missing_root(&mut self, root: &ManifestRoot, error: &io::Error) {
        let FileReadError { diagnostic, .. } = FileReadError::from_io(error);
        if error.kind() != io::ErrorKind::NotFound {
            self.incomplete.push(root.path.clone());
            self.report(&root.path, diagnostic);
        } else if root.was_folder {
            self.incomplete.push(root.path.clone());
            let remedy = "restore it, or restart Portico without this path";
            let vanished = Diagnostic::of_file("Vanished", "the folder is gone", remedy);
            let position = FilePosition::whole_file(Arc::from(&*root.path));
            self.diagnostics.push(ManifestDiagnostic {
                meanwhile: Some("Its last valid objects stay in use.".to_owned()),
                ..ManifestDiagnostic::for_file(position, vanished)
            });
        } else {
            let message = "no such file or folder";
            self.report(&root.path, Diagnostic::of_file("NotFound", message, "correct the path, or create it"));
        }
    }

    /// Lists a folder and its subfolders. `enclosing` are the identities of the folders around it; a link back to one
    /// of them is a loop.
    fn add_folder(&mut self, path: &Path, metadata: &Metadata, enclosing: &mut Vec<(u64, u64)>) {
        let identity = (metadata.dev(), metadata.ino());
        if enclosing.contains(&identity) {
            let message = "the folder contains itself through a symbolic link";
            self.report(path, Diagnostic::of_file(LOOP, message, "remove the link"));
            return;
        }
        if enclosing.len() >= MAX_DEPTH {
            let message = format!("the folder is nested deeper than {MAX_DEPTH} levels, and is not read");
            self.report(path, Diagnostic::of_file("TooDeep", message, "remove symbolic links that repeat folders"));
            return;
        }
        self.folders.insert(path.to_owned());
        let entries = fs::read_dir(path).and_then(|entries| {
            entries.map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?)))).collect()
        });
        let mut entries: Vec<(_, FileType)> = match entries {
            Ok(entries) => entries,
            // Moved or deleted during the listing: an event follows.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.incomplete.push(path.to_owned());
                return;
            }
            Err(error) => {
                let FileReadError { diagnostic, .. } = FileReadError::from_io(&error);
                self.incomplete.push(path.to_owned());
                self.report(path, diagnostic);
                return;
            }
        };
        entries.sort_by(|left, right| left.0.cmp(&right.0));
        enclosing.push(identity);
        for (name, file_type) in entries {
            // Hidden files belong to editors; `..data` is the folder that the links of a ConfigMap volume point into.
            if name.as_encoded_bytes().starts_with(b".") {
                continue;
            }
            let is_manifest = is_manifest(Path::new(&name));
            if !is_manifest && !file_type.is_dir() && !file_type.is_symlink() {
                continue;
            }
            if self.files.len() >= self.max_files {
                self.incomplete.push(path.to_owned());
                let message = format!("more than {} files; the rest is not read", self.max_files);
                self.report(
                    path,
                    Diagnostic::of_file("TooManyFiles", message, "put several objects into one file, separated by ---"),
                );
                break;
            }
            let path = path.join(&name);
            match fs::metadata(&path) {
                Ok(metadata) if metadata.is_dir() => self.add_folder(&path, &metadata, enclosing),
                Ok(metadata) if is_manifest => {
                    if file_type.is_symlink() {
                        self.watch_link_target(&path);
                    }
                    self.add_file(&path, &metadata, false);
                }
                // What it is, and what is in it, is unknown.
                Err(error) => self.report_missing_file(&path, file_type, &error),
                Ok(_) => {}
            }
        }
        enclosing.pop();
    }

    /// Adds a file. A pipe is read only if it is a root: its path was given on the command line.
    fn add_file(&mut self, path: &Path, metadata: &Metadata, is_root: bool) {
        let file_type = metadata.file_type();
        let pipe = is_root && (file_type.is_fifo() || file_type.is_char_device());
        if metadata.is_file() || pipe {
            self.files.push(FoundFile {
                path: Arc::from(path),
                stamp: FileStamp::from_metadata(metadata),
                is_pipe: pipe,
            });
        } else {
            // Opening a pipe blocks until there is a writer.
            let message = "this is a pipe, a socket or a device";
            self.report(path, Diagnostic::of_file("NotAFile", message, "put a regular file here"));
        }
    }

    /// Reports a file that cannot be accessed, such as a link without a target. A file that was deleted since the
    /// folder was listed is no error; its record is kept until the reading that the event triggers, because the
    /// folder may have been moved instead.
    fn report_missing_file(&mut self, path: &Path, file_type: FileType, error: &io::Error) {
        let is_gone = || !file_type.is_symlink() || fs::symlink_metadata(path).is_err();
        let FileReadError { diagnostic, .. } = FileReadError::from_io(error);
        match error.kind() {
            io::ErrorKind::NotFound if is_gone() => self.incomplete.push(path.to_owned()),
            io::ErrorKind::NotFound => {
                // The objects of the file stay in use until it is removed, and its target may come back.
                self.incomplete.push(path.to_owned());
                self.watch_missing_target(path);
                let message = "the target of the symbolic link does not exist";
                self.report(path, Diagnostic::of_file("NotFound", message, "correct or remove the link"));
            }
            _ => {
                self.incomplete.push(path.to_owned());
                self.report(path, diagnostic);
            }
        }
    }

    /// Watches the folder of a link's target, where edits of the file happen.
    fn watch_link_target(&mut self, path: &Path) {
        if let Ok(target) = fs::canonicalize(path) {
            self.folders.insert(parent(&target));
        }
        self.watch_links(path);
    }

    /// Watches the folder in which the missing target of a link, or a folder above it, will be created.
    fn watch_missing_target(&mut self, path: &Path) {
        self.watch_links(path);
        if let Ok(target) = fs::read_link(path) {
            self.folders.insert(nearest_existing_folder(&parent(path).join(target)));
        }
    }

    /// Watches the folders of all links in a path, since each link may be redirected, as tools do that swap a checkout.
    fn watch_links(&mut self, path: &Path) {
        let mut unresolved = vec![path.to_owned()];
        for _ in 0..MAX_LINKS {
            let Some(path) = unresolved.pop() else { return };
            for ancestor in path.ancestors().filter(|ancestor| !ancestor.as_os_str().is_empty()) {
                let Ok(target) = fs::read_link(ancestor) else { continue };
                let (folder, rest) = (parent(ancestor), path.strip_prefix(ancestor).unwrap_or(Path::new("")));
                unresolved.push(folder.join(target).join(rest));
                self.folders.insert(folder);
            }
        }
    }

    fn report(&mut self, path: &Path, diagnostic: Diagnostic) {
        let position = FilePosition::whole_file(Arc::from(path));
        self.diagnostics.push(ManifestDiagnostic::for_file(position, diagnostic));
    }
}

/// Whether listing its folder would include a file or link with this path.
pub(super) fn is_listed(path: &Path) -> bool {
    let is_hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
    !is_hidden && is_manifest(path)
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

fn nearest_existing_folder(path: &Path) -> PathBuf {
    let folder = path.ancestors().skip(1).find(|ancestor| ancestor.is_dir());
    folder.map_or_else(|| PathBuf::from("."), Path::to_owned)
}

/// The maximum number of links followed from one path, like the operating system's limit.
const MAX_LINKS: usize = 40;
/// The extensions of manifests, in upper or lower case.
const EXTENSIONS: &[&str] = &["yaml", "yml", "json"];
const MAX_FILES: usize = 50_000;
/// The maximum nesting of folders. Links can make a tree infinite without a detectable loop.
const MAX_DEPTH: usize = 40;
/// The reason of errors about folders that are read by another path.
pub(super) const LOOP: &str = "Loop";

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    /// Relative paths of the files found, and `reason path` of the diagnostics.
    fn list_relative(root: &Path, paths: &[&str]) -> (Vec<String>, Vec<String>) {
        let relative = |path: &Path| path.strip_prefix(root).unwrap().display().to_string();
        let mut roots: Vec<_> = paths.iter().map(|path| ManifestRoot::new(root.join(path))).collect();
        let listing = list(&mut roots);
        let diagnostics = listing
            .diagnostics
            .iter()
            .map(|diagnostic| format!("{} {}", diagnostic.reason(), relative(&diagnostic.position.file)));
        (listing.files.iter().map(|file| relative(&file.path)).collect(), diagnostics.collect())
    }

    #[test]
    fn folders_are_listed_in_order_without_loops() {
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
        for (paths, files, diagnostics) in cases {
            let (found, found_diagnostics) = list_relative(root, paths);
            assert_eq!(
                (found, found_diagnostics),
                (
                    files.iter().map(ToString::to_string).collect(),
                    diagnostics.iter().map(ToString::to_string).collect()
                ),
                "{paths:?}"
            );
        }
        drop(socket);
    }

    #[test]
    fn folders_to_watch() {
        let temp = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(temp.path()).unwrap();
        for folder in ["a/b", "far"] {
            fs::create_dir_all(root.join(folder)).unwrap();
        }
        fs::write(root.join("far/x.yaml"), "").unwrap();
        symlink(root.join("far/x.yaml"), root.join("a/x.yaml")).unwrap();
        let folders = |path: &str| list(&mut [ManifestRoot::new(root.join(path))]).folders;
        let expected = |names: &[&str]| names.iter().map(|name| root.join(name)).collect::<BTreeSet<_>>();
        assert_eq!(folders("a"), expected(&["a", "a/b", "far"]));
        assert_eq!(folders("far/x.yaml"), expected(&["far"]));
        // A checkout that is swapped by redirecting a link.
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
        assert_eq!(folders("far/loop"), expected(&["far"]), "circular links end");
        assert_eq!(folders("far/none/deep"), expected(&["far"]));
    }

    /// What such a link leads to may be a file or a folder with plugins that protect routes.
    #[test]
    fn links_without_a_target_are_reported_and_their_targets_awaited() {
        let temp = tempfile::tempdir().unwrap();
        let folder = temp.path().join("manifests");
        fs::create_dir(&folder).unwrap();
        symlink(temp.path().join("gone/guard.yaml"), folder.join("guard.yaml")).unwrap();
        symlink(temp.path().join("gone/folder"), folder.join("plugins")).unwrap();
        let listing = list(&mut [ManifestRoot::new(folder.clone())]);
        assert_eq!(listing.incomplete, [folder.join("guard.yaml"), folder.join("plugins")]);
        let reasons: Vec<_> = listing.diagnostics.iter().map(ManifestDiagnostic::reason).collect();
        assert_eq!(reasons, ["NotFound", "NotFound"]);
        assert!(listing.folders.contains(temp.path()), "{:?}", listing.folders);
    }

    #[test]
    fn number_of_files_is_limited() {
        let temp = tempfile::tempdir().unwrap();
        for file in ["a.yaml", "b.yaml", "c.yaml"] {
            fs::write(temp.path().join(file), "").unwrap();
        }
        let at_most = |files| list_at_most(files, &mut [ManifestRoot::new(temp.path().to_owned())]);
        assert!(at_most(3).diagnostics.is_empty());
        let listing = at_most(2);
        assert_eq!(
            (listing.files.len(), listing.diagnostics.len(), listing.diagnostics[0].reason()),
            (2, 1, "TooManyFiles")
        );
        assert_eq!(listing.incomplete, [temp.path()], "records of the other files are kept");
    }

    #[test]
    fn objects_of_a_vanished_folder_are_kept() {
        let temp = tempfile::tempdir().unwrap();
        let path = temp.path().join("folder");
        fs::create_dir(&path).unwrap();
        let mut roots = [ManifestRoot::new(path.clone())];
        assert!(list(&mut roots).incomplete.is_empty());
        fs::remove_dir(&path).unwrap();
        let listing = list(&mut roots);
        assert_eq!((listing.incomplete, listing.diagnostics[0].reason()), (vec![path], "Vanished"));
    }
    #[test]
    fn folders_that_move_during_the_listing_are_incomplete() {
        let temp = tempfile::tempdir().unwrap();
        let (path, aside) = (temp.path().join("folder"), temp.path().join("aside"));
        fs::create_dir(&path).unwrap();
        fs::write(path.join("a.yaml"), "").unwrap();
        let mut roots = [ManifestRoot::new(path.clone())];
        list(&mut roots);
        std::thread::scope(|scope| {
            let mover = scope.spawn(|| {
                for _ in 0..2000 {
                    fs::rename(&path, &aside).unwrap();
                    fs::rename(&aside, &path).unwrap();
                }
            });
            while !mover.is_finished() {
                let listing = list(&mut roots);
                let reasons: Vec<_> = listing.diagnostics.iter().map(ManifestDiagnostic::reason).collect();
                assert!(reasons.is_empty() || reasons == ["Vanished"], "{:?}", listing.diagnostics);
                assert!(!listing.files.is_empty() || !listing.incomplete.is_empty(), "{listing:?}");
            }
        });
    }
}
