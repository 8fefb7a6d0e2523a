//! The reporter as a whole: what a user sees, stream by stream.

use std::io;
use std::sync::Arc;

use anyhow::{Context, anyhow};

use super::*;
use crate::effort::Effort;
use crate::event::TenantPast;
use crate::given_time::OwnZone;
use crate::invoice::{InvoiceId, Reason, SourceTime};
use crate::lang::Explain;
use crate::run::{Counts, Kind, Outcome, RunId};

const FULL_SAMPLE: &str = "\
[INFO] 运行模式: full
[INFO] ==========================================
[INFO] 执行全量导出
[INFO] ==========================================
[INFO] 开始处理租户: 1
[INFO] 已导出 100 条记录...
[SUCCESS] 租户 1 处理完成
[SUCCESS] ==========================================
[SUCCESS] 全量导出完成!
[SUCCESS] ==========================================
[INFO] 租户数量: 3
[INFO] 成功导出: 24556 条记录
";

const INCREMENTAL_SAMPLE: &str = "\
[INFO] 运行模式: incremental
[INFO] ==========================================
[INFO] 执行增量导出
[INFO] ==========================================
[INFO] 导出时间边界: 2025-11-28 16:30:00
[INFO] 获取租户列表...
[INFO] 租户 1: 2025-11-28 15:00:00 -> 2025-11-28 16:30:00
[SUCCESS] 租户 1: 导出 127 条新记录
[INFO] 租户 10: 首次导出，基线时间: 1970-01-01 00:00:00
[SUCCESS] 租户 10: 导出 85 条新记录
[INFO] 租户 89: 2025-11-28 14:30:00 -> 2025-11-28 16:30:00
[INFO] 租户 89: 无新增数据
[SUCCESS] ==========================================
[SUCCESS] 增量导出完成!
[SUCCESS] ==========================================
[INFO] 处理租户数: 3
[INFO] 成功导出: 212 条新记录
[INFO] 状态文件: ../context/.export_state/.last_export_time
";

/// A run that succeeded with nothing to tell but what the samples tell.
pub(super) fn summary(kind: Kind) -> Summary {
    Summary {
        run: Some(RunId(1)),
        kind,
        outcome: Outcome::Success,
        boundary: SourceTime::from("2025-11-28 16:30:00"),
        since: None,
        tenants: 3,
        failed_tenants: Vec::new(),
        counts: Counts::default(),
        new_rejects: 0,
        open_rejects: 0,
        unread: 0,
        leftovers: 0,
        retries: 0,
        effort: Effort { source: 12, state: 345 },
        elapsed: Duration::ZERO,
        output: "../context".into(),
        state: "../context/.export_state/.last_export_time".into(),
    }
}

#[derive(Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

const CHINESE: PrintSettings = PrintSettings {
    lang: Lang::Zh,
    zone: OwnZone::Utc,
    format: PrintFormat::Text,
    verbosity: Verbosity::Normal,
    progress: ProgressDisplay::Auto,
    patience: None,
};
const ENGLISH: PrintSettings = PrintSettings { lang: Lang::En, ..CHINESE };

/// Reports these events, each at so many seconds; returns what went to stdout and stderr, and both
/// as a terminal would show them.
fn shown(settings: PrintSettings, events: &[(u64, Event)]) -> (String, String, String) {
    let (out, err, both) = (Captured::default(), Captured::default(), Captured::default());
    let apart = Reporter::to_writers(settings, Box::new(out.clone()), Box::new(err.clone()));
    let together = Reporter::to_writers(settings, Box::new(both.clone()), Box::new(both.clone()));
    let start = Instant::now();
    for (second, event) in events {
        for reporter in [&apart, &together] {
            reporter.printer().event(event, start + Duration::from_secs(*second));
        }
    }
    (out.text(), err.text(), both.text())
}

fn told(settings: PrintSettings, error: &anyhow::Error) -> (String, String) {
    let (out, err) = (Captured::default(), Captured::default());
    Reporter::to_writers(settings, Box::new(out.clone()), Box::new(err.clone())).error(error);
    (out.text(), err.text())
}

fn started(tenant: &str, after: Option<&str>) -> Event {
    let upto = Some(SourceTime::from("2025-11-28 16:30:00"));
    Event::TenantStarted { tenant: tenant.into(), past: TenantPast::None, after: after.map(SourceTime::from), upto }
}

fn done(tenant: &str, written: u64) -> Event {
    Event::TenantDone { tenant: tenant.into(), counts: written_only(written) }
}

fn written_only(written: u64) -> Counts {
    Counts { seen: written, written, new: written, ..Counts::default() }
}

fn full_run() -> Vec<(u64, Event)> {
    let counts = written_only(24_556);
    vec![
        (0, Event::Started { kind: Kind::Full, dry_run: false }),
        (0, Event::ListingTenants),
        (0, Event::Expected(24_556)),
        (0, Event::TenantStarted { tenant: "1".into(), past: TenantPast::None, after: None, upto: None }),
        (1, Event::Progress { invoices: 50 }),
        (5, Event::Progress { invoices: 100 }),
        (6, Event::Progress { invoices: 24_556 }),
        (7, done("1", 24_456)),
        (7, Event::Finished(Box::new(Summary { counts, ..summary(Kind::Full) }))),
    ]
}

/// The second and the third tenant start before the first is done, as when a batch spans tenants.
fn incremental_run() -> Vec<(u64, Event)> {
    let summary = Summary { counts: written_only(212), ..summary(Kind::Incremental) };
    vec![
        (0, Event::Started { kind: Kind::Incremental, dry_run: false }),
        (0, Event::Boundary("2025-11-28 16:30:00".into())),
        (0, Event::ListingTenants),
        (0, started("1", Some("2025-11-28 15:00:00"))),
        (1, started("10", None)),
        (1, Event::Progress { invoices: 150 }),
        (1, started("89", Some("2025-11-28 14:30:00"))),
        (2, done("89", 0)),
        (2, done("1", 127)),
        (2, done("10", 85)),
        (2, Event::Finished(Box::new(summary))),
    ]
}

#[test]
fn a_full_run_reads_as_documented() {
    let (out, _, both) = shown(CHINESE, &full_run());
    assert_eq!(both, FULL_SAMPLE);
    assert!(out.starts_with("[SUCCESS] ===="), "{out}");
}

#[test]
fn an_incremental_run_reads_as_documented_with_its_result_on_stdout() {
    let (out, err, both) = shown(CHINESE, &incremental_run());
    assert_eq!(both, INCREMENTAL_SAMPLE);
    assert_eq!(err + &out, INCREMENTAL_SAMPLE);
    assert!(out.starts_with("[SUCCESS] ===="), "{out}");
}

#[test]
fn english_has_the_same_lines_in_the_same_order() {
    let (.., english) = shown(ENGLISH, &incremental_run());
    let prefixes = |text: &str| text.lines().map(|line| line.split(' ').next().unwrap().to_owned()).collect::<Vec<_>>();
    assert_eq!(prefixes(&english), prefixes(INCREMENTAL_SAMPLE));
    assert!(english.is_ascii(), "{english}");
    assert!(english.contains("\n[INFO] tenant 1: 2025-11-28 15:00:00 -> 2025-11-28 16:30:00\n"), "{english}");
}

#[test]
fn a_dry_run_says_so_first() {
    let events =
        [(0, Event::Started { kind: Kind::Incremental, dry_run: true }), (0, started("1", None)), (0, done("1", 127))];
    let (_, err, _) = shown(CHINESE, &events);
    assert_eq!(err.lines().next(), Some("[INFO] 测试模式（DRY_RUN）: 只读取和检查，不写入任何文件"));
    assert_eq!(err.lines().last(), Some("[SUCCESS] 租户 1: 将导出 127 条新记录"));
}

#[test]
fn a_quiet_run_shows_rejects_and_nothing_else() {
    let mut events = incremental_run();
    let reason = Reason::PathBlocked { path: "1/CN/x.json".to_owned() };
    let rejected =
        Event::Rejected { tenant: Some("1".into()), id: InvoiceId::from("9"), number: Some("A\u{7}1".into()), reason };
    events.insert(4, (1, rejected));
    let (out, err, _) = shown(PrintSettings { verbosity: Verbosity::Quiet, ..ENGLISH }, &events);
    assert_eq!(
        err,
        "[WARN] tenant 1: invoice A\\u00071 (id 9) cannot be exported: something that is not a file lies at 1/CN/x.json\n"
    );
    assert_eq!(out, "");
}

#[test]
fn without_progress_there_is_no_line_of_it() {
    let (_, err, _) = shown(PrintSettings { progress: ProgressDisplay::Never, ..CHINESE }, &full_run());
    assert!(!err.contains("已导出"), "{err}");
}

#[test]
fn with_json_stdout_is_one_object_and_the_log_stays_on_stderr() {
    let settings = PrintSettings { format: PrintFormat::Json, ..CHINESE };
    let (out, err, _) = shown(settings, &incremental_run());
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!(object["written"], 212);
    assert_eq!(out.lines().count(), 1);
    assert!(INCREMENTAL_SAMPLE.starts_with(&err) && err.ends_with("无新增数据\n"), "{err}");
}

#[test]
fn an_error_is_one_line_with_its_whole_chain() {
    let error = Err::<(), _>(io::Error::other("disk\nfull")).context("cannot sync the tree").unwrap_err();
    assert_eq!(told(CHINESE, &error), (String::new(), "[ERROR] cannot sync the tree: disk\\nfull\n".to_owned()));
    assert_eq!(exit_code(&error), 1);
}

#[test]
fn every_link_of_a_chain_is_in_the_chosen_language_and_the_hint_has_its_line() {
    let refusal = Refusal::NotOwner { path: "/srv/state.db".into() };
    let error = Err::<(), _>(refusal).explain(|| text!("cannot open the state", "无法打开状态文件")).unwrap_err();
    let error = error.context("restore");
    assert_eq!(
        told(CHINESE, &error).1,
        "[ERROR] restore: 无法打开状态文件: /srv/state.db 属于另一个用户\n\
         [HINT] 请以该用户运行，或用 chown 改为当前用户所有；如果只需读取，由该用户执行 `run --state-mode 0640` 即可让其目录的属组读取\n"
    );
    assert_eq!(
        told(ENGLISH, &error).1,
        "[ERROR] restore: cannot open the state: /srv/state.db belongs to another user\n\
         [HINT] run as that user, or give it to this one with chown; if it is only to be read, `run --state-mode 0640` by that user lets the group of its folder read it\n"
    );
    assert_eq!(exit_code(&error), 5);
}

#[test]
fn an_error_of_the_operating_system_says_what_helps() {
    let error =
        Err::<(), _>(io::Error::from(io::ErrorKind::StorageFull)).explain(|| text!("cannot write a", "无法写入 a"));
    let (_, told) = told(CHINESE, &error.unwrap_err());
    assert_eq!(told, "[ERROR] 无法写入 a: no storage space\n[HINT] 请释放磁盘空间；下次运行会从此处继续\n");
}

#[test]
fn a_cause_that_is_quoted_already_is_not_repeated() {
    let error = anyhow!("disk full").context("cannot sync: disk full");
    assert_eq!(told(ENGLISH, &error).1, "[ERROR] cannot sync: disk full\n");
}

#[test]
fn with_json_an_error_is_one_english_object_too() {
    let error = anyhow!(Refusal::UnknownTenant("acme".to_owned()));
    let (out, err) = told(PrintSettings { format: PrintFormat::Json, ..CHINESE }, &error);
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    let hint = "check the spelling, also upper and lower case";
    assert_eq!(object, serde_json::json!({ "error": error.to_string(), "exit_code": 2, "hint": hint }));
    assert!(error.to_string().ends_with(hint));
    assert_eq!(err, "[ERROR] 数据库中没有租户 \"acme\"\n[HINT] 请检查拼写和大小写\n");
}

#[test]
fn with_json_an_error_without_a_hint_says_null() {
    let (out, _) = told(PrintSettings { format: PrintFormat::Json, ..ENGLISH }, &anyhow!("no run yet"));
    assert_eq!(out, "{\"error\":\"no run yet\",\"exit_code\":1,\"hint\":null}\n");
}

#[test]
fn with_json_an_error_after_the_summary_adds_no_second_object() {
    let out = Captured::default();
    let settings = PrintSettings { format: PrintFormat::Json, ..ENGLISH };
    let reporter = Reporter::to_writers(settings, Box::new(out.clone()), Box::new(io::sink()));
    reporter.event(&Event::Finished(Box::new(Summary { outcome: Outcome::Partial, ..summary(Kind::Full) })));
    reporter.error(&anyhow!("no disk"));
    assert_eq!(out.text().lines().count(), 1);
}

#[test]
fn an_error_first_says_what_was_held_back() {
    let err = Captured::default();
    let reporter = Reporter::to_writers(ENGLISH, Box::new(io::sink()), Box::new(err.clone()));
    reporter.event(&Event::Started { kind: Kind::Incremental, dry_run: false });
    for event in [started("1", None), started("2", None), done("2", 4)] {
        reporter.event(&event);
    }
    reporter.error(&anyhow!("no disk"));
    assert!(err.text().ends_with("[SUCCESS] tenant 2: 4 invoices exported\n[ERROR] no disk\n"), "{}", err.text());
}

struct Broken(io::ErrorKind);

impl Write for Broken {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(self.0.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Err(self.0.into())
    }
}

#[test]
fn a_closed_pipe_is_no_trouble_and_a_full_disk_loses_the_result() {
    for (kind, complaints, code) in [(io::ErrorKind::BrokenPipe, 0, 6), (io::ErrorKind::StorageFull, 2, 1)] {
        let err = Captured::default();
        let reporter = Reporter::to_writers(ENGLISH, Box::new(Broken(kind)), Box::new(err.clone()));
        reporter.line(&Text::same("one"));
        reporter.line(&Text::same("two"));
        assert_eq!((err.text().lines().count(), reporter.exit_code(6)), (complaints, code), "{}", err.text());
        let deaf = Reporter::to_writers(ENGLISH, Box::new(Broken(kind)), Box::new(Broken(kind)));
        deaf.event(&Event::ListingTenants);
        deaf.error(&anyhow!("no disk"));
    }
}

#[test]
fn plain_lines_go_to_stdout_but_not_into_json() {
    for (format, on_out, on_err) in
        [(PrintFormat::Text, "a\\u001bb\nc\n", ""), (PrintFormat::Json, "", "a\\u001bb\nc\n")]
    {
        let (out, err) = (Captured::default(), Captured::default());
        let settings = PrintSettings { format, ..ENGLISH };
        Reporter::to_writers(settings, Box::new(out.clone()), Box::new(err.clone())).line(&Text::same("a\u{1b}b\nc"));
        assert_eq!((out.text().as_str(), err.text().as_str()), (on_out, on_err));
    }
}

#[test]
fn a_reporter_is_shared_by_threads() {
    fn shareable<T: Send + Sync>() {}
    shareable::<Reporter>();
}
