//! File systems of each kind that a state may be kept on, mounted for one test.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::disk::Disk;

/// Each kind, and whether the log is mapped there.
pub const KINDS: [(&str, bool); 6] =
    [("ext4", true), ("xfs", true), ("tmpfs", true), ("btrfs", false), ("overlay", false), ("fuse", false)];

/// A file system that is mounted. The fields are dropped in this order: what lies on another goes first.
pub struct Mount {
    root: PathBuf,
    _mounted: Mounted,
    _disk: Option<Disk>,
    _dir: tempfile::TempDir,
}

impl Mount {
    /// None, said once, when it cannot be mounted.
    pub fn new(kind: &str, bytes: u64) -> Option<Self> {
        let mount = Self::make(kind, bytes);
        if mount.is_none() {
            eprintln!("skipped: no {kind} can be mounted, as by others than the superuser, or without its tools");
        }
        mount
    }

    fn make(kind: &str, bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let place = |name: &str| dir.path().join(name);
        std::fs::create_dir(place("mount")).ok()?;
        let disk = match kind {
            "tmpfs" | "fuse" => None,
            "overlay" => Some(Disk::of("ext4", bytes)?),
            kind => Some(Disk::of(kind, bytes)?),
        };
        let root = place("mount");
        let mounted = match (kind, &disk) {
            ("tmpfs", _) => Mounted::by("mount", &["-t", "tmpfs", "-o", &format!("size={bytes}"), "none"], root)?,
            ("overlay", Some(disk)) => {
                let [lower, upper, work] = ["lower", "upper", "work"].map(|name| disk.root().join(name));
                [&lower, &upper, &work].into_iter().try_for_each(std::fs::create_dir).ok()?;
                let dirs =
                    format!("lowerdir={},upperdir={},workdir={}", lower.display(), upper.display(), work.display());
                Mounted::by("mount", &["-t", "overlay", "-o", &dirs, "overlay"], root)?
            }
            ("fuse", _) => {
                let image = place("image");
                std::fs::File::create(&image).ok()?.set_len(bytes).ok()?;
                let image = image.to_str()?;
                succeeds("mkfs.ext4", &["-q", "-F", image])?;
                Mounted::by("fuse2fs", &["-o", "fakeroot", image], root)?
            }
            (_, Some(disk)) => Mounted(disk.root(), false),
            (_, None) => return None,
        };
        Some(Self { root: mounted.0.clone(), _mounted: mounted, _disk: disk, _dir: dir })
    }

    /// Where it is.
    pub fn root(&self) -> &Path {
        &self.root
    }
}

/// A place, and whether it is to be unmounted.
struct Mounted(PathBuf, bool);

impl Mounted {
    fn by(command: &str, args: &[&str], root: PathBuf) -> Option<Self> {
        let place = root.to_str()?.to_owned();
        succeeds(command, &[args, &[&*place]].concat())?;
        Some(Self(root, true))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.1 {
            let _ = Command::new("umount").arg("-l").arg(&self.0).stderr(Stdio::null()).status();
        }
    }
}

fn succeeds(command: &str, args: &[&str]) -> Option<()> {
    let ran =
        Command::new(command).args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    ran.is_ok_and(|status| status.success()).then_some(())
}
