//! A disk of one's own, whose power can be cut: a file system on a loop device.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A file system that can lose its power.
pub struct Disk {
    dir: tempfile::TempDir,
    device: String,
}

/// What the command printed, when it is here and succeeds.
fn run(command: &str, args: &[&str]) -> Option<String> {
    let ran = Command::new(command).args(args).stderr(Stdio::null()).output().ok()?;
    ran.status.success().then(|| String::from_utf8_lossy(&ran.stdout).trim().to_owned())
}

impl Disk {
    /// None, said once, when it cannot be made.
    pub fn new(kind: &str) -> Option<Self> {
        let disk = run("xfs_io", &["-V"]).and_then(|_| Self::of(kind, 400 << 20));
        if disk.is_none() {
            eprintln!("skipped: no loop device with {kind} can be had, as by others than the superuser");
        }
        disk
    }

    /// One of so many bytes, without the tool that cuts its power.
    pub fn of(kind: &str, bytes: u64) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let image = dir.path().join("image");
        std::fs::File::create(&image).ok()?.set_len(bytes).ok()?;
        let device = run("losetup", &["-f", "--show", text(&image)])?;
        let disk = Self { dir, device };
        std::fs::create_dir(disk.root()).ok()?;
        run(&format!("mkfs.{kind}"), &["-q", &disk.device])?;
        disk.mount().then_some(disk)
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.dir.path().join("disk")
    }

    fn mount(&self) -> bool {
        run("mount", &[&self.device, text(&self.root())]).is_some()
    }

    /// Cuts the power: what is not on the disk now is lost.
    pub fn cut(&self) {
        assert!(run("xfs_io", &["-x", "-c", "shutdown", text(&self.root())]).is_some(), "the power is cut");
    }

    /// Mounts it again.
    pub fn restart(&self) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while run("umount", &[text(&self.root())]).is_none() {
            assert!(Instant::now() < deadline, "it is unmounted");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.mount(), "mounted again");
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.root())]);
        let _ = run("losetup", &["-d", &self.device]);
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
