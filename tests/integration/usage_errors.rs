//! What the parser of the command line refuses: exit 2 in the language and in the form that are asked for.

use serde_json::json;

use crate::support::exporter::{Exporter, Finished};
use crate::support::table::{Row, Table};

/// A wrong command line, and what is said of it in English and in Chinese.
const CASES: [(&[&str], &str, &[&str]); 16] = [
    (&["run", "--mod", "full"], "unexpected argument '--mod'", &["无法识别的选项 '--mod'", "相近的有 '--mode'"]),
    (&["rum"], "unrecognized subcommand 'rum'", &["没有子命令 'rum'", "'run'"]),
    (&["run", "--mode", "fulll"], "--mode cannot be \"fulll\"", &["--mode 的值不能是 \"fulll\"", "可用的值: full, "]),
    (&["run", "--mode"], "a value is required", &["选项 '--mode <MODE>' 缺少值"]),
    (&["run", "--overlap", "5x"], "--overlap cannot be \"5x\"", &["请写一段时长"]),
    (&["run", "--max-document", "much"], "--max-document cannot be", &["请写大小"]),
    (&["run", "--writers", "65"], "65 is not in 1..=64", &["允许的范围是 1..=64"]),
    (&["status", "--limit", "x"], "--limit cannot be \"x\"", &["请写整数"]),
    (&["why"], "required but missing: '<NUMBER|FILE>'", &["缺少必需的参数: '<NUMBER|FILE>'"]),
    (&["verify", "--prune"], "'--against-source'", &["缺少必需的选项: '--against-source'"]),
    (&["run", "-q", "-v"], "cannot be used with '--verbose'", &["不能与 '--verbose' 一起使用"]),
    (&["run", "--mode", "full", "--mode", "full"], "multiple times", &["选项 '--mode <MODE>' 不能重复使用"]),
    (&["history", "1", "--tenant", "7"], "cannot be used with", &["不能与", "一起使用"]),
    (&["state"], "subcommand", &["<COMMAND>"]),
    (&["why", "INV1", "--n"], "unexpected argument '--n'", &["无法识别的选项 '--n'"]),
    (&["status", "mysql://u:Hush1@h/db"], "unexpected argument", &["无法识别的参数 '（可能含有密码，不显示）'"]),
];

/// Without the parts that are the same in every language.
fn has_english_prose(text: &str) -> bool {
    [
        "error:",
        "Usage:",
        "tip:",
        "possible values",
        "unexpected",
        "invalid",
        "required",
        "For more",
        "similar",
        "not in",
    ]
    .iter()
    .any(|english| text.contains(english))
}

fn run(exporter: &Exporter<'_>, args: &[&str], more: &[&str]) -> Finished {
    // A flag that misses its value stays the last one.
    let (command, rest) = args.split_at(1);
    let finished = exporter.run([command, more, rest].concat()).expect(2);
    assert!(!finished.stdout.contains("Hush1") && !finished.stderr.contains("Hush1"), "{finished}");
    finished
}

#[test]
fn a_wrong_command_line_is_refused_in_chinese() {
    let table = Table::embedded();
    let mut exporter = Exporter::new(&table);
    for (args, english, chinese) in CASES {
        let said = run(&exporter, args, &["--lang", "zh"]);
        if args != ["state"] {
            assert!(chinese.iter().all(|words| said.stderr.contains(words)), "{chinese:?} is missing: {said}");
            assert!(!has_english_prose(&said.stderr), "{said}");
            assert!(said.stderr.starts_with("[ERROR] "), "{said}");
        }
        assert_eq!(said.stdout, "", "{said}");
        let said = run(&exporter, args, &["--lang=en"]);
        assert!(said.stderr.is_ascii(), "{english}: {said}");
    }
    exporter.set("INVOICE_EXPORT_LANG", "zh");
    assert!(run(&exporter, &["rum"], &[]).stderr.starts_with("[ERROR] 没有子命令 'rum'\n[HINT] "));
    assert!(run(&exporter, &["rum"], &["--lang", "en"]).stderr.starts_with("error: "));
}

#[test]
fn a_wrong_command_line_is_one_object_for_programs() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    for lang in ["en", "zh"] {
        for (args, english, _) in CASES {
            let said = run(&exporter, args, &["--lang", lang, "--format", "json"]);
            let object = said.json();
            assert!(object["error"].as_str().unwrap().contains(english), "{english}: {said}");
            assert_eq!(object["exit_code"], json!(2), "{said}");
            assert!(!said.stderr.is_empty(), "people read it too: {said}");
        }
    }
    let said = exporter.run(["run", "--since", "never", "--format", "json"]).expect(2);
    assert_eq!(said.json()["exit_code"], json!(2), "{said}");
}

#[test]
fn csv_of_a_command_without_rows_is_refused() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let commands: [&[&str]; 7] = [
        &["run"],
        &["why", "INV1"],
        &["demo"],
        &["export-legacy-state"],
        &["state", "backup"],
        &["state", "restore", "latest"],
        &["state", "adopt-source"],
    ];
    for command in commands {
        let refused = exporter.run([command, &["--format", "csv"]].concat()).expect(2);
        assert_eq!(refused.stdout, "", "{refused}");
        assert!(refused.error().contains("no rows") && refused.stderr.contains("--format json"), "{refused}");
    }
    assert!(!exporter.output().exists(), "nothing is made");
}

#[test]
fn the_help_is_chinese() {
    let table = Table::embedded();
    let mut exporter = Exporter::new(&table);
    exporter.set("INVOICE_EXPORT_LANG", "zh");
    let commands: [&[&str]; 9] = [
        &["--help"],
        &["help"],
        &["run", "--help"],
        &["history", "-h"],
        &["help", "state", "set"],
        &["state", "check", "--help"],
        &["import-legacy-state", "--help"],
        &["why", "--help"],
        &["verify", "--help"],
    ];
    for command in commands {
        let help = exporter.run(command).expect(0).stdout;
        assert!(help.contains("\n用法: ") && help.contains("所有命令的选项:"), "{help}");
        for english in
            ["Usage", "Commands:", "Options:", "Options of", "Arguments:", "[default", "[env", "Print", "possible"]
        {
            assert!(!help.contains(english), "{english}: {help}");
        }
    }
    let modes = exporter.run(["run", "--help"]).expect(0).stdout;
    let (unwrapped, said) = (modes.split_whitespace().collect::<Vec<_>>().join(" "), "[可选值: full, incremental]");
    assert!(unwrapped.contains(said) && unwrapped.contains("[默认: 1h]"), "{modes}");
    assert!(exporter.run(["run", "--help", "--lang", "en"]).expect(0).stdout.contains("Usage: "));
}

#[test]
fn what_chinese_tables_show_is_taken_as_a_value() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "增量", "--lang", "zh"]).expect(0);
    exporter.run(["state", "set", "1", "2025-11-28", "--yes"]).expect(0);
    let listed = |args: &[&str]| exporter.run([&["history", "--format", "json"], args].concat()).expect(0).json();
    assert_eq!(listed(&["--kind", "增量"]).as_array().unwrap().len(), 1);
    for (flag, zh, en) in [
        ("--kind", "设置水位线", "set"),
        ("--kind", "更换数据源", "adopt-source"),
        ("--status", "成功", "success"),
        ("--status", "部分成功", "partial"),
        ("--status", "失败", "failed"),
        ("--status", "已取消", "cancelled"),
        ("--status", "意外终止", "interrupted"),
        ("--status", "运行中", "running"),
    ] {
        assert_eq!(listed(&[flag, zh]), listed(&[flag, en]), "{flag} {zh}");
    }
}
