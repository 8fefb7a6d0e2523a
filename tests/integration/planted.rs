//! Another user owns the output, or may write to it, and plants links and files of their own among ours: in the
//! place of `.export_state` and of each name in it, before a run and while it is at work. Nothing that a link leads to
//! is touched, and the error says which path it is and what to do.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::support::disk::Fuse;
use crate::support::disk::Mount;
use crate::support::exporter::{Finished, Running, spawn_held, spawn_with_at};
use crate::support::listing::{Traces, everything_in};
use crate::support::scene::{FULL, INCREMENTAL};
use crate::support::{Exporter, Row, Table, wait_for};

const ANOTHER: u32 = 1_234;
const ROOT_ONLY: &str = "this test needs root, who acts for both users";

/// The commands that only look, and need no file but the state.
const LOOKS: [&[&str]; 5] =
    [&["status"], &["history"], &["why", "INV1"], &["state", "check"], &["run", "--dry-run", "--mode", "incremental"]];
const RUNS: [&[&str]; 5] = [
    &INCREMENTAL,
    &FULL,
    &["verify"],
    &["state", "reset", "--all", "--yes"],
    &["verify", "--against-source", "--repair", "--prune"],
];

fn table() -> Table {
    let table = Table::embedded();
    table.insert(&Row { number: "INV1", ..Row::default() });
    table
}

fn exported(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::new(table);
    exporter.run(FULL).expect(0);
    exporter.run(["state", "backup"]).expect(0);
    exporter
}

fn private(exporter: &Exporter<'_>) -> PathBuf {
    exporter.output().join(".export_state")
}

/// Files that must stay as they are: a folder that looks like ours, with a file for each name that a run removes or
/// writes.
struct Precious(TempDir);

impl Precious {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["staging/0", "backups", ".export.lock", ".export.lock.new"] {
            fs::create_dir_all(folder.path().join(name)).unwrap();
        }
        let files = [
            "lock",
            "state.db",
            "state.db-wal",
            "state.db-shm",
            "staging/0/important",
            "staging/targets-0",
            "backups/20251128T163000Z-regular.db",
            "backups/20251128T163000Z-regular.db.new",
            ".last_export_time",
            ".export.lock/owner",
            ".export.lock.new/owner",
        ];
        files.iter().for_each(|file| fs::write(folder.path().join(file), "precious\n".repeat(200)).unwrap());
        Self(folder)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Carries out something that must leave all of it as it is.
    #[track_caller]
    fn survives(&self, what: &str, act: impl FnOnce() -> Finished) -> Finished {
        let before = everything_in(&[self.path()], Traces::None);
        let finished = act();
        assert!(everything_in(&[self.path()], Traces::None) == before, "{what} touched what a link leads to");
        finished
    }
}

/// Puts a link to something precious in the place of a name in the output.
fn plant(exporter: &Exporter<'_>, name: &str, precious: &Path) -> PathBuf {
    let link = exporter.output().join(name);
    if fs::symlink_metadata(&link).is_ok() {
        fs::rename(&link, exporter.home().join("before")).unwrap();
    }
    fs::create_dir_all(link.parent().unwrap()).unwrap();
    symlink(precious, &link).unwrap();
    link
}

#[track_caller]
fn assert_refuses_link(finished: Finished, link: &Path) {
    let finished = finished.expect(5);
    for words in [&link.display().to_string(), "is a symbolic link", "remove it", "--state-dir"] {
        assert!(finished.stderr.contains(words), "{words} is missing: {finished}");
    }
}

#[test]
fn a_link_in_the_place_of_our_folder_is_followed_by_no_command() {
    let table = table();
    let exporter = exported(&table);
    let precious = Precious::new();
    let link = plant(&exporter, ".export_state", precious.path());
    let backup = exporter.home().join("before/state.db");
    let others: [&[&str]; 7] = [
        &["state", "backup"],
        &["state", "backups"],
        &["state", "restore", "latest", "--yes"],
        &["state", "restore", backup.to_str().unwrap(), "--adopt-tree", "--yes"],
        &["import-legacy-state", "--yes"],
        &["export-legacy-state"],
        &["run", "--fresh"],
    ];
    for args in LOOKS.iter().chain(&RUNS).chain(&others) {
        let refused = precious.survives(&args.join(" "), || exporter.run(*args));
        assert_refuses_link(refused, &link);
    }
    let chinese = exporter.run(["status", "--lang", "zh"]).expect(5);
    assert!(chinese.stderr.contains("是符号链接") && chinese.stderr.contains("--state-dir"), "{chinese}");
    // As the message says.
    fs::remove_file(&link).unwrap();
    fs::rename(exporter.home().join("before"), &link).unwrap();
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_link_that_is_there_before_the_first_run_is_not_followed() {
    let table = table();
    for names in [&[][..], &["lock"], &["state.db"]] {
        let exporter = Exporter::new(&table);
        let elsewhere = tempfile::tempdir().unwrap();
        names.iter().for_each(|name| fs::write(elsewhere.path().join(name), "precious").unwrap());
        let link = plant(&exporter, ".export_state", elsewhere.path());
        let before = everything_in(&[elsewhere.path()], Traces::None);
        for args in [&FULL, &INCREMENTAL] {
            assert_refuses_link(exporter.run(args), &link);
        }
        assert!(everything_in(&[elsewhere.path()], Traces::None) == before, "something was made behind the link");
        assert!(exporter.tree().is_empty());
    }
}

#[test]
fn a_link_in_the_place_of_a_file_of_ours_is_not_followed() {
    let dry = |args: &&&[&str]| args.contains(&"check") || args.contains(&"--dry-run");
    let of_lock: Vec<_> = LOOKS.iter().filter(dry).chain(&RUNS).copied().collect();
    let of_state: Vec<&[&str]> = LOOKS.iter().chain(&RUNS).copied().chain([&["state", "backup"][..]]).collect();
    let of_backups: Vec<&[&str]> = vec![
        &["state", "backups"],
        &["state", "backup"],
        &["state", "restore", "latest", "--yes"],
        &["state", "reset", "--all", "--yes"],
        &INCREMENTAL,
    ];
    let of_staging: Vec<&[&str]> = vec![&INCREMENTAL, &FULL, &["verify", "--against-source"]];
    let of_legacy: Vec<&[&str]> = vec![&["import-legacy-state", "--yes"], &["export-legacy-state"]];
    for (name, commands) in [
        ("lock", &of_lock),
        ("state.db", &of_state),
        ("state.db-wal", &of_state),
        ("state.db-shm", &RUNS.to_vec()),
        ("staging", &of_staging),
        ("staging/targets-0", &of_staging),
        ("backups", &of_backups),
        (".last_export_time", &of_legacy),
        (".export.lock", &RUNS.to_vec()),
    ] {
        let table = table();
        let exporter = exported(&table);
        let precious = Precious::new();
        let link = plant(&exporter, &format!(".export_state/{name}"), &precious.path().join(name));
        for args in commands {
            let refused = precious.survives(&args.join(" "), || exporter.run(*args));
            assert_refuses_link(refused, &link);
        }
        fs::remove_file(&link).unwrap();
        let before = exporter.home().join("before");
        if before.exists() {
            fs::rename(before, &link).unwrap();
        }
        exporter.run(INCREMENTAL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn links_where_a_run_puts_its_own_files_for_a_moment_are_removed_themselves() {
    let table = table();
    let exporter = exported(&table);
    let precious = Precious::new();
    for name in [".export.lock.new", ".export.lock.old", "state.db.new", "probe-case"] {
        let target = if name.ends_with(".new") { "backups" } else { "lock" };
        plant(&exporter, &format!(".export_state/{name}"), &precious.path().join(target));
    }
    for args in [&INCREMENTAL[..], &FULL, &["state", "restore", "latest", "--yes"], &["run", "--fresh"]] {
        precious.survives(&args.join(" "), || exporter.run(args)).expect(0);
    }
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn the_run_stands_though_the_scripts_state_file_is_a_link() {
    let table = table();
    let exporter = exported(&table).env("INVOICE_EXPORT_MIRROR_LEGACY_STATE", "true");
    let precious = Precious::new();
    let link = plant(&exporter, ".export_state/.last_export_time", &precious.path().join(".last_export_time"));
    let ended = precious.survives("the mirror", || exporter.run(INCREMENTAL)).expect(1);
    assert!(ended.stderr.contains(&link.display().to_string()), "{ended}");
    assert!(ended.stderr.contains("was not written") && ended.stderr.contains("symbolic link"), "{ended}");
    assert_eq!(exporter.ask_one("SELECT status FROM run ORDER BY id DESC LIMIT 1"), "success");
    exporter.assert_agrees();
}

#[test]
fn a_link_among_the_backups_is_no_backup() {
    let table = table();
    let exporter = exported(&table);
    let elsewhere = exporter.home().join("elsewhere.db");
    fs::copy(exporter.state(), &elsewhere).unwrap();
    let link = private(&exporter).join("backups/29991231T000000Z-manual.db");
    symlink(&elsewhere, &link).unwrap();
    assert!(!exporter.run(["state", "backups"]).expect(0).stdout.contains("2999"));
    let restored = exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
    assert!(!restored.stdout.contains("2999"), "{restored}");
    assert_refuses_link(exporter.run(["state", "restore", link.to_str().unwrap(), "--yes"]), &link);
    // Elsewhere an operator may give a backup any name.
    let named = exporter.home().join("my-backup.db");
    symlink(&elsewhere, &named).unwrap();
    exporter.run(["state", "restore", named.to_str().unwrap(), "--yes"]).expect(0);
}

/// A full run that waits in the middle of its second batch.
fn stopped_run(exporter: &Exporter<'_>) -> Running {
    let run = spawn_held(exporter, "linkat", 1050, &FULL);
    wait_for("the second batch", || {
        assert!(run.is_alive(), "the second batch is never begun");
        exporter.tree().len() >= 1_040
    });
    run
}

#[test]
fn our_folder_is_swapped_for_a_link_while_a_run_is_stopped() {
    let table = Table::embedded();
    table.load_sample(1_500, 6, "1:1.0");
    for aside_is_there in [true, false] {
        let exporter = Exporter::new(&table);
        fs::create_dir(exporter.output()).unwrap();
        chown(exporter.output(), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
        let run = stopped_run(&exporter);
        let precious = Precious::new();
        let link = private(&exporter);
        let aside = exporter.home().join("before");
        let ended = precious.survives("the run", || {
            fs::rename(&link, &aside).unwrap();
            if aside_is_there {
                symlink(precious.path(), &link).unwrap();
            } else {
                // Not a link: a folder that looks like ours.
                fs::create_dir(&link).unwrap();
                fs::write(link.join("state.db-wal"), "precious").unwrap();
            }
            run.go_on();
            run.wait().expect(5)
        });
        for words in [&link.display().to_string(), "was moved or replaced", "--state-dir"] {
            assert!(ended.stderr.contains(words), "{words} is missing: {ended}");
        }
        if aside_is_there {
            fs::remove_file(&link).unwrap();
        } else {
            assert_eq!(fs::read_to_string(link.join("state.db-wal")).unwrap(), "precious");
            fs::remove_dir_all(&link).unwrap();
        }
        fs::rename(&aside, &link).unwrap();
        exporter.run(FULL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn state_or_log_are_swapped_while_a_run_is_stopped() {
    let table = Table::embedded();
    table.load_sample(1_500, 6, "1:1.0");
    for name in ["state.db", "state.db-wal", "state.db-shm"] {
        let exporter = Exporter::new(&table);
        fs::create_dir_all(private(&exporter)).unwrap();
        chown(private(&exporter), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
        let run = stopped_run(&exporter);
        let (file, aside) = (private(&exporter).join(name), exporter.home().join("before"));
        fs::rename(&file, &aside).unwrap();
        fs::copy(&aside, &file).unwrap();
        let copy = fs::read(&file).unwrap();
        run.go_on();
        let ended = run.wait().expect(5);
        assert!(ended.stderr.contains(&format!("{} was moved or replaced", file.display())), "{ended}");
        assert!(fs::read(&file).unwrap() == copy, "{name} of another user was written to");
        fs::rename(&aside, &file).unwrap();
        exporter.run(FULL).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    }
}

#[test]
fn our_folder_is_swapped_for_a_link_at_the_moment_when_the_state_is_opened() {
    let table = table();
    let exporter = exported(&table);
    chown(exporter.output(), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    let run = spawn_with_at(&exporter, ".export_state/state.db", "openat:delay_enter=3000000:when=1", &INCREMENTAL);
    let (link, aside) = (private(&exporter), exporter.home().join("before"));
    // The state is opened after the lock folder is there.
    wait_for("its lock", || {
        assert!(run.is_alive(), "it takes no lock");
        link.join(".export.lock/owner").exists()
    });
    let precious = Precious::new();
    let ended = precious.survives("the run", || {
        fs::rename(&link, &aside).unwrap();
        symlink(precious.path(), &link).unwrap();
        run.wait().expect(5)
    });
    assert!(ended.stderr.contains("was moved or replaced") && ended.stderr.contains("--state-dir"), "{ended}");
    fs::remove_file(&link).unwrap();
    fs::rename(&aside, &link).unwrap();
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_state_that_no_other_user_can_reach_is_not_disturbed_by_a_swap() {
    let table = Table::embedded();
    table.load_sample(1_500, 6, "1:1.0");
    let apart = tempfile::tempdir().unwrap();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", apart.path());
    fs::create_dir(exporter.output()).unwrap();
    chown(exporter.output(), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    let run = stopped_run(&exporter);
    let precious = Precious::new();
    let (link, aside) = (private(&exporter), exporter.home().join("before"));
    precious.survives("the run", || {
        fs::rename(&link, &aside).unwrap();
        symlink(precious.path(), &link).unwrap();
        run.go_on();
        run.wait().expect(0)
    });
    assert_refuses_link(exporter.run(INCREMENTAL), &link);
    fs::remove_file(&link).unwrap();
    fs::rename(&aside, &link).unwrap();
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn files_of_another_user_are_not_taken_for_ours() {
    for name in ["lock", "state.db", "state.db-wal", "state.db-shm", "state.db-journal"] {
        let table = table();
        let exporter = exported(&table);
        let file = private(&exporter).join(name);
        fs::OpenOptions::new().append(true).create(true).open(&file).unwrap();
        chown(&file, Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
        let before = fs::read(&file).unwrap();
        let refused = exporter.run(INCREMENTAL).expect(5);
        let words = format!("{} belongs to another user", file.display());
        assert!(refused.stderr.contains(&words) && refused.stderr.contains("chown"), "{refused}");
        assert!(fs::read(&file).unwrap() == before && fs::metadata(&file).unwrap().uid() == ANOTHER);
    }
}

#[test]
fn a_hard_link_of_another_user_is_not_written_through() {
    let table = table();
    let exporter = exported(&table);
    let precious = exporter.home().join("precious");
    let lock = private(&exporter).join("lock");
    let aside = exporter.home().join("before");
    fs::copy(&lock, &precious).unwrap();
    let before = fs::read(&precious).unwrap();
    fs::rename(&lock, &aside).unwrap();
    fs::hard_link(&precious, &lock).unwrap();
    chown(private(&exporter), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    let refused = exporter.run(INCREMENTAL).expect(5);
    assert!(refused.stderr.contains(&lock.display().to_string()) && refused.stderr.contains("hard links"), "{refused}");
    assert!(fs::read(&precious).unwrap() == before, "the file behind the hard link was written to");
    // Of our own folder we may have made a copy with `cp -al`.
    fs::rename(&aside, &lock).unwrap();
    fs::hard_link(&lock, exporter.home().join("copy")).unwrap();
    chown(private(&exporter), Some(0), Some(0)).unwrap();
    exporter.run(INCREMENTAL).expect(0);
}

#[test]
fn an_output_of_another_user_is_exported_into_all_the_same() {
    let table = table();
    let exporter = Exporter::new(&table);
    fs::create_dir(exporter.output()).unwrap();
    chown(exporter.output(), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    let verify = ["verify", "--against-source"];
    for args in [&INCREMENTAL[..], &FULL, &["state", "backup"], &verify, &["status"]] {
        exporter.run(args).expect(0);
    }
    // As the script may have made it.
    chown(private(&exporter), Some(ANOTHER), Some(ANOTHER)).unwrap();
    for args in [&INCREMENTAL[..], &FULL, &["state", "backup"], &["status"]] {
        exporter.run(args).expect(0);
    }
    exporter.run(["state", "restore", "latest", "--yes"]).expect(0);
    exporter.run(["state", "reset", "--all", "--yes"]).expect(0);
    table.insert(&Row { id: 2, number: "INV2", ..Row::default() });
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    let mut left: Vec<_> = fs::read_dir(private(&exporter)).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["backups", "lock", "state.db"]);
}

#[test]
fn a_user_who_is_not_root_exports_into_folders_that_a_group_or_all_may_write_to() {
    const NOBODY: u32 = 65_534;
    let table = table();
    let source = PathBuf::from(table.url().strip_prefix("sqlite:").unwrap());
    let exporter = Exporter::new(&table);
    fs::create_dir(exporter.output()).unwrap();
    for path in [source.parent().unwrap(), &source, exporter.home(), &exporter.output()] {
        chown(path, Some(NOBODY), Some(NOBODY)).expect(ROOT_ONLY);
    }
    for mode in [0o755, 0o2775, 0o777, 0o1777] {
        fs::set_permissions(exporter.output(), fs::Permissions::from_mode(mode)).unwrap();
        for args in [&INCREMENTAL[..], &FULL, &["verify"], &["state", "backup"], &["status"]] {
            let mut command = exporter.command(args);
            Running::new(command.uid(NOBODY).gid(NOBODY)).wait().expect(0);
        }
    }
    exporter.assert_agrees();
}

#[test]
fn a_state_folder_of_another_user_is_not_used() {
    let table = table();
    let folder = tempfile::tempdir().unwrap();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", folder.path());
    chown(folder.path(), Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    for args in [&FULL, &INCREMENTAL] {
        let refused = exporter.run(args).expect(5);
        let words = format!("{} belongs to another user", folder.path().display());
        assert!(refused.stderr.contains(&words), "{refused}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    chown(folder.path(), Some(0), Some(0)).unwrap();
    exporter.run(FULL).expect(0);
}

#[test]
fn a_state_folder_is_reached_through_our_own_links_alone() {
    let table = table();
    let home = tempfile::tempdir().unwrap();
    let (theirs, elsewhere) = (home.path().join("theirs"), home.path().join("elsewhere"));
    fs::create_dir_all(elsewhere.join("state")).unwrap();
    fs::create_dir(&theirs).unwrap();
    let link = theirs.join("link");
    symlink(&elsewhere, &link).unwrap();
    let mut exporter = Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", link.join("new"));
    lchown(&link, Some(ANOTHER), Some(ANOTHER)).expect(ROOT_ONLY);
    for args in [&FULL, &INCREMENTAL] {
        assert_refuses_link(exporter.run(args), &link);
    }
    exporter.set("INVOICE_EXPORT_STATE_DIR", link.join("state"));
    for args in [&FULL[..], &INCREMENTAL, &["status"], &["run", "--dry-run"], &["state", "backups"]] {
        assert_refuses_link(exporter.run(args), &link);
    }
    assert!(!elsewhere.join("new").exists(), "a folder was made behind the link");
    assert_eq!(fs::read_dir(elsewhere.join("state")).unwrap().count(), 0);
    // Our own, in a folder that another user may change.
    lchown(&link, Some(0), Some(0)).unwrap();
    chown(&theirs, Some(ANOTHER), Some(ANOTHER)).unwrap();
    exporter.run(FULL).expect(0);
    exporter.run(INCREMENTAL).expect(0);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn where_all_new_files_get_another_owner_they_are_ours() {
    let table = table();
    let served = tempfile::tempdir().unwrap();
    let apart = tempfile::tempdir().unwrap();
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_STATE_DIR", apart.path());
    let _fuse = Fuse::owned_by(ANOTHER, served.path(), exporter.home());
    for args in [&FULL[..], &INCREMENTAL, &INCREMENTAL, &["verify"]] {
        exporter.run(args).expect(0);
    }
    assert_eq!(fs::metadata(private(&exporter).join("lock")).unwrap().uid(), ANOTHER);
    exporter.assert_agrees();
}

#[test]
fn a_mount_point_in_the_place_of_a_folder_of_ours_is_refused_with_the_remedy() {
    let table = table();
    for name in [".export_state", ".export_state/staging"] {
        let exporter = exported(&table);
        let folder = exporter.output().join(name);
        fs::create_dir_all(&folder).unwrap();
        let mount = Mount::memory(&folder, "size=1m");
        for language in ["en", "zh"] {
            let refused = exporter.run(["--lang", language, "run", "--mode", "full"]).expect(5);
            assert!(refused.stderr.contains(folder.to_str().unwrap()), "{refused}");
            assert!(refused.stderr.contains("--state-dir"), "{refused}");
        }
        drop(mount);
        exporter.run(["run", "--mode", "full"]).expect(0);
    }
}

#[test]
fn a_socket_in_the_place_of_a_file_of_ours_is_no_ordinary_file() {
    let table = table();
    for name in ["lock", "state.db"] {
        let exporter = exported(&table);
        let file = private(&exporter).join(name);
        fs::remove_file(&file).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(&file).unwrap();
        for args in [&["run"][..], &["state", "check"]] {
            let refused = exporter.run(args).expect(5);
            assert!(refused.stderr.contains("is no ordinary file"), "{refused}");
        }
    }
}
