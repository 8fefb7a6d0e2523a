//! File systems made for one test: disks that can lose power, run full or turn read-only. They need
//! root, and are unmounted with the test, whatever comes of it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;
use tempfile::TempDir;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    Ext4,
    Xfs,
    Ext4WithoutJournal,
}

/// Those that can be told in the middle of a run that the power fails.
pub(crate) const FORMATS: [Format; 2] = [Format::Ext4, Format::Xfs];

/// A mounted file system, unmounted with this.
pub(crate) struct Mount(PathBuf);

impl Mount {
    /// A file system in memory; `options` as in `size=64k,nr_inodes=40`.
    pub(crate) fn memory(at: &Path, options: &str) -> Self {
        fs::create_dir_all(at).expect("make a folder to mount at");
        mount(&["-t", "tmpfs", "-o", options, "tmpfs"], at);
        Self(at.into())
    }

    /// With other options; `remount` is said by itself.
    pub(crate) fn again(&self, options: &str) {
        mount(&["-o", &format!("remount,{options}")], &self.0);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A process that still works there keeps a lazily unmounted one until it ends.
        if !succeeds(Command::new("umount").arg(&self.0)) {
            let _ = succeeds(Command::new("umount").arg("--lazy").arg(&self.0));
        }
    }
}

/// A folder that FUSE shows at another place. What is written there is kept by a process like any other, which
/// `syncfs` does not reach.
pub(crate) struct Fuse {
    served: PathBuf,
    at: PathBuf,
    options: Vec<String>,
    server: Option<Child>,
}

impl Fuse {
    pub(crate) fn new(served: &Path, at: &Path) -> Self {
        Self::with_options(served, at, Vec::new())
    }

    /// Everything seems to belong to one user, new files too, as with SMB and `uid=`.
    pub(crate) fn owned_by(user: u32, served: &Path, at: &Path) -> Self {
        Self::with_options(served, at, vec![format!("--force-user={user}")])
    }

    fn with_options(served: &Path, at: &Path, options: Vec<String>) -> Self {
        let mut fuse = Self { served: served.into(), at: at.into(), options, server: None };
        fuse.mount();
        fuse
    }

    pub(crate) fn mount(&mut self) {
        // It ends with this test, even if that is killed.
        let mut serve = Command::new("setpriv");
        serve.args(["--pdeathsig", "KILL", "bindfs", "-f"]).args(&self.options).arg(&self.served).arg(&self.at);
        serve.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        self.server = Some(serve.spawn().expect("setpriv is missing: it is part of util-linux"));
        while !self.is_mounted() {
            assert!(!self.has_ended(), "bindfs is missing or failed: run scripts/test as root, which installs it");
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn has_ended(&mut self) -> bool {
        self.server.as_mut().is_none_or(|server| server.try_wait().expect("look after bindfs").is_some())
    }

    fn is_mounted(&self) -> bool {
        let device = |path: &Path| fs::metadata(path).expect("look where FUSE is to be mounted").dev();
        device(&self.at) != device(self.at.parent().expect("a folder to mount at"))
    }

    /// What is served can be unmounted then.
    pub(crate) fn unmount(&mut self) {
        drop(Mount(self.at.clone()));
        let since = Instant::now();
        // Whoever still works there would have it serve for ever.
        while !self.has_ended() && since.elapsed() < Duration::from_secs(10) {
            thread::sleep(Duration::from_millis(1));
        }
        if let Some(mut server) = self.server.take() {
            let _ = server.kill();
            let _ = server.wait();
        }
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        self.unmount();
    }
}

/// A folder that takes no further entries, not even from root, until this is dropped.
pub(crate) struct Closed(PathBuf);

impl Closed {
    pub(crate) fn new(folder: PathBuf) -> Self {
        fs::create_dir_all(&folder).expect("make a folder to close");
        assert!(succeeds(Command::new("chattr").arg("+i").arg(&folder)), "close {}", folder.display());
        Self(folder)
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let opened = succeeds(Command::new("chattr").arg("-i").arg(&self.0));
        assert!(opened || std::thread::panicking(), "open {}", self.0.display());
    }
}

/// A disk with a file system: an image behind a loop device, which the kernel frees with the mount.
pub(crate) struct Disk {
    mount: Option<Mount>,
    at: PathBuf,
    image: PathBuf,
    format: Format,
    _own_folder: Option<TempDir>,
}

impl Disk {
    pub(crate) fn new(format: Format, at: &Path) -> Self {
        let folder = tempfile::tempdir().expect("make a folder for the image");
        let disk = Self::with_image_in(folder.path(), format, 64, at);
        Self { _own_folder: Some(folder), ..disk }
    }

    /// The image grows in this folder as the disk fills, up to so many MiB, but for XFS, which does not
    /// go below 300.
    pub(crate) fn with_image_in(folder: &Path, format: Format, mebibytes: u64, at: &Path) -> Self {
        let image = folder.join("image");
        let (program, options, least) = match format {
            Format::Ext4 => ("mkfs.ext4", &["-q", "-F"][..], 0),
            Format::Ext4WithoutJournal => ("mkfs.ext4", &["-q", "-F", "-O", "^has_journal"][..], 0),
            Format::Xfs => ("mkfs.xfs", &["-q"][..], 320),
        };
        let file = File::create(&image).expect("create the image");
        file.set_len(mebibytes.max(least) << 20).expect("make the image large");
        let mut make = Command::new(program);
        make.args(options).arg(&image).env("PATH", admin_path());
        assert!(succeeds(&mut make), "{program} is missing or failed: run scripts/test, which installs it");
        let mut disk = Self { mount: None, at: at.into(), image, format, _own_folder: None };
        disk.mount();
        disk
    }

    fn mount(&mut self) {
        mount(&["-o", "loop", &self.image.display().to_string()], &self.at);
        self.mount = Some(Mount(self.at.clone()));
    }

    /// The power fails: what is not on the disk yet, and what its log holds in memory, is lost. Nothing
    /// can be read or written before `restart`. Without a journal it must fail when nobody writes: then what
    /// the disk has by now is put aside, since unmounting writes the rest.
    pub(crate) fn cut(&self) {
        if self.format == Format::Ext4WithoutJournal {
            fs::copy(&self.image, self.after_the_cut()).expect("put aside what is on the disk");
            return;
        }
        let mut cut = Command::new("xfs_io");
        cut.args(["-x", "-c", "shutdown"]).arg(&self.at).env("PATH", admin_path());
        assert!(succeeds(&mut cut), "xfs_io is missing or failed: run scripts/test, which installs it");
        assert!(
            fs::read_dir(&self.at).is_err() || File::create(self.at.join("probe")).is_err(),
            "the disk still works"
        );
    }

    /// The file system meets an error and turns read-only by itself, as ext4 is usually set up.
    pub(crate) fn give_up(&self) {
        mount(&["-o", "remount,abort"], &self.at);
    }

    /// The power is back.
    pub(crate) fn restart(&mut self) {
        self.mount = None;
        if self.format == Format::Ext4WithoutJournal {
            fs::rename(self.after_the_cut(), &self.image).expect("take what was on the disk");
            let mut check = Command::new("e2fsck");
            check.arg("-fy").arg(&self.image).env("PATH", admin_path());
            // 1 is success, too: errors were found and corrected.
            let checked = check.output().expect("e2fsck is missing: run scripts/test, which installs it");
            assert!(checked.status.code().is_some_and(|code| code <= 1), "{checked:?}");
        }
        self.mount();
    }

    fn after_the_cut(&self) -> PathBuf {
        self.image.with_extension("cut")
    }
}

/// Files that leave only so much room on a file system until they are removed with this.
pub(crate) struct Ballast {
    _files: TempDir,
}

impl Ballast {
    pub(crate) fn leaving_bytes(on: &Path, room: u64) -> Self {
        let files = TempDir::new_in(on).expect("make a folder for the ballast");
        let ballast = File::create(files.path().join("ballast")).expect("create the ballast");
        let there = rustix::fs::fstatvfs(&ballast).expect("ask how much is free");
        let filled = (there.f_bavail * there.f_frsize).saturating_sub(room);
        rustix::fs::fallocate(&ballast, FallocateFlags::empty(), 0, filled).expect("fill the file system");
        Self { _files: files }
    }

    pub(crate) fn leaving_inodes(on: &Path, room: u64) -> Self {
        let files = TempDir::new_in(on).expect("make a folder for the ballast");
        let free = rustix::fs::statvfs(on).expect("ask how many inodes are free").f_ffree;
        for n in 0..free.saturating_sub(room) {
            File::create(files.path().join(n.to_string())).expect("use up an inode");
        }
        Self { _files: files }
    }
}

fn mount(arguments: &[&str], at: &Path) {
    let mounted = succeeds(Command::new("mount").args(arguments).arg(at));
    assert!(
        mounted,
        "`mount {} {}` failed: this test mounts file systems, which needs root",
        arguments.join(" "),
        at.display()
    );
}

fn succeeds(command: &mut Command) -> bool {
    command.output().is_ok_and(|done| done.status.success())
}

/// What makes file systems lies in /usr/sbin, which an ordinary user's PATH leaves out.
fn admin_path() -> String {
    let path = std::env::var_os("PATH").unwrap_or_default();
    format!("{}:/usr/sbin:/sbin", path.display())
}
