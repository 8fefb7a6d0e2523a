//! Coming from the script and going back: its state file is read, written and mirrored.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::support::exporter::{Exporter, Finished, numbers, on_a_terminal, run_with};
use crate::support::listing::{Traces, everything_in};
use crate::support::state::meddle;
use crate::support::{Row, Table, on_every_flavor, on_every_source, server};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
pub(crate) const IMPORT: &str = "import-legacy-state";
const INCREMENTAL: [&str; 5] = ["run", "--mode", "incremental", "--format", "json"];

/// Where the script keeps its state file.
pub(crate) fn file(exporter: &Exporter<'_>) -> PathBuf {
    exporter.output().join(".export_state/.last_export_time")
}

/// As the script left it.
pub(crate) fn put(exporter: &Exporter<'_>, content: impl AsRef<[u8]>) {
    fs::create_dir_all(file(exporter).parent().unwrap()).unwrap();
    fs::write(file(exporter), content).unwrap();
}

fn import(exporter: &Exporter<'_>, content: &str, args: &[&str]) -> Finished {
    put(exporter, content);
    exporter.run([IMPORT].iter().chain(args))
}

/// What `export-legacy-state` prints.
#[track_caller]
pub(crate) fn exported(exporter: &Exporter<'_>) -> String {
    exporter.run(["export-legacy-state", "-"]).expect(0).stdout
}

/// The backups of a file, by name.
pub(crate) fn backups(file: &Path) -> Vec<PathBuf> {
    let beginning = format!("{}.backup.", file.file_name().unwrap().to_str().unwrap());
    let entries = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let mut found: Vec<PathBuf> =
        entries.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(&beginning)).collect();
    found.sort();
    found
}

fn tenant(exporter: &Exporter<'_>, name: &str) -> String {
    exporter.ask_one(&format!(
        "SELECT watermark, look_back, newest, last_written, last_outcome FROM tenant WHERE name = '{name}'"
    ))
}

/// A thousand lines, with names and times as nobody would choose them.
fn thousand() -> String {
    let odd = [
        "票据",
        " leading",
        "trailing ",
        "a\tb",
        "acme",
        "ACME",
        "é",
        "e\u{301}",
        "%00",
        "'; DROP TABLE tenant; --",
        "-",
        "\u{202e}x",
        "\u{1b}[31mred",
        "a/b",
        "..",
        "\"",
        "\\",
        " ",
        "NULL",
        "0",
        "00",
        "a\0b",
        "\u{feff}x",
        "a#b",
    ];
    let name = |n: usize| odd.get(n).map_or_else(|| format!("tenant-{n}"), |name| (*name).to_owned());
    let line = |n: usize| {
        let time = match n % 4 {
            0 => "1970-01-01 00:00:00".to_owned(),
            1 => format!("2025-11-{:02} 23:59:59.{:06}", 1 + n % 30, n),
            _ => format!("2025-11-{:02} {:02}:{:02}:00", 1 + n % 30, n % 24, n % 60),
        };
        format!("{}|{time}|{}|{}\n", name(n), n * n, if n.is_multiple_of(7) { "FAILED" } else { "SUCCESS" })
    };
    // A tenant that begins with a byte order mark cannot stand first, and need not.
    (0..1_000).map(line).filter(|line| !line.starts_with('\u{feff}')).collect()
}

#[test]
fn a_thousand_tenants_come_in_and_go_out_as_they_were() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let content = thousand();
    import(&exporter, &content, &[]).expect(0);
    assert_eq!(exported(&exporter), content);
    let before = everything_in(&[&exporter.output()], Traces::None);
    let again = exporter.run([IMPORT]).expect(0);
    assert!(again.stdout.contains("nothing to change"), "{again}");
    exporter.run(["export-legacy-state"]).expect(0);
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);
    assert_eq!(exporter.ask_one("SELECT count(*) FROM state_change"), "1");
    exporter.run(["state", "check", "--deep"]).expect(0);

    let elsewhere = Exporter::new(&table);
    fs::create_dir(elsewhere.output()).unwrap();
    elsewhere.run([IMPORT, file(&exporter).to_str().unwrap()]).expect(0);
    assert_eq!(exported(&elsewhere), content);
}

#[test]
fn what_an_editor_leaves_in_the_file_is_read_over_and_the_import_is_on_record() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let content = "\u{feff}# tenant|time|count|status\r\n1|2025-11-28 16:30:00|127|SUCCESS\r\n\r\n  \n10|2025-11-28 16:30:00|0|FAILED\n10|2025-11-28 16:30:00|0|FAILED\r\n# end";
    import(&exporter, content, &["--reason", "we moved"]).expect(0);
    assert_eq!(exported(&exporter), "1|2025-11-28 16:30:00|127|SUCCESS\n10|2025-11-28 16:30:00|0|FAILED\n");
    let digest: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    let record = exporter.ask_one("SELECT kind, last_run, reason, file, sha256, lines FROM state_change");
    assert_eq!(record, format!("import 0 we moved {} {digest} 7", file(&exporter).display()));
    let who = exporter
        .ask_one("SELECT user <> '' AND host <> '' AND command_line LIKE '%import-legacy-state%' FROM state_change");
    assert_eq!(who, "1");
    let moved = exporter.ask("SELECT change, name, old, new FROM watermark_change JOIN tenant ON n = tenant");
    assert_eq!(moved, ["1 1 NULL 2025-11-28 16:30:00", "1 10 NULL 2025-11-28 16:30:00"]);
    assert_eq!(tenant(&exporter, "1"), "2025-11-28 16:30:00 2025-11-28 15:30:00 NULL 127 success");
    assert_eq!(tenant(&exporter, "10"), "2025-11-28 16:30:00 NULL NULL 0 failed");
}

pub(crate) const GOOD: &str = "1|2025-11-28 16:30:00|127|SUCCESS\n";

/// The end of a damaged file, the line that is to blame and what is said about it.
const DAMAGED: [(&[u8], u32, &str); 22] = [
    (b"10|2025-11-28 16:3", 2, "2 fields"),
    (b"10|2025-11-28 16:30:00|85\n", 2, "3 fields"),
    (b"10|DE|2025-11-28 16:30:00|85|SUCCESS\n", 2, "5 fields"),
    (b"10 2025-11-28 16:30:00 85 SUCCESS\n", 2, "1 fields"),
    (b"|2025-11-28 16:30:00|85|SUCCESS\n", 2, "tenant is empty"),
    (b"\n# x\n10|2025-02-30 16:30:00|85|SUCCESS\n", 4, "is no time"),
    (b"10|2025-11-28 24:00:00|85|SUCCESS\n", 2, "is no time"),
    (b"10|2025-11-28 16:30:60|85|SUCCESS\n", 2, "is no time"),
    (b"10|2025-11-28 16:30|85|SUCCESS\n", 2, "is no time"),
    (b"10|2025-11-28T16:30:00|85|SUCCESS\n", 2, "is no time"),
    (b"10|2025-11-28 16:30:00.|85|SUCCESS\n", 2, "is no time"),
    (b"10|0000-00-00 00:00:00|85|SUCCESS\n", 2, "is no time"),
    (b"10||85|SUCCESS\n", 2, "is no time"),
    (b"10|2999-01-01 00:00:00|85|SUCCESS\n", 2, "lies in the future"),
    (b"10|2025-11-28 16:30:00|-1|SUCCESS\n", 2, "no number"),
    (b"10|2025-11-28 16:30:00|99999999999999999999|SUCCESS\n", 2, "no number"),
    (b"10|2025-11-28 16:30:00| 85|SUCCESS\n", 2, "no number"),
    (b"10|2025-11-28 16:30:00|85|RUNNING\n", 2, "SUCCESS or FAILED"),
    (b"10|2025-11-28 16:30:00|85|success\n", 2, "SUCCESS or FAILED"),
    (b"1\xff0|2025-11-28 16:30:00|85|SUCCESS\n", 2, "not UTF-8 at byte 1"),
    (b"1|2025-11-28 16:30:00|128|SUCCESS\n", 2, "stands in line 1 already"),
    (b"\0\0\0\0\0\0\0\0\0\0", 2, "1 fields"),
];

#[test]
fn a_damaged_file_is_refused_with_the_line_to_blame_and_nothing_is_changed() {
    let table = Table::embedded();
    for (end, line, what) in DAMAGED {
        let exporter = Exporter::new(&table);
        let refuses = |state: &str| {
            put(&exporter, [GOOD.as_bytes(), end].concat());
            let before = everything_in(&[&exporter.output()], Traces::None);
            for args in [&[IMPORT][..], &[IMPORT, "--dry-run"], &[IMPORT, "--lang", "zh", "--overwrite", "--yes"]] {
                let refused = exporter.run(args).expect(1);
                let told = refused.stderr.lines().next().unwrap_or_default();
                let place = format!("{}:{line}: ", file(&exporter).display());
                assert!(told.contains(&place), "{state}, {what}: {refused}");
                assert!(told.contains(what) != args.contains(&"zh"), "{state}, {what}: {refused}");
                let ended = [format!("1 wrong line ({line})"), format!("第 {line} 行")];
                assert!(ended.iter().any(|words| refused.last_error().contains(words)), "{refused}");
                assert_eq!((refused.stdout.as_str(), refused.stderr.lines().count()), ("", 3), "{refused}");
                assert_eq!(everything_in(&[&exporter.output()], Traces::None), before, "{state}, {what}: {refused}");
            }
        };
        refuses("without a state");
        import(&exporter, "1|2025-11-28 16:30:00|126|SUCCESS\nother|2025-11-28 16:30:00|1|FAILED\n", &[]).expect(0);
        refuses("with a state");
    }
}

#[test]
fn a_file_that_names_no_tenant_is_refused() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for content in ["", "\n\n", "# nothing yet\n", "\u{feff}"] {
        let refused = import(&exporter, content, &[]).expect(1);
        assert!(refused.last_error().contains("names no tenant") && !exporter.state().exists(), "{refused}");
    }
    fs::remove_file(file(&exporter)).unwrap();
    let refused = exporter.run([IMPORT]).expect(2);
    assert!(refused.last_error().contains(file(&exporter).to_str().unwrap()), "{refused}");
}

#[test]
fn all_wrong_lines_are_told_but_no_more_than_twenty() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let content: String =
        (1..=60).map(|n| if n % 2 == 0 { format!("\u{1b}[{n}m\n") } else { GOOD.to_owned() }).collect();
    let refused = import(&exporter, &content, &[]).expect(1);
    let told: Vec<&str> = refused.stderr.lines().filter(|line| line.starts_with("[ERROR]")).collect();
    assert_eq!(told.len(), 21, "{refused}");
    assert!(told[0].contains(":2: ") && told[0].ends_with("\\u001b[2m") && told[19].contains(":40: "), "{refused}");
    assert!(told[20].contains("30 wrong lines (2, 4,") && told[20].contains("40, ...)"), "{refused}");
    let json = exporter.run([IMPORT, "--format", "json"]).expect(1).json();
    assert!(json["error"].as_str().unwrap().contains("30 wrong lines"), "{json}");
}

#[test]
fn a_dry_run_shows_what_would_change_and_leaves_no_trace() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let old = "1|2025-11-28 16:30:00|1|SUCCESS\n2|2025-11-28 16:30:00|1|SUCCESS\n3|2025-11-28 16:30:00|1|SUCCESS\n";
    put(&exporter, old);
    let untouched = everything_in(&[&exporter.output()], Traces::None);
    exporter.run([IMPORT, "--dry-run"]).expect(0);
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), untouched);

    exporter.run([IMPORT]).expect(0);
    put(
        &exporter,
        "1|2025-11-28 17:30:01|1|SUCCESS\n2|2025-11-28 16:29:00|1|SUCCESS\n3|2025-11-28 16:30:00|9|FAILED\n4|2025-11-28 16:30:00|1|SUCCESS\n",
    );
    let untouched = everything_in(&[&exporter.output()], Traces::None);
    let shown = exporter.run([IMPORT, "--dry-run", "--format", "csv"]).expect(0);
    let expected = "tenant,old,new,change,difference_seconds,doubt\n\
                    1,2025-11-28 16:30:00,2025-11-28 17:30:01,forward,3601,\n\
                    2,2025-11-28 16:30:00,2025-11-28 16:29:00,backward,-60,\n\
                    3,2025-11-28 16:30:00,2025-11-28 16:30:00,same,0,\n\
                    4,,2025-11-28 16:30:00,new,,\n";
    assert_eq!(shown.stdout, expected);
    assert!(shown.stderr.contains("--overwrite"), "{shown}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), untouched);
}

#[test]
fn watermarks_go_back_only_by_an_option_and_known_ones_move_only_by_consent() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    import(&exporter, "1|2025-11-28 16:30:00|1|SUCCESS\n2|2025-11-28 16:30:00|1|SUCCESS\n", &[]).expect(0);
    put(&exporter, "1|2025-11-28 16:31:00|1|SUCCESS\n2|2025-11-28 16:29:00|1|SUCCESS\n");
    let before = everything_in(&[&exporter.output()], Traces::None);
    let refused = exporter.run([IMPORT, "--yes"]).expect(1);
    assert!(
        refused.last_error().contains("of 1 tenant: 2;") && refused.last_error().contains("--overwrite"),
        "{refused}"
    );
    let refused = exporter.run([IMPORT, "--overwrite"]).expect(2);
    assert!(
        refused.last_error().contains("2 known tenants: 1, 2") && refused.last_error().contains("--yes"),
        "{refused}"
    );
    let (aborted, text) = on_a_terminal(&exporter, "import-legacy-state --overwrite", "n");
    assert!(aborted == 1 && text.contains("2 known tenants: 1, 2") && text.contains("nothing was changed"), "{text}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);

    let (code, text) = on_a_terminal(&exporter, "import-legacy-state --overwrite", "y");
    assert_eq!(code, 0, "{text}");
    assert_eq!(exported(&exporter), fs::read_to_string(file(&exporter)).unwrap());
    let backups = exporter.run(["state", "backups", "--format", "json"]).expect(0).json();
    assert!(backups[0].to_string().contains("before-import"), "{backups}");
}

#[test]
fn what_was_not_read_yet_is_still_to_be_read_whichever_way_the_watermark_goes() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let lines = |hour: u32| {
        ["low", "high", "all", "new"].map(|name| format!("{name}|2025-11-28 {hour}:30:00|1|SUCCESS\n")).concat()
    };
    import(&exporter, &lines(16), &[]).expect(0);
    let prepare = "UPDATE tenant SET look_back = '2025-11-28 01:00:00', newest = 'x' WHERE name = 'low';
                   UPDATE tenant SET look_back = '2025-11-28 16:00:00', newest = 'x' WHERE name = 'high';
                   UPDATE tenant SET look_back = NULL, newest = 'x' WHERE name = 'all';
                   UPDATE tenant SET look_back = NULL, watermark = NULL WHERE name = 'new'";
    for (hour, high) in [(18, "16:00"), (14, "13:30")] {
        meddle(&exporter.state(), prepare);
        import(&exporter, &lines(hour), &["--overwrite", "--yes"]).expect(0);
        let time = format!("2025-11-28 {hour}:30:00");
        assert_eq!(tenant(&exporter, "low"), format!("{time} 2025-11-28 01:00:00 NULL 1 success"));
        assert_eq!(tenant(&exporter, "high"), format!("{time} 2025-11-28 {high}:00 NULL 1 success"));
        assert_eq!(tenant(&exporter, "all"), format!("{time} NULL NULL 1 success"));
        assert_eq!(tenant(&exporter, "new"), format!("{time} 2025-11-28 {}:30:00 NULL 1 success", hour - 1));
    }
    // A time that stays moves nothing but what the last run came to.
    meddle(&exporter.state(), &prepare.replace("16:00:00", "14:00:00"));
    import(&exporter, &lines(14).replace("|1|SUCCESS", "|7|FAILED"), &[]).expect(0);
    assert_eq!(tenant(&exporter, "high"), "2025-11-28 14:30:00 2025-11-28 14:00:00 x 7 failed");
    let moved = exporter.ask("SELECT name FROM watermark_change JOIN tenant ON n = tenant WHERE change = 4");
    assert_eq!(moved, ["new"]);
}

#[test]
fn a_period_whose_watermark_an_import_moved_back_is_really_exported_again() {
    on_every_source(|table| {
        let times = [5, 4, 3, 2].map(|hours| table.ago(hours * HOUR));
        for (id, time) in (1..).zip(&times) {
            table.insert(&Row { id, number: &format!("INV{id}"), time, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        exporter.run(INCREMENTAL).expect(0);
        let before = exporter.stamps();
        // Nobody can see it from the source times.
        for id in [1, 3] {
            table.execute(&format!(
                "UPDATE t_invoice SET fext_field = '{{}}', fupdate_time = fupdate_time WHERE fid = {id}"
            ));
        }
        fs::remove_file(exporter.output().join("1/CN/20251128+INV4.json")).unwrap();
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["written"]), [0]);
        let back = table.ago(HOUR * 7 / 2);
        let args = ["--overwrite", "--yes", "--overlap", "0s"];
        let said = import(&exporter, &format!("1|{back}|0|SUCCESS\n"), &args).expect(0);
        assert!(said.stdout.contains("verify --against-source") && said.stdout.contains("run --mode full"), "{said}");
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["seen", "written", "unchanged"]), [2, 2, 0]);
        let after = exporter.stamps();
        let touched: Vec<&String> = after.keys().filter(|path| after.get(*path) != before.get(*path)).collect();
        assert_eq!(touched, ["1/CN/20251128+INV3.json", "1/CN/20251128+INV4.json"]);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

/// What the documented script makes of the table.
fn run_script(table: &Table, output: &Path) {
    let url: url::Url = table.url().parse().unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/peers/legacy.sh");
    let mut command = Command::new("bash");
    command.arg(script).arg(output).arg(url.path().trim_start_matches('/'));
    command.args(["-h", url.host_str().unwrap(), "-P", &url.port().unwrap().to_string(), "-u", url.username()]);
    command.args(["--default-character-set=utf8mb4", "--skip-ssl"]);
    let done = command.output().unwrap();
    assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
}

#[test]
fn after_an_import_a_run_writes_what_is_new_and_a_full_one_adopts_the_scripts_tree() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.load_sample(600, 7, "1:0.6,10:0.3,89:0.1");
        let exporter = Exporter::new(&table);
        run_script(&table, &exporter.output());
        exporter.assert_agrees();
        let before = exporter.stamps();
        let time = table.ago(2 * HOUR);
        put(&exporter, ["1", "10", "89"].map(|name| format!("{name}|{time}|9|SUCCESS\n")).concat());
        let refused = exporter.run(["run", "--mode", "incremental"]).expect(5);
        assert!(refused.last_error().contains("import-legacy-state"), "{refused}");
        exporter.run([IMPORT]).expect(0);

        table.insert(&Row { id: 9_001, number: "NEW", time: &table.ago(30 * MINUTE), ..Row::default() });
        table.insert(&Row { id: 9_002, tenant: "late", number: "NEW", time: &table.ago(300 * HOUR), ..Row::default() });
        let summary = exporter.run(INCREMENTAL).expect(0).json();
        assert_eq!(numbers(&summary, ["seen", "written"]), [2, 2]);
        let log = exporter.run(["run", "--mode", "incremental", "--lang", "zh"]).expect(0);
        assert!(log.stderr.contains("租户 10: 无新增数据"), "{log}");
        let summary = exporter.run(["run", "--format", "json"]).expect(0).json();
        assert_eq!(numbers(&summary, ["written", "removed"]), [0, 0]);
        let after = exporter.stamps();
        assert!(before.iter().all(|(path, stamp)| after.get(path) == Some(stamp)), "a file of the script was touched");
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn spellings_that_the_source_calls_equal_lose_nothing_when_imported_apart() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        let exporter = Exporter::new(&table);
        let [recent, old] = [HOUR, 9 * HOUR].map(|by| table.ago(by));
        // Whichever of the two the source lists: of one pair the upper case lags behind, of the other
        // the lower case.
        put(
            &exporter,
            format!("acme|{recent}|1|SUCCESS\nACME|{old}|0|FAILED\nbeta|{old}|0|FAILED\nBETA|{recent}|1|SUCCESS\n"),
        );
        exporter.run([IMPORT]).expect(0);
        let insert = |id, tenant, by| {
            let number = format!("INV{id}");
            table.insert(&Row { id, tenant, number: &number, time: &table.ago(by), ..Row::default() });
        };
        for (id, tenant) in [(1, "acme"), (2, "ACME"), (3, "beta"), (4, "BETA")] {
            insert(id, tenant, 6 * HOUR);
        }
        insert(5, "acme", 30 * MINUTE);
        insert(6, "BETA", 30 * MINUTE);
        exporter.run(INCREMENTAL).expect(0);
        for missed in ["ACME/CN/20251128+INV2.json", "beta/CN/20251128+INV3.json"] {
            assert!(exporter.tree().contains_key(missed), "{missed} was lost");
        }
        let families = "SELECT count(DISTINCT family), count(DISTINCT watermark) FROM tenant";
        assert_eq!(exporter.ask_one(families), "2 1");
        // From now on each pair is read from the lower look-back of the two.
        insert(7, "ACME", 20 * MINUTE);
        insert(8, "beta", 20 * MINUTE);
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["written"]), [2]);
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn an_output_that_is_not_the_scripts_is_left_alone() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    let lines = tempfile::NamedTempFile::new().unwrap();
    fs::write(lines.path(), GOOD).unwrap();
    let lines = lines.path().to_str().unwrap();
    let refused = exporter.run([IMPORT, lines]).expect(2);
    assert!(refused.last_error().contains("no output") && !exporter.output().exists(), "{refused}");

    // Ours, but its state lies elsewhere or is lost.
    exporter.run(INCREMENTAL).expect(0);
    let nowhere = tempfile::tempdir().unwrap();
    let before = everything_in(&[&exporter.output(), nowhere.path()], Traces::None);
    let refused = exporter.run([IMPORT, lines, "--state-dir", nowhere.path().to_str().unwrap()]).expect(5);
    assert!(refused.last_error().contains("--state-dir"), "{refused}");
    assert_eq!(everything_in(&[&exporter.output(), nowhere.path()], Traces::None), before);

    let scripts = exporter.output().join(".export_state/.export.lock");
    fs::create_dir(&scripts).unwrap();
    exporter.run([IMPORT, lines, "--overwrite", "--yes"]).expect(4);
    fs::remove_dir(&scripts).unwrap();
    exporter.run([IMPORT, lines, "--overwrite", "--yes"]).expect(0);
}

#[test]
fn a_file_that_is_replaced_is_kept_and_one_that_is_right_is_not_touched() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let refused = exporter.run(["export-legacy-state", "-"]).expect(5);
    assert!(refused.last_error().contains("no state"), "{refused}");
    import(&exporter, GOOD, &[]).expect(0);
    let target = exporter.output().join("copy");
    fs::write(&target, "what was there").unwrap();
    let export = ["export-legacy-state", target.to_str().unwrap(), "--format", "json"];
    let said = exporter.run(export).expect(0).json();
    assert_eq!(fs::read_to_string(&target).unwrap(), GOOD);
    let kept = backups(&target);
    assert_eq!(kept.len(), 1, "{kept:?}");
    assert_eq!(said["file_before"], kept[0].to_str().unwrap());
    assert_eq!(fs::read_to_string(&kept[0]).unwrap(), "what was there");
    let before = everything_in(&[&exporter.output()], Traces::None);
    let again = exporter.run(export).expect(0);
    assert!(again.json()["file_before"].is_null() && again.stderr.contains("nothing to change"), "{again}");
    assert_eq!(everything_in(&[&exporter.output()], Traces::None), before);
}

/// The script's tree, with a file that a run of ours knows nothing of.
fn scripts_tree(table: &Table) -> Exporter<'_> {
    let exporter = Exporter::in_memory(table);
    let folder = exporter.output().join("1/CN");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("20251128+INV1.json"), Row::default().document).unwrap();
    exporter
}

#[test]
fn an_import_may_die_at_any_step_and_leaves_the_old_state_or_the_new_one() {
    let table = Table::embedded();
    let time = table.ago(3 * HOUR);
    table.insert(&Row { number: "INV1", time: &time, ..Row::default() });
    let [first, second] =
        [2, 1].map(|hours| format!("1|{}|1|SUCCESS\n2|{time}|{hours}|FAILED\n", table.ago(hours * HOUR)));
    let mut deaths = 0;
    for call in ["fsync", "pwrite64", "renameat2", "write", "openat", "ftruncate", "unlink", "unlinkat"] {
        for existing in [false, true] {
            for nth in [1, 2, 3, 5, 9, 14, 20, 30, 45] {
                let inject = format!("{call}:signal=KILL:when={nth}");
                let exporter = scripts_tree(&table);
                let old = if existing {
                    import(&exporter, &first, &[]).expect(0);
                    first.as_str()
                } else {
                    ""
                };
                put(&exporter, &second);
                // It calls this less often.
                if !run_with(&exporter, &inject, &[IMPORT, "--yes"]).was_killed() {
                    break;
                }
                deaths += 1;
                let now = if exporter.state().exists() { exported(&exporter) } else { String::new() };
                assert!(now == old || now == second, "after {inject} the state says {now:?}");
                // What is known is gone on with; where nothing is known, it is imported again.
                if now.is_empty() {
                    exporter.run([IMPORT]).expect(0);
                }
                exporter.run(INCREMENTAL).expect(0);
                exporter.run([IMPORT, "--overwrite", "--yes"]).expect(0);
                assert_eq!(exported(&exporter), second, "{inject}");
                exporter.run(INCREMENTAL).expect(0);
                exporter.run(["run"]).expect(0);
                exporter.assert_agrees();
                exporter.assert_state_is_sound();
            }
        }
    }
    assert!(deaths > 40, "the import died {deaths} times only");
}

#[test]
fn an_export_may_die_at_any_step_and_the_file_is_the_old_one_or_the_new_one() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    import(&exporter, GOOD, &[]).expect(0);
    let mut deaths = 0;
    for call in ["write", "fsync", "renameat2", "linkat", "openat"] {
        for nth in 1..12 {
            put(&exporter, "the old one");
            let died = run_with(&exporter, &format!("{call}:signal=KILL:when={nth}"), &["export-legacy-state"]);
            deaths += u32::from(died.was_killed());
            let now = fs::read_to_string(file(&exporter)).unwrap();
            assert!(now == "the old one" || now == GOOD, "{now:?}");
            let kept = backups(&file(&exporter));
            assert!(now != GOOD || kept.iter().any(|path| fs::read_to_string(path).unwrap() == "the old one"));
            kept.iter().for_each(|path| fs::remove_file(path).unwrap());
        }
    }
    assert!(deaths > 8, "the export died {deaths} times only");
}

#[test]
fn the_baseline_is_a_time_like_any_other_also_where_source_times_are_timestamps() {
    on_every_flavor(|flavor| {
        let table = Table::on(server(flavor));
        table.execute("ALTER TABLE t_invoice MODIFY fupdate_time TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP");
        for (id, time) in [(1, "1970-01-01 00:00:01"), (2, "2025-11-28 15:00:00")] {
            table.insert(&Row { id, number: &format!("INV{id}"), time, ..Row::default() });
        }
        let exporter = Exporter::new(&table);
        import(&exporter, "1|1970-01-01 00:00:00|0|FAILED\n", &[]).expect(0);
        assert_eq!(numbers(&exporter.run(INCREMENTAL).expect(0).json(), ["written"]), [2]);
        exporter.assert_agrees();
    });
}
