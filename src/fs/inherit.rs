//! What a new file gets from the folder that it is made in: the group of a setgid folder, and the folder's default ACL.
//! A file that was made elsewhere and moved in has neither until it is given both.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;

use rustix::fs::{Gid, XattrFlags, fchown, fgetxattr, fsetxattr};
use rustix::io::Errno;

const DEFAULT_ACL: &str = "system.posix_acl_default";
const ACCESS_ACL: &str = "system.posix_acl_access";
/// An ACL is a version and entries of a tag, permissions and an id, in little endian (the kernel's
/// `posix_acl_xattr.h`).
const VERSION: [u8; 4] = [2, 0, 0, 0];
const ENTRY: usize = 8;
const OWNER: u16 = 0x01;
const GROUP: u16 = 0x04;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;
const SETGID: u32 = 0o2000;

/// Group and permissions of a new file with the mode 0666.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Inherited {
    /// None where the folder hands down none: the file gets that of its process.
    pub group: Option<u32>,
    /// None where the folder hands down none: the mode less the umask counts.
    pub acl: Option<Acl>,
}

impl Inherited {
    pub(crate) fn from_folder(folder: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(&folder)?;
        let group = (stat.st_mode & SETGID != 0).then_some(stat.st_gid);
        Ok(Self { group, acl: Acl::read(folder, DEFAULT_ACL)?.map(|acl| acl.of_new_file()) })
    }

    /// Gives a file what it has not from the folder that it was made in.
    pub(crate) fn give(&self, file: &File, made_in: &Self) -> io::Result<()> {
        let chowned = if self.group == made_in.group {
            Ok(())
        } else {
            let group = self.group.unwrap_or_else(|| rustix::process::getegid().as_raw());
            fchown(file, None, Some(Gid::from_raw(group)))
        };
        if self.acl != made_in.acl {
            let acl = self.acl.clone().map_or_else(Acl::without_umask, Ok)?;
            fsetxattr(file, ACCESS_ACL, &acl.bytes(), XattrFlags::empty())?;
        }
        Ok(chowned?)
    }
}

/// Whether an error says that this user, or this file system, cannot give a file what its folder hands down.
pub(crate) fn is_not_permitted(error: &io::Error) -> bool {
    const REFUSALS: [Errno; 4] = [Errno::PERM, Errno::ACCESS, Errno::OPNOTSUPP, Errno::INVAL];
    Errno::from_io_error(error).is_some_and(|errno| REFUSALS.contains(&errno))
}

/// The entries of an access control list, in the order of the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Acl(Vec<AclEntry>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct AclEntry {
    tag: u16,
    permissions: u16,
    id: [u8; 4],
}

impl Acl {
    /// The access control list of an open file; None where its mode says all.
    pub(crate) fn of_file(file: &File) -> io::Result<Option<Self>> {
        Self::read(file, ACCESS_ACL)
    }

    fn read(file: impl AsFd, name: &str) -> io::Result<Option<Self>> {
        let mut bytes = vec![0; 1024];
        loop {
            match fgetxattr(&file, name, &mut bytes[..]) {
                Ok(length) => return Self::parse(&bytes[..length]).map(Some).ok_or_else(|| Errno::INVAL.into()),
                Err(Errno::RANGE) if bytes.len() < 65_536 => bytes.resize(65_536, 0),
                // None, or a file system without.
                Err(Errno::NODATA | Errno::OPNOTSUPP) => return Ok(None),
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let entries = bytes.strip_prefix(&VERSION)?;
        let entry = |bytes: &[u8]| {
            let [a, b, c, d, id @ ..] = *bytes.first_chunk::<ENTRY>()?;
            Some(AclEntry { tag: u16::from_le_bytes([a, b]), permissions: u16::from_le_bytes([c, d]), id })
        };
        (entries.len() % ENTRY == 0).then(|| entries.chunks(ENTRY).map(entry).collect::<Option<_>>().map(Self))?
    }

    fn bytes(&self) -> Vec<u8> {
        let entry = |entry: &AclEntry| {
            let [a, b] = entry.tag.to_le_bytes();
            let [c, d] = entry.permissions.to_le_bytes();
            [&[a, b, c, d][..], &entry.id].concat()
        };
        VERSION.into_iter().chain(self.0.iter().flat_map(entry)).collect()
    }

    /// A new file with the mode 0666 gets the default ACL of its folder, and of the mode's bits those that both
    /// have: of the group in the mask, where there is one. No umask applies.
    fn of_new_file(mut self) -> Self {
        let group = if self.has_mask() { MASK } else { GROUP };
        for entry in self.0.iter_mut().filter(|entry| [OWNER, OTHER, group].contains(&entry.tag)) {
            entry.permissions &= 0o6;
        }
        self
    }

    fn has_mask(&self) -> bool {
        self.0.iter().any(|entry| entry.tag == MASK)
    }

    /// Whether the mode says all that this says.
    pub(crate) fn is_mode(&self) -> bool {
        self.0.iter().all(|entry| [OWNER, GROUP, OTHER].contains(&entry.tag))
    }

    /// The mode that a file with this shows.
    pub(crate) fn mode(&self) -> u32 {
        let of = |tag| self.0.iter().find(|entry| entry.tag == tag).map_or(0, |entry| u32::from(entry.permissions));
        let group = if self.has_mask() { of(MASK) } else { of(GROUP) };
        of(OWNER) << 6 | group << 3 | of(OTHER)
    }

    /// What a file has in a folder that hands nothing down: the mode 0666 less the umask.
    fn without_umask() -> io::Result<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let umask = status.lines().find_map(|line| line.strip_prefix("Umask:"));
        let umask = umask.and_then(|umask| u16::from_str_radix(umask.trim(), 8).ok());
        let mode = 0o666 & !umask.ok_or(Errno::INVAL)?;
        let entry = |(tag, permissions)| AclEntry { tag, permissions: permissions & 0o7, id: [0xff; 4] };
        Ok(Self([(OWNER, mode >> 6), (GROUP, mode >> 3), (OTHER, mode)].map(entry).to_vec()))
    }
}
