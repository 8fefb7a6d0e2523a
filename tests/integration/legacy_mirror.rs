//! The mirror: after each run that moves a watermark, the script's state file says what the state says.

use std::fs;
use std::path::PathBuf;

use crate::legacy::{GOOD, backups, exported, file, put};
use crate::support::listing::{Traces, everything_in};
use crate::support::{Exporter, Row, Table, on_every_source};

#[test]
fn a_tenant_that_a_line_cannot_hold_is_named_and_nothing_is_written() {
    for name in ["a|b", "a\nb", "a\rb", "", "#1", "\u{feff}1"] {
        let table = Table::embedded();
        table.insert(&Row { tenant: name, ..Row::default() });
        let exporter = Exporter::new(&table);
        exporter.run(["run", "--mode", "incremental"]).expect(0);
        let before = everything_in(&[&exporter.output()], Traces::None);
        for target in [&["export-legacy-state"][..], &["export-legacy-state", "-"]] {
            let refused = exporter.run(target).expect(1);
            assert!(refused.last_error().contains("the tenant \"") && refused.stdout.is_empty(), "{refused}");
        }
        assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);
        let failed = exporter.run(["run", "--mirror-legacy-state", "--format", "json"]).expect(1);
        assert!(failed.last_error().contains("the tenant \"") && failed.json()["outcome"] == "success", "{failed}");
    }
}

#[test]
fn after_each_run_that_moves_a_watermark_the_mirror_says_what_the_state_says() {
    on_every_source(|table| {
        table.insert(&Row::default());
        let exporter = Exporter::new(table);
        let args = ["run", "--mode", "incremental", "--mirror-legacy-state"];
        exporter.run(args.iter().chain(&["--dry-run"])).expect(0);
        assert!(!exporter.output().exists());
        // The script's file, before it is imported, is worth more than an empty one.
        put(&exporter, GOOD);
        exporter.run(["run", "--mirror-legacy-state"]).expect(0);
        assert_eq!(fs::read_to_string(file(&exporter)).unwrap(), GOOD);
        for minutes in ["60m", "50m"] {
            exporter.run(args.iter().chain(&["--safety-lag", minutes])).expect(0);
            assert_eq!(fs::read_to_string(file(&exporter)).unwrap(), exported(&exporter));
        }
        let kept = backups(&file(&exporter));
        assert_eq!(kept.len(), 1, "one in a day: {kept:?}");
        assert_eq!(fs::read_to_string(&kept[0]).unwrap(), GOOD);
        let before = everything_in(&[&file(&exporter)], Traces::None);
        exporter.run(["run", "--mirror-legacy-state"]).expect(0);
        assert_eq!(everything_in(&[&file(&exporter)], Traces::None), before, "a full run moves no watermark");
    });
}

#[test]
fn the_newest_backups_of_the_mirror_stay_and_those_of_the_script_are_never_removed() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    put(&exporter, GOOD);
    let name = |end: &str| PathBuf::from(format!("{}.backup.{end}", file(&exporter).display()));
    let scripts = ["20200101_000000", "20200101T000000Z.old", "20200101T000000", "1", "20201301T000000Z"].map(name);
    let ours = ["20200101T000000Z", "20200102T000000Z", "20200103T000000Z"].map(name);
    scripts.iter().chain(&ours).for_each(|path| fs::write(path, "old").unwrap());
    let run = |lag: &str, more: &[&str]| {
        let args =
            ["run", "--mode", "incremental", "--mirror-legacy-state", "--keep-backups", "2", "--safety-lag", lag];
        exporter.run(args.iter().chain(more)).expect(0);
    };
    exporter.run(["run"]).expect(0);
    run("60m", &["--backup-every", "0s"]);
    assert_eq!(backups(&file(&exporter)).len(), 8, "none is made, none goes");
    run("50m", &["--backup-every", "1s"]);
    let left = backups(&file(&exporter));
    let kept_by_script = scripts.iter().all(|path| left.contains(path));
    assert!(left.len() == 7 && kept_by_script && left.contains(&ours[2]), "{left:?}");
}

#[test]
fn a_mirror_that_cannot_be_written_leaves_the_run_as_it_is_and_says_so() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    fs::create_dir_all(file(&exporter)).unwrap();
    for (lang, said) in [("en", "the run is done and recorded"), ("zh", "运行已完成并已记录")] {
        let args = ["run", "--mode", "incremental", "--mirror-legacy-state", "--format", "json", "--lang", lang];
        let failed = exporter.run(args).expect(1);
        let errors: Vec<&str> = failed.stderr.lines().filter(|line| line.starts_with("[ERROR]")).collect();
        assert!(errors.len() == 1 && errors[0].contains(said), "{failed}");
        assert!(errors[0].contains(file(&exporter).to_str().unwrap()), "{failed}");
        assert_eq!(failed.json()["outcome"], "success");
    }
    assert_eq!(exporter.ask("SELECT status FROM run"), ["success", "success"]);
    exporter.assert_agrees();
}
