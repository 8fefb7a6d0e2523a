//! Whatever stands where a source should: it is understood, or refused with the form that is expected, and
//! nothing of it that could be a password is printed, recorded or sent.

use std::fs;

use walkdir::WalkDir;

use crate::support::Exporter;
use crate::support::exporter::{Finished, Running};
use crate::support::rounds::with_seeds;
use crate::support::table::{Row, Table};

const SECRET: &str = "Hush1";

/// Commands that connect, that only look at the state, that change it, and that want no source.
const COMMANDS: [&[&str]; 15] = [
    &["run"],
    &["run", "--mode", "incremental", "--dry-run"],
    &["run", "--since", "2025-01-01", "--format", "json"],
    &["status"],
    &["status", "--stale-after", "2h", "--format", "json"],
    &["history"],
    &["why", "INV001"],
    &["verify", "--against-source"],
    &["state", "adopt-source", "--yes"],
    &["state", "set", "1", "2025-11-28", "--yes"],
    &["state", "reset", "--all", "--yes"],
    &["state", "check"],
    &["export-legacy-state", "-"],
    &["run", "--help"],
    &["--help"],
];

/// A source's text with a password in it, or what was meant as one.
const ADDRESSES: [&str; 36] = [
    "mysql:u:Hush1@127.0.0.1:1/db",
    "mysql:/u:Hush1@127.0.0.1:1/db",
    "mysql://u:Hush1@127.0.0.1:1/db",
    "MYSQL://u:Hush1@127.0.0.1:1/db",
    "mysql:///u:Hush1@127.0.0.1:1/db",
    "mysql:////u:Hush1@127.0.0.1:1/db",
    "mysql:u:Hush1",
    "mysql//u:Hush1@127.0.0.1/db",
    "mysql;//u:Hush1@127.0.0.1/db",
    "mysql：//u：Hush1@127.0.0.1/db",
    "mysql://u：Hush1@127.0.0.1:1/db",
    "mysql://u%3AHush1@127.0.0.1:1/db",
    "mysql://u%253AHush1@127.0.0.1:1/db",
    "mysql://u%3AHush1%40127.0.0.1/db",
    "mysql://u@Hush1@127.0.0.1:1/db",
    "mysql://u Hush1@127.0.0.1:1/db",
    "mysql://u;Hush1@127.0.0.1:1/db",
    "mysql://u:12 Hush1@127.0.0.1:1/db",
    "mysql://u:12\nHush1@127.0.0.1:1/db",
    "mysql://u:Hush1\n@127.0.0.1:1/db",
    "my\nsql://u:Hush1@127.0.0.1:1/db",
    " mysql://u:Hush1@127.0.0.1:1/db\n",
    "mysql://u:Hush1/127.0.0.1/db",
    "mysql://u:12/Hush1@127.0.0.1/db",
    "mysql://u:12#Hush1@127.0.0.1/db",
    "mysql://u:12?Hush1@127.0.0.1/db",
    "mysql://127.0.0.1:1/db?user=u&password=Hush1",
    "mysql://127.0.0.1:1/db?Hush1",
    "mysql://127.0.0.1:1/db?socket=/s&Hush1",
    "mysql://127.0.0.1:1/db?socket=/s?password=Hush1",
    "mysql://127.0.0.1:1/db#Hush1",
    "mysql://127.0.0.1:1/u:Hush1",
    "mariadb://u:Hush1@127.0.0.1:1/db",
    "jdbc:mysql://127.0.0.1:1/db?user=u&password=Hush1",
    "u:Hush1@127.0.0.1:1/db",
    "sqlite://u:Hush1@127.0.0.1/db",
];

/// How the text is given.
const WAYS: [Way; 3] = [Way::Variable, Way::Flag, Way::Argument];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Variable,
    Flag,
    /// Without its flag.
    Argument,
}

/// An output with a state, in which each command has something to do.
fn with_state(table: &Table) -> Exporter<'_> {
    table.insert(&Row::default());
    let exporter = Exporter::in_memory(table).env("INVOICE_EXPORT_RETRY_FOR", "0s");
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    exporter
}

fn run(exporter: &Exporter<'_>, way: Way, address: &str, command: &[&str]) -> Finished {
    let mut child = exporter.command(command);
    match way {
        Way::Variable => child.env("INVOICE_EXPORT_SOURCE", address),
        Way::Flag => child.args(["--source", address]),
        Way::Argument => child.arg(address),
    };
    Running::new(&mut child).wait()
}

fn assert_hidden(finished: &Finished, what: &str) {
    assert!(!finished.to_string().contains(SECRET), "{what}: {finished}");
    assert!(finished.status.code().is_some_and(|code| code < 100), "{what}: {finished}");
}

/// No file below the folder holds it, the state and its log included.
fn assert_not_recorded(exporter: &Exporter<'_>) {
    let files = WalkDir::new(exporter.home()).into_iter().filter_map(Result::ok).filter(|it| it.file_type().is_file());
    for file in files {
        let content = fs::read(file.path()).unwrap_or_default();
        let holds = content.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!holds, "{} holds the password", file.path().display());
    }
}

#[test]
fn no_command_prints_or_records_a_password_in_whatever_is_no_source() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    for address in ADDRESSES {
        for command in COMMANDS {
            for way in WAYS {
                // Elsewhere another argument is expected, and the text is that.
                if way != Way::Argument || ["run", "status", "verify"].contains(&command[0]) {
                    let finished = run(&exporter, way, address, command);
                    assert_hidden(&finished, &format!("{command:?}, {way:?}, {address:?}"));
                }
            }
        }
    }
    assert_not_recorded(&exporter);
}

#[test]
fn a_source_of_another_form_is_refused_with_the_form_that_is_expected() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for address in ["mysql:u:Hush1@db/shop", "mysql:shop", "shop", "pgsql://db/shop", "mysql:///shop", "mysql;//h/d"] {
        for (lang, words) in [("en", "the source is not understood"), ("zh", "无法识别数据源")] {
            for way in [Way::Variable, Way::Flag] {
                let refused = run(&exporter, way, address, &["run", "--lang", lang]).expect(2);
                let told = [words, "mysql://user@host:3306/database", "sqlite:path"];
                assert!(told.iter().all(|words| refused.stderr.contains(words)), "{address}: {refused}");
            }
        }
    }
    assert!(!exporter.output().exists());
}

#[test]
fn a_url_with_a_password_is_refused_wherever_it_stands_on_the_command_line() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    let url = "mysql://u:Hush1@db.example/shop";
    let reason = format!("moved to {url}");
    for command in [
        &["history", url][..],
        &["why", url],
        &["run", "--tenant", url],
        &["run", "--password-file", url],
        &["state", "set", "1", "2025-11-28", "--yes", "--reason", &reason],
        &["state", "restore", url, "--yes"],
        &["demo", url],
    ] {
        let refused = exporter.run(command).expect(2);
        assert!(refused.stderr.contains("--password-file"), "{command:?}: {refused}");
        assert_hidden(&refused, &format!("{command:?}"));
    }
    assert_not_recorded(&exporter);
}

#[test]
fn a_password_in_the_place_of_its_file_is_not_repeated() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for lang in ["en", "zh"] {
        let refused = exporter.run(["run", "--lang", lang, "--password-file", SECRET]).expect(2);
        assert!(refused.stderr.contains("--password-file"), "{refused}");
        assert_hidden(&refused, lang);
    }
    let exporter = exporter.env("INVOICE_EXPORT_PASSWORD_FILE", SECRET);
    for command in [&["run"][..], &["run", "--help"], &["status", "--format", "json"]] {
        assert_hidden(&exporter.run(command), &format!("{command:?}"));
    }
}

#[test]
fn a_file_may_have_any_name_as_a_source() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    let file = table.url().strip_prefix("sqlite:").unwrap().to_owned();
    for (number, name) in ["u:p@h.db", "a b;c.db", "发票：1.db", "100%25.db"].into_iter().enumerate() {
        let copy = exporter.home().join(name.replace("%25", "%"));
        fs::copy(&file, &copy).unwrap();
        for source in [format!("sqlite:{name}"), format!("SQLite:{}/{name}", exporter.home().display())] {
            let output = exporter.home().join(format!("output-{number}"));
            exporter.run(["run", "--source", &source, "--output", output.to_str().unwrap()]).expect(0);
        }
    }
}

#[test]
fn no_text_that_is_drawn_at_random_shows_its_password() {
    let table = Table::embedded();
    let exporter = with_state(&table);
    let schemes = ["mysql", "MYSQL", "mysq1", "mariadb", "jdbc:mysql", "", "u"];
    let colons = [":", "", "::", ";", "："];
    let slashes = ["//", "/", "", "///"];
    let signs =
        [":", ";", "：", "%3A", "%253A", "=", "|", ",", "::", ":/", "@:", " ", "\t", "?password=", "&pwd=", "?"];
    let ends = ["@", "@@", "%40", "＠", "/", "@h:", ";", "\n@", "#@", " @", ""];
    let hosts = ["127.0.0.1:1", "[::1]:1", "127.0.0.1:", ""];
    let paths = ["/db", "/", "", "/db?socket=/s", "?socket=/s"];
    with_seeds(60, 2_000, |dice| {
        let begin = [dice.one_of(&schemes), dice.one_of(&colons), dice.one_of(&slashes), dice.one_of(&["", "u"])];
        let end = [dice.one_of(&ends), dice.one_of(&hosts), dice.one_of(&paths)];
        let text = [begin.concat().as_str(), dice.one_of(&signs), SECRET, &end.concat()].concat();
        let (way, command) = (dice.one_of(&[Way::Flag, Way::Variable]), dice.one_of(&COMMANDS));
        let finished = run(&exporter, way, &text, command);
        assert_hidden(&finished, &format!("{command:?}, {way:?}, {text:?}"));
    });
    assert_not_recorded(&exporter);
}
