//! With `--lang zh` every command says in Chinese what it says as text, and programs get the same as ever.

use std::fs;
use std::time::Duration;

use crate::support::exporter::{Exporter, Finished, run_with};
use crate::support::state::meddle;
use crate::support::table::{Row, Table, on_every_source};

const MINUTE: Duration = Duration::from_secs(60);
const INCREMENTAL: [&str; 3] = ["run", "--mode", "incremental"];

/// Words of the command line, of formats and of values, which are the same in every language.
const SAME: [&str; 43] = [
    "INFO",
    "HINT",
    "WARN",
    "ERROR",
    "SUCCESS",
    "DRY_RUN",
    "JSON",
    "UTF-8",
    "SHA-256",
    "id",
    "KiB",
    "MiB",
    "B",
    "SQL",
    "cron",
    "root",
    "sudo",
    "invoice-export",
    "run",
    "status",
    "history",
    "verify",
    "state",
    "set",
    "restore",
    "latest",
    "full",
    "incremental",
    "last",
    "last-failed",
    "backups",
    "chown",
    "chmod",
    "chgrp",
    "setfacl",
    "ACL",
    "tenant|time|count|status",
    "FAILED",
    "find",
    "head",
    "rm",
    "INV",
    "column",
];

/// What the parser of JSON says of the invoice that is none.
const PARSER: [&str; 2] = ["EOF while parsing an object at line", "EOF while parsing a string at line"];

/// What the operating system says of a file that is not there.
const MISSING: &str = "No such file or directory (os error 2)";

/// The words of a text that are English and no names, paths, flags, numbers or values.
fn english_words(text: &str, values: &[&str]) -> Vec<String> {
    let separators = |c: char| c.is_whitespace() || !c.is_ascii() || "(),;:'\"`[]".contains(c);
    let is_word = |token: &&str| {
        let token = token.trim_matches(['.', '!', '?', '$', '#']);
        let written = token.chars().any(|c| c.is_ascii_alphabetic()) && !token.contains(['/', '@', '=', '%']);
        let plain = written && !token.starts_with('-') && !token.chars().any(|c| c.is_ascii_digit());
        plain && !SAME.contains(&token) && !values.contains(&token)
    };
    text.split(separators).filter(is_word).map(str::to_owned).collect()
}

/// A blank behind a full-width mark, which has its own. Columns stand two blanks apart.
fn stray_blank(text: &str) -> Option<&str> {
    let behind = text.match_indices(FULL_WIDTH).map(|(at, mark)| (at, &text[at + mark.len()..]));
    let stray = behind.filter(|(_, rest)| rest.starts_with(' ') && !rest[1..].starts_with([' ', '\n']));
    stray.map(|(at, _)| text[at..].lines().next().unwrap_or_default()).next()
}

const FULL_WIDTH: [char; 8] = ['，', '；', '。', '？', '！', '（', '）', '、'];

/// Why a Chinese wording has marks that are not Chinese, or blanks beside marks that are.
fn wrong_mark(wording: &str) -> Option<&'static str> {
    let chars: Vec<char> = wording.chars().collect();
    let is_chinese = |c: char| ('\u{4e00}'..='\u{9fff}').contains(&c) || FULL_WIDTH.contains(&c);
    let found = chars.windows(2).find_map(|pair| match *pair {
        [mark, ' '] if FULL_WIDTH.contains(&mark) => Some("a blank behind a full-width mark"),
        [' ', mark] if FULL_WIDTH.contains(&mark) => Some("a blank before a full-width mark"),
        [before, ',' | ';' | '?' | '('] if is_chinese(before) => Some("a half-width mark behind a Chinese character"),
        [',' | ';' | '?' | ')', behind] if is_chinese(behind) => Some("a half-width mark before a Chinese character"),
        _ => None,
    });
    found.filter(|_| chars.iter().copied().any(is_chinese))
}

#[test]
fn chinese_wordings_have_chinese_marks() {
    assert!(wrong_mark("完成（2 个） 无法导出").is_some() && wrong_mark("是否支持?").is_some());
    let mut wrong = Vec::new();
    for file in walkdir::WalkDir::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")).into_iter().map(Result::unwrap) {
        if file.path().extension().is_none_or(|ending| ending != "rs") || file.path().ends_with("tests.rs") {
            continue;
        }
        let text = fs::read_to_string(file.path()).unwrap();
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for line in code.lines().filter(|line| !line.trim_start().starts_with("//")) {
            let wordings = line.split('"').skip(1).step_by(2);
            wrong.extend(wordings.filter_map(|wording| Some(format!("{}: {wording}", wrong_mark(wording)?))));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_check_finds_english_and_passes_names_flags_and_values_over() {
    let text = "[WARN] 请用 --output /srv/x 或 run --mode full；INV001 nothing changed, cron@db1 c1 sqlite:/a 2h";
    assert_eq!(english_words(text, &["sqlite"]), ["nothing", "changed"]);
}

/// Runs a command in Chinese and fails if any word of it is English.
#[track_caller]
fn assert_chinese(exporter: &Exporter<'_>, args: &[&str], code: i32, values: &[&str]) -> Finished {
    let finished = exporter.run(args.iter().chain(&["--lang", "zh"])).expect(code);
    let (home, host) = (exporter.home().to_str().unwrap(), rustix::system::uname());
    let said = format!("{}\n{}", finished.stdout, finished.stderr).replace(home, "/home");
    let said = said
        .replace(host.nodename().to_str().unwrap(), "/host")
        .replace(PARSER[0], "")
        .replace(PARSER[1], "")
        .replace(MISSING, "");
    let english = english_words(&said, values);
    assert!(english.is_empty(), "{args:?} says {english:?}: {finished}");
    assert_eq!(stray_blank(&said), None, "{args:?}: {finished}");
    finished
}

/// An output with everything that there is to say something about: rejects, late arrivals, a run that died, a changed
/// watermark, a file that is missing and one that is foreign.
fn exported(table: &Table) -> Exporter<'_> {
    let row = |id: i64, number: &str, document: &str, minutes: u32| {
        let time = table.ago(MINUTE * minutes);
        table.insert(&Row { id, number, document, time: &time, ..Row::default() });
    };
    row(1, "INV1", "[1]", 60);
    row(2, "INV2", "{", 60);
    row(3, "INV3", "[3]", 60);
    let exporter = Exporter::new(table).env("SUDO_USER", "cron");
    exporter.run(INCREMENTAL).expect(3);
    row(4, "INV4", "[4]", 90);
    exporter.run(INCREMENTAL).expect(0);
    exporter.run(["state", "set", "1", &table.ago(MINUTE * 100), "--yes", "--reason", "因为"]).expect(0);
    row(5, "INV5", "[5]", 70);
    exporter
}

#[test]
fn every_answer_is_chinese() {
    on_every_source(|table| {
        let exporter = exported(table);
        let say = |args: &[&str], code| assert_chinese(&exporter, args, code, &["mysql", "mariadb", "sqlite"]);
        say(&["status"], 0);
        say(&["status", "--stale-after", "1m"], 6);
        say(&["status", "--rejects"], 0);
        say(&["why", "INV1"], 0);
        say(&["why", "INV2"], 6);
        say(&["why", "INV5"], 6);
        say(&["why", "INV9"], 6);
        let listed = say(&["history"], 0);
        assert!(listed.stdout.contains("设置水位线") && listed.stdout.contains("部分成功"), "{listed}");
        say(&["history", "--tenant", "1"], 0);
        say(&["history", "1"], 0);
        say(&["history", "c1"], 0);
        let files = say(&["history", "1", "--files"], 0);
        assert!(files.stdout.starts_with("写入  1/CN/"), "{files}");
        fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
        fs::write(exporter.output().join("1/CN/20251128+INV3.json"), "[33]").unwrap();
        fs::write(exporter.output().join("1/CN/20251128+INV8.json"), "[8]").unwrap();
        say(&["why", "INV1"], 6);
        say(&["verify"], 6);
        say(&["verify", "--against-source", "--documents"], 6);
        say(&["verify", "--against-source", "--repair"], 6);
        table.execute("DELETE FROM t_invoice WHERE fid = 1");
        say(&["why", "INV1"], 6);
        say(&["verify", "--against-source"], 6);
        say(&["run", "--mode", "full", "--dry-run"], 0);
    });
}

#[test]
fn what_is_done_to_the_state_is_told_in_chinese() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let say = |args: &[&str], code| assert_chinese(&exporter, args, code, &["sqlite"]);
    say(&["state", "backup"], 0);
    let listed = say(&["state", "backups"], 0);
    assert!(listed.stdout.contains("手动") && listed.stdout.contains("设置水位线之前"), "{listed}");
    say(&["state", "check", "--deep"], 0);
    say(&["state", "set", "1", "2025-11-28", "--yes"], 0);
    say(&["state", "reset", "--all", "--yes"], 0);
    say(&["state", "restore", "latest", "--yes"], 0);
    assert_chinese(&exporter, &["import-legacy-state", "none"], 2, &["none"]);
    fs::write(exporter.output().join("old"), "1|2025-11-28 16:30:00|1|SUCCESS\nnew|2025-11-28 16:30:00|1|FAILED\n")
        .unwrap();
    let file = exporter.output().join("old");
    let file = file.to_str().unwrap();
    let import = |args: &[&str], code| {
        assert_chinese(&exporter, &[&["import-legacy-state", file], args].concat(), code, &["new"])
    };
    import(&["--dry-run"], 0);
    import(&["--yes"], 0);
    import(&[], 0);
    fs::write(file, "1|2025-11-28|x\n||1|SUCCESS\n1|2025-11-28 16:30:00|1|DONE\n").unwrap();
    assert_chinese(&exporter, &["import-legacy-state", file], 1, &["x", "DONE"]);
    say(&["export-legacy-state"], 0);
    say(&["export-legacy-state"], 0);
    meddle(&exporter.state(), "UPDATE tenant SET look_back = 'x' WHERE name = '1'");
    meddle(&exporter.state(), "DELETE FROM todo");
    assert_chinese(&exporter, &["state", "check"], 6, &["x"]);
    let demo = exporter.home().join("demo");
    assert_chinese(&exporter, &["demo", demo.to_str().unwrap()], 0, &["sqlite", "*.json", "kill", "why"]);
    assert_chinese(&exporter, &["demo", demo.to_str().unwrap()], 2, &[]);
}

#[test]
fn refusals_of_these_commands_are_chinese() {
    let table = Table::embedded();
    let exporter = exported(&table);
    for (args, code) in [
        (&["history", "99"][..], 2),
        (&["history", "c99"], 2),
        (&["history", "first"], 2),
        (&["history", "c1", "--files"], 2),
        (&["history", "--kind", "set", "--status", "failed"], 2),
        (&["history", "--tenant", "none"], 2),
        (&["state", "set", "1", "2999-01-01", "--yes"], 2),
        (&["state", "set", "1", "2025-11-28"], 2),
        (&["state", "reset", "--all"], 2),
        (&["state", "restore", "latest"], 2),
        (&["state", "restore", "none", "--yes"], 2),
        (&["state", "adopt-source", "--yes"], 1),
        (&["import-legacy-state"], 2),
        (&["export-legacy-state", "none/none"], 2),
        (&["--output", "none", "import-legacy-state"], 2),
        (&["--output", "none", "status"], 5),
    ] {
        assert_chinese(&exporter, args, code, &["none", "first", "sqlite"]);
    }
    assert!(run_with(&exporter, "renameat:signal=KILL:when=1", &["run"]).was_killed());
    assert_chinese(&exporter, &["status"], 0, &[]);
    assert_chinese(&exporter, &["history"], 0, &[]);
    assert_chinese(&exporter, &["state", "check"], 6, &[]);
    let empty = Exporter::new(&table).env("INVOICE_EXPORT_SOURCE", "mysql://cron@127.0.0.1:1/x");
    assert_chinese(&empty, &["status"], 5, &[]);
}

#[test]
fn programs_get_the_same_in_both_languages() {
    let table = Table::embedded();
    let exporter = exported(&table);
    for (args, code) in [
        (&["status"][..], 0),
        (&["status", "--rejects"], 0),
        (&["history"], 0),
        (&["history", "--tenant", "1"], 0),
        (&["history", "1"], 0),
        (&["history", "c1"], 0),
        (&["history", "1", "--files"], 0),
        (&["verify", "--against-source"], 0),
        (&["why", "INV1"], 0),
        (&["why", "INV2"], 6),
        (&["why", "INV9"], 6),
        (&["state", "backups"], 0),
        (&["state", "check"], 0),
        (&["history", "99"], 2),
    ] {
        let formats: &[&str] = if args[0] == "why" { &["json"] } else { &["json", "csv"] };
        for format in formats {
            let print = |lang: &str| {
                let stdout = exporter.run(args.iter().chain(&["--format", format, "--lang", lang])).expect(code).stdout;
                // Each verification is another run.
                let without_run =
                    stdout.split_once("\"run\":").filter(|_| args[0] == "verify").map(|(before, after)| {
                        format!("{before}{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
                    });
                without_run.unwrap_or(stdout)
            };
            // A lag may grow by a second between two of them.
            let (english, chinese) = loop {
                let (before, chinese, after) = (print("en"), print("zh"), print("en"));
                if before == after {
                    break (before, chinese);
                }
            };
            assert_eq!(english, chinese, "{args:?}");
        }
    }
}
