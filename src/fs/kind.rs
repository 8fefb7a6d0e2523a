//! Which file systems lack a feature that the program relies on, by the magic numbers of statfs(2).

use rustix::fs::StatFs;

const AFS: u32 = 0x5346_414F;
const CEPH: u32 = 0x00C3_6400;
const CIFS: u32 = 0xFF53_4D42;
const FUSE: u32 = 0x6573_5546;
const NFS: u32 = 0x6969;
const NINE_P: u32 = 0x0102_1997;
const SMB: u32 = 0x517B;
const SMB2: u32 = 0xFE53_4D42;

/// Linux passes no `syncfs` on to these servers: SMB and 9p have no `sync_fs`, and that of FUSE asks only a few
/// servers, such as virtiofs, which look like all others. A run that relied on `syncfs` would record what a power cut
/// takes.
const WITHOUT_SYNCFS: [u32; 5] = [FUSE, SMB, SMB2, CIFS, NINE_P];
/// These give neither the shared memory nor the locks that SQLite's WAL needs.
const WITHOUT_WAL: [u32; 7] = [NFS, SMB, CIFS, SMB2, NINE_P, AFS, CEPH];

/// Whether a lock shows whichever machine its process is on: a network file system may keep it to the machine that
/// took it, and a server of FUSE to its own mount.
pub fn shows_every_lock(file_system: &StatFs) -> bool {
    has_wal(file_system) && magic(file_system) != FUSE
}

/// Whether `syncfs` reaches the disk.
pub fn has_syncfs(file_system: &StatFs) -> bool {
    !WITHOUT_SYNCFS.contains(&magic(file_system))
}

/// Whether SQLite can keep a database with a WAL here.
pub fn has_wal(file_system: &StatFs) -> bool {
    !WITHOUT_WAL.contains(&magic(file_system))
}

/// The type of the field differs from one machine to the other.
fn magic(file_system: &StatFs) -> u32 {
    file_system.f_type as u32
}
