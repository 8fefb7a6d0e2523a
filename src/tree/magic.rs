//! File systems of which something must be known, by the magic numbers of statfs(2).

use rustix::fs::StatFs;

pub const AFS: u32 = 0x5346_414F;
pub const CEPH: u32 = 0x00C3_6400;
pub const CIFS: u32 = 0xFF53_4D42;
pub const FUSE: u32 = 0x6573_5546;
pub const NFS: u32 = 0x6969;
pub const NINE_P: u32 = 0x0102_1997;
pub const SMB: u32 = 0x517B;
pub const SMB2: u32 = 0xFE53_4D42;

/// The number of a file system, whose type differs from one machine to the other.
pub fn of(file_system: &StatFs) -> u32 {
    file_system.f_type as u32
}
