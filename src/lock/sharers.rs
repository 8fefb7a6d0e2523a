//! The processes that share a lock, as the kernel lists them: readers, who may not write their name into it.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;

use rustix::fs::{fstat, major, minor};

use crate::refusal::Holder;

/// One of the processes that share the lock; None where the kernel names none: on some file systems, and of processes
/// in other containers. It may end at any moment.
pub(super) fn sharer(lock: &File, host: &str) -> Option<Holder> {
    let stat = fstat(lock).ok()?;
    let place = format!("{:02x}:{:02x}:{}", major(stat.st_dev), minor(stat.st_dev), stat.st_ino);
    let locks = fs::read_to_string("/proc/locks").ok()?;
    locks.lines().filter_map(|line| sharing(line, &place)).find_map(|pid| holder(pid, host))
}

/// The process of a line of `/proc/locks`, if it shares the lock at this place.
fn sharing(line: &str, place: &str) -> Option<u64> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let [_, "FLOCK", _, "READ", pid, at, ..] = fields[..] else { return None };
    pid.parse().ok().filter(|pid| *pid > 0 && at == place)
}

fn holder(pid: u64, host: &str) -> Option<Holder> {
    let folder = format!("/proc/{pid}");
    let uid = fs::metadata(&folder).ok()?.uid();
    let arguments = fs::read(format!("{folder}/cmdline")).unwrap_or_default();
    // The only command of this program that shares the lock for longer than a moment.
    let verifies = arguments.split(|byte| *byte == 0).any(|argument| argument == b"verify");
    let name = fs::read_to_string(format!("{folder}/comm")).ok()?;
    let purpose = if verifies { "verify".to_owned() } else { name.trim_end().to_owned() };
    Some(Holder { purpose, pid, host: host.to_owned(), user: Some(account(uid)), since: None })
}

/// The name of an account, or its number.
fn account(uid: u32) -> String {
    let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_shared_locks_of_the_file_count() {
        let place = "08:01:77";
        assert_eq!(sharing("1: FLOCK  ADVISORY  READ  42 08:01:77 0 EOF", place), Some(42));
        for other in [
            "1: FLOCK  ADVISORY  WRITE 42 08:01:77 0 EOF",
            "1: POSIX  ADVISORY  READ  42 08:01:77 0 EOF",
            "1: FLOCK  ADVISORY  READ  42 08:01:78 0 EOF",
            "1: FLOCK  ADVISORY  READ  -1 08:01:77 0 EOF",
            "1: -> FLOCK  ADVISORY  READ  42 08:01:77 0 EOF",
            "",
        ] {
            assert_eq!(sharing(other, place), None, "{other}");
        }
    }
}
