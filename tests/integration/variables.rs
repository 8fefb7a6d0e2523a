//! Variables of the environment: an empty one counts as unset everywhere, and one that only looks like ours is named.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use crate::support::exporter::{Exporter, Finished};
use crate::support::table::{Row, Table};

const PREFIX: &str = "INVOICE_EXPORT_";
/// Every command that reads a variable which others do not.
const COMMANDS: [&[&str]; 6] =
    [&["run"], &["status"], &["why"], &["verify"], &["import-legacy-state"], &["state", "set"]];

/// The names of ours in a text.
fn names_in(text: &str) -> BTreeSet<String> {
    let is_of_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_of_name(c)).filter(|word| word.starts_with(PREFIX) && *word != PREFIX);
    words.map(str::to_owned).collect()
}

/// The names that the help of the commands shows.
fn documented(exporter: &Exporter<'_>) -> BTreeSet<String> {
    let help = |command: &[&str]| exporter.run([command, &["--help"]].concat()).expect(0).stdout;
    COMMANDS.iter().flat_map(|command| names_in(&help(command))).collect()
}

#[test]
fn an_empty_variable_counts_as_unset_in_every_command() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let plain = Exporter::new(&table);
    plain.run(["run", "--mode", "incremental"]).expect(0);
    let mut exporter = Exporter::new(&table);
    let shown = documented(&exporter);
    // No help shows those of the columns.
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/configuration.md")).unwrap();
    let names: BTreeSet<String> = shown.union(&names_in(&page)).cloned().collect();
    assert!(names.len() > shown.len() + 9 && shown.len() > 25, "{names:?}");
    for name in names.iter().map(String::as_str).chain(["EXPORT_MODE", "DRY_RUN", "MYSQL_PWD"]) {
        exporter.set(name, "");
    }
    assert_eq!(documented(&exporter), shown, "help shows empty variables too");
    let (source, output) = (table.url(), plain.output());
    let of_all = ["--source", &source, "--output", output.to_str().unwrap()];
    let commands: [&[&str]; 9] = [
        &["run", "--mode", "incremental"],
        &["run", "--fresh", "--dry-run"],
        &["status"],
        &["history"],
        &["why", "INV001"],
        &["verify", "--against-source"],
        &["state", "set", "1", "2025-11-28", "--yes"],
        &["export-legacy-state"],
        &["import-legacy-state", "--yes"],
    ];
    for command in commands {
        let done = exporter.run([command, &of_all].concat()).expect(0);
        assert!(!done.stderr.contains("[WARN]"), "{command:?}: {done}");
    }
}

/// Refused for this name and value, with an example in the hint: the examples.
fn examples(refused: &Finished, name: &str, value: &str) -> Vec<String> {
    let error = refused.error();
    assert!(error.contains(&format!("{name} cannot be {value:?}")), "{refused}");
    let (_, hint) = error.split_once("\n[HINT] write ").unwrap_or_else(|| panic!("no hint: {refused}"));
    let examples = hint.trim_end().split_once("for example ").map_or(hint.trim_end(), |(_, examples)| examples);
    examples.trim_start_matches("one of ").replace(" or ", ", ").split(", ").map(|word| word.replace('"', "")).collect()
}

#[test]
fn a_wrong_value_is_named_with_its_option_or_variable_and_with_values_that_do() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let mut exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let dry = ["run", "--dry-run"];
    let mut refused = 0;
    for name in documented(&exporter).iter().map(String::as_str).chain(["EXPORT_MODE", "DRY_RUN"]) {
        if ["SOURCE", "OUTPUT", "STATE_DIR", "_FILE"].iter().any(|other| name.ends_with(other)) {
            continue;
        }
        let command: &[&str] = if name.ends_with("DRY_RUN") { &["run"] } else { &dry };
        exporter.set(name, "~wrong~");
        let wrong = exporter.run(command);
        if wrong.status.code() == Some(2) && wrong.stderr.contains("cannot be") {
            refused += 1;
            for example in examples(&wrong, name, "~wrong~") {
                exporter.set(name, &example);
                let right = exporter.run(command);
                assert!(!right.stderr.contains("cannot be"), "{name}={example}: {right}");
            }
        }
        exporter.set(name, "");
    }
    assert!(refused >= 20, "only {refused} were refused");
    for (arguments, value) in [
        (&["status", "--reject-older-than"], "2026-11-30"),
        (&["status", "--max-rejects"], "-1"),
        (&["verify", "--limit"], "many"),
        (&["history", "--kind"], "some"),
        (&["run", "--writers"], "65"),
    ] {
        let of = |value: &str| exporter.run([arguments[0], &format!("{}={value}", arguments[1])]);
        for example in examples(&of(value).expect(2), arguments[1], value) {
            of(&example).expect(0);
        }
        let chinese = exporter.run([arguments[0], &format!("{}={value}", arguments[1]), "--lang", "zh"]).expect(2);
        let words = format!("[ERROR] {} 的值不能是 {value:?}", arguments[1]);
        assert!(chinese.stderr.starts_with(&words) && chinese.stderr.contains("\n[HINT] "), "{chinese}");
    }
    // As of the script's variable.
    for (value, is_dry) in [("0", false), ("no", false), ("1", true), ("yes", true)] {
        exporter.set("INVOICE_EXPORT_DRY_RUN", value);
        assert_eq!(exporter.run(["run"]).expect(0).stderr.contains("dry run"), is_dry, "{value}");
    }
}

#[test]
fn a_folder_or_a_source_that_cannot_be_is_named_as_it_was_given() {
    let table = Table::embedded();
    let mut exporter = Exporter::new(&table);
    let file = exporter.home().join("file").display().to_string();
    fs::write(&file, "").unwrap();
    for (name, option) in [("INVOICE_EXPORT_OUTPUT", "--output"), ("INVOICE_EXPORT_STATE_DIR", "--state-dir")] {
        let by_option = exporter.run(["run", option, &file]).expect(2);
        assert!(by_option.error().contains(&format!("{option} is {file:?}")), "{by_option}");
        let before = exporter.output();
        exporter.set(name, &file);
        let by_variable = exporter.run(["run"]).expect(2);
        assert!(by_variable.error().contains(&format!("{name} is {file:?}")), "{by_variable}");
        exporter.set(name, before);
    }
    let by_option = exporter.run(["run", "--source", "postgres:x"]).expect(2);
    assert!(by_option.error().contains("--source: ") && by_option.error().contains("mysql://"), "{by_option}");
    exporter.set("INVOICE_EXPORT_SOURCE", "postgres:x");
    let by_variable = exporter.run(["run"]).expect(2);
    assert!(by_variable.error().contains("INVOICE_EXPORT_SOURCE: "), "{by_variable}");
}

#[test]
fn a_variable_that_only_looks_like_ours_is_named_with_the_one_that_was_meant() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table).env("INVOICE_EXPORT_OVERLAPP", "Hush1").env("INVOICE_EXPORT_", "Hush1");
    let exporter = exporter.env("INVOICE_EXPORT_FORGOTTEN", "").env("invoice_export_mode", "full");
    for (lang, lines) in [
        (
            "en",
            "[WARN] the variable INVOICE_EXPORT_ is not known and has no effect\n[HINT] `--help` of each command names its variables\n\
             [WARN] the variable INVOICE_EXPORT_OVERLAPP is not known and has no effect\n[HINT] INVOICE_EXPORT_OVERLAP is probably meant\n",
        ),
        (
            "zh",
            "[WARN] 变量 INVOICE_EXPORT_ 无法识别，不起作用\n[HINT] 各命令的 `--help` 列出了可用的变量\n\
             [WARN] 变量 INVOICE_EXPORT_OVERLAPP 无法识别，不起作用\n[HINT] 可能应为 INVOICE_EXPORT_OVERLAP\n",
        ),
    ] {
        for command in [&["run", "-q"][..], &["history"], &["verify", "--format", "json"]] {
            let done = exporter.run([command, &["--lang", lang]].concat()).expect(0);
            assert!(done.stderr.starts_with(lines), "{command:?}: {done}");
            assert!(!done.to_string().contains("Hush1"), "a value is shown: {done}");
        }
    }
}

#[test]
fn every_variable_that_scripts_tests_and_documents_name_is_known() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let mut exporter = Exporter::new(&table);
    exporter.run(["run"]).expect(0);
    let known = documented(&exporter);
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut names = BTreeSet::new();
    for place in ["scripts", "tests", "docs", "README.md", "README.zh-CN.md", "BENCHMARKS.md"] {
        let files =
            WalkDir::new(root.join(place)).into_iter().map(Result::unwrap).filter(|it| it.file_type().is_file());
        // The names in this file and in that of the drop-in are mistyped on purpose.
        let texts = files.filter(|file| !["variables.rs", "dropin.rs"].map(Some).contains(&file.file_name().to_str()));
        names.extend(texts.flat_map(|file| names_in(&fs::read_to_string(file.path()).unwrap_or_default())));
    }
    // It stands in the program when that is built.
    names.remove("INVOICE_EXPORT_VERSION");
    let others: Vec<&String> = names.difference(&known).collect();
    assert!(others.len() >= 5, "{others:?}");
    for name in others {
        exporter.set(name, "1");
    }
    let done = exporter.run(["history"]).expect(0);
    assert_eq!(done.stderr, "", "a name that is not known");
}
