//! How much memory the set may take when nobody says: three quarters of what the machine or the control group has.

use std::fs;
use std::path::Path;

/// The default of `--max-memory`; none where the system does not say how much it has.
pub fn default_limit() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limit = group_limits(&groups, Path::new("/sys/fs/cgroup")).into_iter().chain(machine()).min()?;
    Some(limit / 4 * 3)
}

/// All memory of the machine.
fn machine() -> Option<u64> {
    // SAFETY: sysconf takes a plain number and touches no memory of ours.
    let (pages, page_bytes) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    u64::try_from(pages).ok()?.checked_mul(u64::try_from(page_bytes).ok()?).filter(|&bytes| bytes > 0)
}

/// The limits of the control groups, versions 1 and 2, that `groups` (the text of `/proc/self/cgroup`) names, and of those
/// around them. A group that is not mounted here, as in a container, is looked for at the mount's root.
fn group_limits(groups: &str, mount: &Path) -> Vec<u64> {
    let mut limits = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => (mount.to_owned(), "memory.max"),
            list if list.split(',').any(|name| name == "memory") => (mount.join("memory"), "memory.limit_in_bytes"),
            _ => continue,
        };
        let group = root.join(group.trim_start_matches('/'));
        limits
            .extend(group.ancestors().take_while(|path| path.starts_with(&root)).filter_map(|path| limit(path, file)));
    }
    limits
}

/// A group without a limit says `max`, or in version 1 a number next to 2^63.
fn limit(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok().filter(|&bytes| bytes > 0 && bytes < 1 << 62)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let mount = tempfile::tempdir().expect("a directory");
        for (path, text) in files {
            let path = mount.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("a directory");
            fs::write(path, text).expect("a file");
        }
        mount
    }

    #[test]
    fn the_limits_of_a_group_and_those_around_it_count() {
        let mount = tree(&[("a/memory.max", "3000\n"), ("a/b/memory.max", "max\n"), ("memory.max", "9000")]);
        assert_eq!(group_limits("0::/a/b\n", mount.path()), [3000, 9000]);
    }

    #[test]
    fn version_1_is_read_and_its_no_limit_is_none() {
        let mount = tree(&[
            ("memory/a/memory.limit_in_bytes", "5000\n"),
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
        ]);
        assert_eq!(group_limits("7:cpu:/x\n4:memory,hugetlb:/a\n0::/\n", mount.path()), [5000]);
    }

    #[test]
    fn a_group_that_is_not_mounted_is_looked_for_at_the_root() {
        let mount = tree(&[("memory.max", "7000")]);
        assert_eq!(group_limits("0::/docker/abc\n", mount.path()), [7000]);
        assert!(group_limits("garbage\n\n", mount.path()).is_empty());
    }

    #[test]
    fn a_machine_has_memory() {
        assert!(default_limit().is_some_and(|bytes| bytes > 1 << 20));
    }
}
