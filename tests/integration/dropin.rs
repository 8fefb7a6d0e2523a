//! The drop-in for crontabs that call the old script: the documented lines, all on stdout.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::exporter::{Exporter, Finished, Running};
use crate::support::table::{Row, Table, on_every_source};

const RULE: &str = "==========================================";

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/export_invoice_data.sh")
}

fn dropin(exporter: &Exporter<'_>, variables: &[(&str, &str)]) -> Finished {
    run_script(&script(), exporter, variables)
}

/// Runs a copy of the drop-in that has these settings beside it.
fn with_settings(exporter: &Exporter<'_>, settings: impl AsRef<[u8]>, variables: &[(&str, &str)]) -> Finished {
    let copy = exporter.home().join("export_invoice_data.sh");
    fs::copy(script(), &copy).unwrap();
    fs::write(copy.with_extension("env"), settings).unwrap();
    run_script(&copy, exporter, variables)
}

fn run_script(script: &Path, exporter: &Exporter<'_>, variables: &[(&str, &str)]) -> Finished {
    let program = Path::new(env!("CARGO_BIN_EXE_invoice-export")).parent().unwrap().to_owned();
    let mut command = exporter.command([""; 0]);
    let environment: Vec<_> =
        command.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
    let folder = command.get_current_dir().unwrap().to_owned();
    command = Command::new("bash");
    command.arg(script).env_clear().current_dir(folder);
    command.envs(environment.into_iter().filter_map(|(name, value)| Some((name, value?))));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::iter::once(program).chain(std::env::split_paths(&path));
    command.env("PATH", std::env::join_paths(folders).unwrap()).envs(variables.iter().copied());
    Running::new(&mut command).wait()
}

fn three_tenants(table: &Table) {
    for (id, tenant) in [(1, "1"), (2, "10"), (3, "89")] {
        let number = format!("INV00{id}");
        table.insert(&Row { id, tenant, number: &number, ..Row::default() });
    }
}

#[test]
fn a_full_run_of_the_drop_in_prints_the_documented_lines_and_nothing_else() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        let finished = dropin(&exporter, &[]).expect(0);
        let expected = [
            "[INFO] 运行模式: full".to_owned(),
            format!("[INFO] {RULE}"),
            "[INFO] 执行全量导出".to_owned(),
            format!("[INFO] {RULE}"),
            "[INFO] 开始处理租户: 1".to_owned(),
            "[INFO] 开始处理租户: 10".to_owned(),
            "[INFO] 开始处理租户: 89".to_owned(),
            "[SUCCESS] 租户 1 处理完成".to_owned(),
            "[SUCCESS] 租户 10 处理完成".to_owned(),
            "[SUCCESS] 租户 89 处理完成".to_owned(),
            format!("[SUCCESS] {RULE}"),
            "[SUCCESS] 全量导出完成!".to_owned(),
            format!("[SUCCESS] {RULE}"),
            "[INFO] 租户数量: 3".to_owned(),
            "[INFO] 成功导出: 3 条记录".to_owned(),
        ];
        // Rows are checked by several threads, so which tenant comes first may vary.
        let mut lines: Vec<&str> = finished.stdout.lines().collect();
        if let Some(started) = lines.get_mut(4..7) {
            started.sort_unstable();
        }
        assert_eq!(lines, expected);
        assert_eq!(finished.stderr, "");
        exporter.assert_agrees();
    });
}

#[test]
fn an_incremental_run_of_the_drop_in_prints_the_documented_lines_and_nothing_else() {
    on_every_source(|table| {
        three_tenants(table);
        let exporter = Exporter::new(table);
        let incremental = [("EXPORT_MODE", "incremental")];
        let first = dropin(&exporter, &incremental).expect(0);
        assert!(
            first.stdout.contains(
                "[INFO] 租户 1: 首次导出，基线时间: 1970-01-01 00:00:00\n[SUCCESS] 租户 1: 导出 1 条新记录\n"
            ),
            "{first}"
        );
        let second = dropin(&exporter, &incremental).expect(0);
        let digits = |text: &str| text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect::<String>();
        let time = "0000-00-00 00:00:00";
        let tenant =
            |name: &str| [format!("[INFO] 租户 {name}: {time} -> {time}"), format!("[INFO] 租户 {name}: 无新增数据")];
        let expected: Vec<String> = [
            vec!["[INFO] 运行模式: incremental".to_owned()],
            vec![format!("[INFO] {RULE}"), "[INFO] 执行增量导出".to_owned(), format!("[INFO] {RULE}")],
            vec![format!("[INFO] 导出时间边界: {time}"), "[INFO] 获取租户列表...".to_owned()],
            [tenant("0"), tenant("00"), tenant("00")].concat(),
            vec![format!("[SUCCESS] {RULE}"), "[SUCCESS] 增量导出完成!".to_owned(), format!("[SUCCESS] {RULE}")],
            vec!["[INFO] 处理租户数: 0".to_owned(), "[INFO] 成功导出: 0 条新记录".to_owned()],
            vec![digits(&format!("[INFO] 状态文件: {}", exporter.state().display()))],
        ]
        .concat();
        assert_eq!(digits(&second.stdout).lines().collect::<Vec<_>>(), expected);
    });
}

#[test]
fn the_drop_in_exits_1_for_finer_codes_and_leaves_no_trace_in_a_dry_run() {
    let table = Table::embedded();
    three_tenants(&table);
    table.execute("UPDATE t_invoice SET fext_field = 'no json' WHERE fid = 2");
    let exporter = Exporter::new(&table);
    let dry = dropin(&exporter, &[("DRY_RUN", "true"), ("EXPORT_MODE", "incremental")]).expect(1);
    assert!(dry.stdout.contains("[WARN]") && !exporter.output().exists(), "{dry}");
    dropin(&exporter, &[]).expect(1);
    dropin(&exporter, &[]).expect(0);
    let wrong = dropin(&exporter, &[("EXPORT_MODE", "sometimes")]).expect(1);
    assert_eq!(wrong.stdout.lines().filter(|line| line.starts_with("[ERROR]")).count(), 1, "{wrong}");
}

#[test]
fn the_drop_in_keeps_the_old_state_file_going_unless_it_is_told_not_to() {
    let table = Table::embedded();
    three_tenants(&table);
    let exporter = Exporter::new(&table);
    let file = exporter.output().join(".export_state/.last_export_time");
    let incremental = ("EXPORT_MODE", "incremental");
    dropin(&exporter, &[incremental, ("DRY_RUN", "true")]).expect(0);
    dropin(&exporter, &[incremental, ("INVOICE_EXPORT_MIRROR_LEGACY_STATE", "false")]).expect(0);
    assert!(!file.exists());
    dropin(&exporter, &[incremental]).expect(0);
    let lines = std::fs::read_to_string(&file).unwrap();
    let shown: Vec<[&str; 3]> = lines
        .lines()
        .map(|line| line.split('|').collect::<Vec<_>>())
        .map(|fields| [fields[0], fields[2], fields[3]])
        .collect();
    assert_eq!(shown, [["1", "0", "SUCCESS"], ["10", "0", "SUCCESS"], ["89", "0", "SUCCESS"]]);
}

/// What such files hold, and the folder below the home folder that it names.
const UNDERSTOOD: [(&str, &str); 20] = [
    ("INVOICE_EXPORT_OUTPUT=out", "out"),
    ("INVOICE_EXPORT_OUTPUT=out\r\n\r\n# Windows\r\n", "out"),
    ("\u{feff}INVOICE_EXPORT_OUTPUT=out\n", "out"),
    ("INVOICE_EXPORT_OUTPUT=\"out\"\r\n", "out"),
    ("INVOICE_EXPORT_OUTPUT='out'", "out"),
    ("export INVOICE_EXPORT_OUTPUT=out\n", "out"),
    ("  export\tINVOICE_EXPORT_OUTPUT=out  \nexport INVOICE_EXPORT_OUTPUT EXPORT_MODE\n", "out"),
    ("INVOICE_EXPORT_OUTPUT = out\n", "out"),
    ("INVOICE_EXPORT_OUTPUT=out # where the files go\n", "out"),
    ("INVOICE_EXPORT_OUTPUT=\"out\"  # it's here\n", "out"),
    ("INVOICE_EXPORT_OUTPUT=a#b\n", "a#b"),
    ("INVOICE_EXPORT_OUTPUT='a # b'\n", "a # b"),
    ("INVOICE_EXPORT_OUTPUT=my files\n", "my files"),
    ("INVOICE_EXPORT_OUTPUT='a $b \"c\" \\d;'\n", "a $b \"c\" \\d;"),
    ("INVOICE_EXPORT_OUTPUT=\"a \\$b \\\"c\\\" \\\\d\"\n", "a $b \"c\" \\d"),
    ("INVOICE_EXPORT_OUTPUT=~/out\n", "home/out"),
    ("INVOICE_EXPORT_OUTPUT=~\n", "home"),
    ("INVOICE_EXPORT_OUTPUT=first\nINVOICE_EXPORT_OUTPUT=second\n", "second"),
    ("INVOICE_EXPORT_OVERLAP=\nINVOICE_EXPORT_RETRY_FOR= # none\nINVOICE_EXPORT_OUTPUT=out\n", "out"),
    ("INVOICE_EXPORT_OUTPUT=发票\n", "发票"),
];

#[test]
fn settings_mean_what_they_mean_in_a_shell() {
    let table = Table::embedded();
    three_tenants(&table);
    for (settings, folder) in UNDERSTOOD {
        let mut exporter = Exporter::new(&table);
        // Empty, so that the file decides.
        exporter.set("INVOICE_EXPORT_OUTPUT", "");
        exporter.set("HOME", exporter.home().join("home"));
        fs::create_dir(exporter.home().join("home")).unwrap();
        let source = format!("INVOICE_EXPORT_SOURCE={}\n{settings}", table.url());
        let settings = if settings.starts_with('\u{feff}') { settings.to_owned() } else { source };
        let done = with_settings(&exporter, &settings, &[]).expect(0);
        let output = exporter.home().join(folder);
        assert!(output.join("1/CN/20251128+INV001.json").is_file(), "{settings:?}: {done}");
        assert!(!done.stdout.contains("[WARN]") && done.stderr.is_empty(), "{settings:?}: {done}");
    }
}

#[test]
fn settings_that_could_mean_two_things_are_refused_with_their_line_alone() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let refused: [&[u8]; 20] = [
        b"MYSQL_PWD=Hush$1",
        b"MYSQL_PWD=Hush\"1",
        b"MYSQL_PWD=\"Hush1",
        b"MYSQL_PWD='Hush1",
        b"MYSQL_PWD=\"Hush$x\"",
        b"MYSQL_PWD=\"Hush\\n1\"",
        b"MYSQL_PWD=\"Hush\"1",
        b"MYSQL_PWD=Hush\\1",
        b"MYSQL_PWD=#Hush1",
        b"MYSQL_PWD=Hush1; export MYSQL_PWD",
        b"MYSQL_PWD=`echo Hush1`",
        b"MYSQL_PWD=$(echo Hush1)",
        b"MYSQL_PWD: Hush1",
        b"mysql_pwd=Hush1",
        b"MYSQL_PWD Hush1",
        b"MYSQL_PWD=Hush\r1",
        b"INVOICE_EXPORT_OUTPUT=\"~/Hush\"",
        b"INVOICE_EXPORT_OUTPUT=~Hush/out",
        b"set -a",
        b"[Hush]",
    ];
    for line in refused {
        let settings = [b"# ours\r\n\r\n", line, b"\nINVOICE_EXPORT_LANG=zh\n"].concat();
        let said = with_settings(&exporter, settings, &[]).expect(1);
        let place = format!("[ERROR] {}/export_invoice_data.env 第 3 行: ", exporter.home().display());
        assert!(said.stdout.starts_with(&place) && said.stdout.lines().count() == 1, "{said}");
        assert!(!said.to_string().contains("Hush") && said.stderr.is_empty(), "{said}");
        assert!(!exporter.output().exists(), "{said}");
    }
    let unreadable = exporter.home().join("export_invoice_data.env");
    fs::remove_file(&unreadable).unwrap();
    fs::create_dir(&unreadable).unwrap();
    let copy = exporter.home().join("export_invoice_data.sh");
    let said = run_script(&copy, &exporter, &[]).expect(1);
    assert!(said.stdout.contains(unreadable.to_str().unwrap()) && !exporter.output().exists(), "{said}");
}

#[test]
fn the_environment_wins_over_the_settings_unless_it_is_empty() {
    let table = Table::embedded();
    three_tenants(&table);
    let settings = "EXPORT_MODE=incremental\nINVOICE_EXPORT_OVERLAPP=1h\n";
    for (mode, line) in [("full", "运行模式: full"), ("", "运行模式: incremental")] {
        let exporter = Exporter::new(&table);
        let done = with_settings(&exporter, settings, &[("EXPORT_MODE", mode)]).expect(0);
        assert!(done.stdout.contains(line), "{mode:?}: {done}");
        let warned = "[WARN] 变量 INVOICE_EXPORT_OVERLAPP 无法识别，不起作用\n[HINT] 可能应为 INVOICE_EXPORT_OVERLAP\n";
        assert!(done.stdout.starts_with(warned), "{done}");
    }
}
