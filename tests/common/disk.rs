//! A disk of one's own, whose power can be cut: a file system on a loop device.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A file system that can lose its power. The fields are dropped in this order.
pub struct Disk {
    mounted: Mounted,
    _server: Option<Server>,
    dir: tempfile::TempDir,
}

/// What is mounted, and the loop device that it stands on.
struct Mounted {
    root: PathBuf,
    device: String,
}

/// Serves the bytes of a device that fails on demand.
struct Server {
    file: PathBuf,
    child: Child,
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
        Self::on(kind, &image, None, dir)
    }

    /// One whose writes fail while [`Disk::fail`] says so. None, said once, when it cannot be made.
    pub fn failing(kind: &str) -> Option<Self> {
        let dir = tempfile::tempdir().ok()?;
        let server = Server::start(dir.path());
        let disk = server.and_then(|server| Self::on(kind, &server.file.clone(), Some(server), dir));
        if disk.is_none() {
            eprintln!("skipped: no {kind} on a device that fails can be had, as without nbdkit, nbdfuse or privileges");
        }
        disk
    }

    fn on(kind: &str, image: &Path, server: Option<Server>, dir: tempfile::TempDir) -> Option<Self> {
        let device = run("losetup", &["-f", "--show", text(image)])?;
        let mounted = Mounted { root: dir.path().join("disk"), device };
        std::fs::create_dir(&mounted.root).ok()?;
        run(&format!("mkfs.{kind}"), &["-q", &mounted.device])?;
        mounted.mount().then_some(Self { mounted, _server: server, dir })
    }

    /// Where it is mounted.
    pub fn root(&self) -> PathBuf {
        self.mounted.root.clone()
    }

    /// Has each write to the device fail with EIO, or not.
    pub fn fail(&self, fails: bool) {
        let trigger = self.dir.path().join(TRIGGER);
        if fails { std::fs::write(trigger, "") } else { std::fs::remove_file(trigger) }.expect("a file of ours");
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
        assert!(self.mounted.mount(), "mounted again");
    }
}

impl Mounted {
    fn mount(&self) -> bool {
        run("mount", &[&self.device, text(&self.root)]).is_some()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.root)]);
        let _ = run("losetup", &["-d", &self.device]);
    }
}

impl Server {
    fn start(dir: &Path) -> Option<Self> {
        let (file, trigger) = (dir.join("served"), dir.join(TRIGGER));
        std::fs::File::create(&file).ok()?;
        let mut serve = Command::new("nbdfuse");
        serve.arg(&file).args(["--command", "nbdkit", "-s", "--filter=error", "memory", "400M"]);
        serve.args(["error-pwrite=EIO", "error-pwrite-rate=100%"]);
        serve.arg(format!("error-pwrite-file={}", text(&trigger)));
        let child = serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().ok()?;
        let mut server = Self { file, child };
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&server.file).ok()?.len() == 0 {
            if Instant::now() > deadline || server.child.try_wait().ok()?.is_some() {
                return None;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Some(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = run("umount", &["-l", text(&self.file)]);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// While it is there, writes fail.
const TRIGGER: &str = "fail";

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}
