//! The drop-in for crontabs that call the old script: the documented lines, all on stdout.

use std::path::Path;
use std::process::Command;

use crate::support::exporter::{Exporter, Finished, Running};
use crate::support::table::{Row, Table, on_every_source};

const RULE: &str = "==========================================";

fn dropin(exporter: &Exporter<'_>, variables: &[(&str, &str)]) -> Finished {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/export_invoice_data.sh");
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
