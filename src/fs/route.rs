//! The way to a folder: the links on it, and whether another user can change it.
//!
//! Root and the user who runs this program may change everything anyway. Another user can replace a folder on the way if
//! they own a folder on the way, or may write to one that is not sticky.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Stat};
use rustix::io::Errno;

/// Who may change the way to a folder and the files in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// Only root and the user who runs this program.
    None,
    ToOthers,
}

/// How Linux bounds the links that it follows for one path.
const LINKS_AT_MOST: usize = 40;
const STICKY: u32 = 0o1000;

/// A way that was followed to its end.
#[derive(Debug)]
pub(super) struct Route {
    /// The path without links.
    pub real: PathBuf,
    pub exposure: Exposure,
    /// Each link on the way, with its owner.
    links: Vec<(PathBuf, u32)>,
}

impl Route {
    /// Follows a path link by link.
    ///
    /// # Errors
    /// `NotFound` where the path leads to nothing, `ELOOP` after forty links.
    pub(super) fn to(path: &Path) -> io::Result<Self> {
        let mut route = Self { real: PathBuf::from("/"), exposure: Exposure::None, links: Vec::new() };
        let mut ahead: VecDeque<OsString> = parts(&std::path::absolute(path)?).collect();
        while let Some(name) = ahead.pop_front() {
            if name == ".." {
                route.real.pop();
                continue;
            }
            let around = rustix::fs::statat(CWD, &route.real, AtFlags::SYMLINK_NOFOLLOW)?;
            let may_be_changed = !is_trusted(around.st_uid) || (others_have_write(&around) && !is_sticky(&around));
            let next = route.real.join(&name);
            let stat = rustix::fs::statat(CWD, &next, AtFlags::SYMLINK_NOFOLLOW)?;
            // In a sticky folder the owner of a name may change it.
            if may_be_changed || !is_trusted(stat.st_uid) {
                route.exposure = Exposure::ToOthers;
            }
            if FileType::from_raw_mode(stat.st_mode) != FileType::Symlink {
                route.real = next;
                continue;
            }
            if route.links.len() >= LINKS_AT_MOST {
                return Err(Errno::LOOP.into());
            }
            let target = std::fs::read_link(&next)?;
            if target.is_absolute() {
                route.real = PathBuf::from("/");
            }
            route.links.push((next, stat.st_uid));
            for name in parts(&target).collect::<Vec<_>>().into_iter().rev() {
                ahead.push_front(name);
            }
        }
        Ok(route)
    }

    /// A link that leads where its owner has no say. As Linux does in sticky folders, links of the owner of the
    /// target are followed.
    pub(super) fn link_of_another_user(&self, owner_of_target: u32) -> Option<&Path> {
        let foreign = |(_, owner): &&(PathBuf, u32)| !is_trusted(*owner) && *owner != owner_of_target;
        self.links.iter().find(foreign).map(|(link, _)| link.as_path())
    }
}

/// Who may change a file, or put another one in its place.
///
/// # Errors
/// `NotFound` where there is none.
pub fn exposure_of_file(path: &Path) -> io::Result<Exposure> {
    let route = Route::to(path)?;
    let file = rustix::fs::statat(CWD, &route.real, AtFlags::SYMLINK_NOFOLLOW)?;
    Ok(if others_may_write(&file) { Exposure::ToOthers } else { route.exposure })
}

/// The names of a path, without its root.
fn parts(path: &Path) -> impl Iterator<Item = OsString> {
    path.components().filter_map(|component| match component {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some(OsString::from("..")),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    })
}

/// Whether this is root or the user who runs this program.
pub(super) fn is_trusted(owner: u32) -> bool {
    owner == 0 || owner == rustix::process::geteuid().as_raw()
}

/// Whether another user can make names in a folder.
pub(super) fn others_may_write(folder: &Stat) -> bool {
    !is_trusted(folder.st_uid) || others_have_write(folder)
}

/// The group's bits also bound what a POSIX ACL permits.
fn others_have_write(folder: &Stat) -> bool {
    folder.st_mode & 0o022 != 0
}

fn is_sticky(folder: &Stat) -> bool {
    folder.st_mode & STICKY != 0
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_way_is_followed_through_links_and_parents_to_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("a/b")).unwrap();
        symlink("a", root.join("relative")).unwrap();
        symlink(root.join("relative/b"), root.join("absolute")).unwrap();
        for way in ["a/b", "relative/b", "absolute", "absolute/../b", "./a/./b"] {
            let route = Route::to(&root.join(way)).unwrap();
            assert_eq!((route.real, route.exposure), (root.join("a/b"), Exposure::None), "{way}");
        }
        symlink("itself", root.join("itself")).unwrap();
        assert!(Route::to(&root.join("itself")).is_err());
    }

    #[test]
    fn a_folder_that_others_may_write_to_exposes_what_lies_below_unless_it_is_sticky() {
        let folder = tempfile::tempdir().unwrap();
        let open = folder.path().join("open");
        fs::create_dir_all(open.join("ours")).unwrap();
        for (mode, exposure) in [
            (0o755, Exposure::None),
            (0o1777, Exposure::None),
            (0o777, Exposure::ToOthers),
            (0o770, Exposure::ToOthers),
        ] {
            fs::set_permissions(&open, Permissions::from_mode(mode)).unwrap();
            assert_eq!(Route::to(&open.join("ours")).unwrap().exposure, exposure, "{mode:o}");
        }
    }
}
