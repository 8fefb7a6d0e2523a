//! Folders that hand down a group (setgid) or a default ACL: exported files get what a file made there by hand gets, and
//! `verify` finds those that have not.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::Path;

use rustix::fs::{XattrFlags, fsetxattr, getxattr};
use serde_json::Value;

use crate::support::disk::{Disk, Format};
use crate::support::exporter::{Exporter, Finished};
use crate::support::table::{Row, Table};

const GROUP: u32 = 4_242;
const READER: u32 = 1_234;
const EXPORTER: u32 = 5_678;
const DEFAULT: &str = "system.posix_acl_default";
const ACCESS: &str = "system.posix_acl_access";
const ROOT_ONLY: &str = "this test needs root, who acts for all users";

/// Owner, the reader, group, mask and others. `mask` is what the group's bits of the mode show.
fn acl(reader: u16, mask: u16, others: u16) -> Vec<u8> {
    const NOBODY: u32 = u32::MAX;
    let entries = [(1, 7, NOBODY), (2, reader, READER), (4, 5, NOBODY), (0x10, mask, NOBODY), (0x20, others, NOBODY)];
    let bytes = |(tag, permissions, id): (u16, u16, u32)| {
        [&tag.to_le_bytes()[..], &permissions.to_le_bytes(), &id.to_le_bytes()].concat()
    };
    [2, 0, 0, 0].into_iter().chain(entries.into_iter().flat_map(bytes)).collect()
}

fn set_default_acl(folder: &Path, acl: &[u8]) {
    fsetxattr(File::open(folder).unwrap(), DEFAULT, acl, XattrFlags::empty()).unwrap();
}

fn set_group(folder: &Path, group: u32) {
    chown(folder, None, Some(group)).expect(ROOT_ONLY);
    fs::set_permissions(folder, Permissions::from_mode(0o2755)).unwrap();
}

/// What decides who may read a file.
fn access(file: &Path) -> (u32, u32, u32, Option<Vec<u8>>) {
    let data = fs::metadata(file).unwrap();
    let mut acl = vec![0; 256];
    let acl = getxattr(file, ACCESS, &mut acl[..]).ok().map(|length| acl[..length].to_vec());
    (data.uid(), data.gid(), data.mode(), acl)
}

/// Every exported file is like one that is made beside it by hand.
#[track_caller]
fn assert_like_by_hand(exporter: &Exporter<'_>) {
    let tree = exporter.tree();
    assert!(!tree.is_empty());
    for path in tree.keys() {
        let file = exporter.output().join(path);
        let by_hand = file.with_extension("by-hand");
        fs::write(&by_hand, "").unwrap();
        assert_eq!(access(&file), access(&by_hand), "{path}");
        fs::remove_file(by_hand).unwrap();
    }
    exporter.run(["verify"]).expect(0);
}

fn insert(table: &Table, id: i64, tenant: &str, country: &str) {
    table.insert(&Row { id, tenant, country: Some(country), number: &format!("INV{id}"), ..Row::default() });
}

fn full(exporter: &Exporter<'_>, durability: &str) -> Finished {
    exporter.run(["run", "--mode", "full", "--durability", durability]).expect(0)
}

#[test]
fn files_get_the_group_and_the_acl_of_their_folders_new_and_replaced_ones() {
    for durability in ["batch", "file"] {
        let table = Table::embedded();
        for (id, tenant) in [(1, "1"), (2, "10"), (3, "89"), (4, "90")] {
            insert(&table, id, tenant, "CN");
        }
        let exporter = Exporter::new(&table);
        full(&exporter, durability);
        let folder = |path: &str| exporter.output().join(path);
        set_group(&folder("1"), GROUP);
        set_group(&folder("1/CN"), GROUP);
        for path in ["10", "10/CN"] {
            set_default_acl(&folder(path), &acl(7, 7, 0));
        }
        // A setgid folder with an ACL that takes more away than it gives.
        set_group(&folder("89"), GROUP + 1);
        set_default_acl(&folder("89"), &acl(4, 4, 4));
        // Into folders that are there, and into new ones, which inherit it all.
        table.execute("UPDATE t_invoice SET fext_field = '{\"version\": 2}'");
        for (id, tenant, country) in
            [(11, "1", "CN"), (12, "10", "CN"), (13, "1", "DE"), (14, "10", "DE"), (15, "89", "DE"), (16, "91", "DE")]
        {
            insert(&table, id, tenant, country);
        }
        let run = full(&exporter, durability);
        assert!(!run.stderr.contains("[WARN]"), "{run}");
        assert_like_by_hand(&exporter);
        exporter.assert_agrees();
        assert_eq!(fs::metadata(folder("1/DE/20251128+INV13.json")).unwrap().gid(), GROUP);
        assert_eq!(access(&folder("10/DE/20251128+INV14.json")).3, Some(by_acl(7, 6)));
    }
}

/// Of a file in a folder with this ACL.
fn by_acl(reader: u16, mask: u16) -> Vec<u8> {
    let mut bytes = acl(reader, mask, 0);
    bytes[6] = 6;
    bytes
}

#[test]
fn files_get_nothing_of_the_output_where_their_folder_hands_nothing_down() {
    let table = Table::embedded();
    insert(&table, 1, "1", "CN");
    insert(&table, 2, "10", "CN");
    let exporter = Exporter::new(&table);
    fs::create_dir(exporter.output()).unwrap();
    set_group(&exporter.output(), GROUP);
    set_default_acl(&exporter.output(), &acl(7, 7, 0));
    full(&exporter, "batch");
    assert_like_by_hand(&exporter);
    for path in ["1", "1/CN"] {
        let folder = exporter.output().join(path);
        fs::set_permissions(&folder, Permissions::from_mode(0o0755)).unwrap();
        rustix::fs::fremovexattr(File::open(&folder).unwrap(), DEFAULT).unwrap();
        rustix::fs::fremovexattr(File::open(&folder).unwrap(), ACCESS).unwrap();
        fs::set_permissions(&folder, Permissions::from_mode(0o0755)).unwrap();
    }
    table.execute("UPDATE t_invoice SET fext_field = '{\"version\": 2}'");
    insert(&table, 3, "1", "DE");
    full(&exporter, "batch");
    assert_like_by_hand(&exporter);
}

#[test]
fn verify_finds_files_without_the_group_or_the_acl_of_their_folder() {
    let table = Table::embedded();
    for (id, tenant) in [(1, "1"), (2, "10"), (3, "89")] {
        insert(&table, id, tenant, "CN");
    }
    let exporter = Exporter::new(&table);
    full(&exporter, "batch");
    set_group(&exporter.output().join("1/CN"), GROUP);
    set_default_acl(&exporter.output().join("10/CN"), &acl(7, 6, 4));
    let found = exporter.run(["verify", "--format", "json"]).expect(6).json();
    let listed = found["findings"].as_array().unwrap();
    let told: Vec<(&Value, &str)> =
        listed.iter().map(|finding| (&finding["path"], finding["detail"].as_str().unwrap())).collect();
    assert!(listed.iter().all(|finding| finding["difference"] == "permissions") && told.len() == 2, "{found}");
    assert!(told[0].0 == "1/CN/20251128+INV1.json" && told[0].1.contains("hands down 4242"), "{found}");
    assert!(told[1].0 == "10/CN/20251128+INV2.json", "{found}");
    let chinese = exporter.run(["verify", "--lang", "zh"]).expect(6);
    assert!(chinese.stdout.contains("属组为 0，按其目录应为 4242"), "{chinese}");
    // With the mode, but not with the entries.
    let file = exporter.output().join("10/CN/20251128+INV2.json");
    fs::set_permissions(file, Permissions::from_mode(0o664)).unwrap();
    let chinese = exporter.run(["verify", "--lang", "zh"]).expect(6);
    assert!(chinese.stdout.contains("默认 ACL"), "{chinese}");
}

#[test]
fn a_group_that_may_not_be_given_is_warned_of_once_and_found_by_verify() {
    let table = Table::embedded();
    for (id, tenant) in [(1, "1"), (2, "10")] {
        insert(&table, id, tenant, "CN");
    }
    let exporter = Exporter::new(&table);
    fs::create_dir(exporter.output()).unwrap();
    chown(exporter.output(), Some(EXPORTER), Some(EXPORTER)).expect(ROOT_ONLY);
    let run = |args: &[&str]| exporter.spawn_as(EXPORTER, EXPORTER, args).wait();
    run(&["run"]).expect(0);
    for path in ["1/CN", "10/CN"] {
        set_group(&exporter.output().join(path), GROUP);
    }
    table.execute("UPDATE t_invoice SET fext_field = '{\"version\": 2}'");
    let warned = run(&["run"]).expect(0);
    let warning = "do not get the group or ACL that the folder hands down";
    assert!(warned.stderr.matches(warning).count() == 1 && warned.stderr.contains("a member of the group"), "{warned}");
    exporter.assert_agrees();
    let found = run(&["verify", "--format", "json"]).expect(6).json();
    assert_eq!(found["differences"], 2, "{found}");
}

#[test]
fn folders_that_hand_nothing_down_cost_no_call_of_their_files() {
    let table = Table::embedded();
    (1..=20).for_each(|id| insert(&table, id, "1", "CN"));
    let exporter = Exporter::new(&table);
    let calls = ["fgetxattr", "fsetxattr", "fchown", "fchmod"];
    let (counts, finished) = crate::support::exporter::all_calls(&exporter, &calls, &["run"]);
    finished.expect(0);
    // One of the staging folder, one of the folder of the files. SQLite chowns its own files.
    let [("fgetxattr", 2), ("fsetxattr", 0), ("fchown", 0..4), ("fchmod", 0..4)] = counts[..] else {
        panic!("{counts:?}")
    };
}

#[test]
fn on_xfs_too_files_get_what_their_folders_hand_down() {
    let table = Table::embedded();
    insert(&table, 1, "1", "CN");
    let exporter = Exporter::new(&table);
    let _disk = Disk::new(Format::Xfs, exporter.home());
    full(&exporter, "batch");
    let folder = exporter.output().join("1/CN");
    set_group(&folder, GROUP);
    set_default_acl(&folder, &acl(7, 7, 0));
    insert(&table, 2, "1", "CN");
    full(&exporter, "batch");
    let (file, by_hand) = (folder.join("20251128+INV2.json"), folder.join("by-hand"));
    fs::write(&by_hand, "").unwrap();
    assert_eq!(access(&file), access(&by_hand));
}
