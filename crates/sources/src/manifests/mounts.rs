//! Detects file systems without events for changes made on other hosts.

use std::fs;
use std::path::{Path, PathBuf};

/// Whether changes in this folder may cause no event: network and host-shared file systems.
pub(super) fn lacks_events(folder: &Path) -> bool {
    let Ok(folder) = fs::canonicalize(folder) else { return false };
    fs::read_to_string("/proc/self/mountinfo").is_ok_and(|table| lacks_events_in(&table, &folder))
}

/// `table` has the form of `/proc/self/mountinfo`.
fn lacks_events_in(table: &str, folder: &Path) -> bool {
    let mounts = table.lines().filter_map(|line| {
        // `36 35 98:0 /root /mount/point options… - type source options`
        let (left, right) = line.split_once(" - ")?;
        let mount_point = PathBuf::from(unescape(left.split(' ').nth(4)?));
        folder
            .starts_with(&mount_point)
            .then(|| (mount_point.components().count(), right.split(' ').next().unwrap_or_default()))
    });
    // The last mount on a point hides the earlier ones; `max_by_key` returns the last maximum.
    let file_system = mounts.max_by_key(|(depth, _)| *depth).map_or("", |(_, file_system)| file_system);
    FILE_SYSTEMS_WITHOUT_EVENTS
        .iter()
        .any(|name| file_system == *name || (name.ends_with('.') && file_system.starts_with(name)))
}

/// Decodes the octal escapes for space, tab, newline and backslash.
fn unescape(text: &str) -> String {
    text.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Types of file systems. A name that ends with `.` stands for all types that start with it, such as `fuse.sshfs`.
const FILE_SYSTEMS_WITHOUT_EVENTS: &[&str] =
    &["nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "virtiofs", "vboxsf", "prl_fs", "afs", "ceph", "fuse", "fuse."];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn innermost_mount_decides() {
        let table = "\
22 1 8:1 / / rw - ext4 /dev/sda1 rw
30 22 0:40 / /mnt/my\\040files rw,relatime shared:1 - nfs4 server:/x rw
31 30 0:41 / /mnt/my\\040files/local rw - tmpfs none rw
32 22 0:42 / /share rw - fuse.sshfs host:/ rw
33 22 0:43 / /over rw - ext4 /dev/sdb rw
34 33 0:44 / /over rw - 9p host rw
";
        for (folder, lacks_events) in [
            ("/etc", false),
            ("/mnt/my files/manifests", true),
            ("/mnt/my files/local/x", false),
            ("/mnt/my filesystem", false),
            ("/share/deep/er", true),
            ("/over/x", true),
        ] {
            assert_eq!(lacks_events_in(table, Path::new(folder)), lacks_events, "{folder}");
        }
    }
}
