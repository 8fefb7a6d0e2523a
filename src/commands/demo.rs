//! `demo`: makes an embedded sample source and exports it with the ordinary code: completely, then
//! what changed. A newcomer sees real files without a server.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::surroundings;
use crate::cli::Demo;
use crate::export::plan::StatePolicy;
use crate::export::{
    self, Backups, CommonOptions, ExportOptions, Margins, Mirror, Mode, Paths, Rejects, SourceOptions, WorkOptions,
};
use crate::fs::private::PRIVATE;
use crate::given_time::GivenWindow;
use crate::lang::{Explain, Text};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::run::Kind;
use crate::source::{Access, Address, SourceName, TableNames, Tls, sample};
use crate::state::selection::Selection;
use crate::tree::walk;

/// Files of each tenant that are shown.
const SHOWN: usize = 2;

/// Makes the sample, exports it completely and again after some changes, and shows each step.
pub(super) fn run(args: &Demo, reporter: &Reporter) -> anyhow::Result<u8> {
    let folder = &args.folder;
    if folder.exists() {
        let folder = folder.display();
        return Err(Refusal::usage(message! {
            "{folder} is already there", "{folder} 已存在";
            "name another folder, or remove it: rm -r '{folder}'", "请指定其他目录，或将其删除: rm -r '{folder}'"
        }));
    }
    fs::create_dir_all(folder).explain(|| text!("cannot create {}", "无法创建 {}", folder.display()))?;
    let database = folder.join("source.db");
    let started = surroundings::now();
    let ago = |minutes| (started - chrono::TimeDelta::minutes(minutes)).format("%Y-%m-%d %H:%M:%S").to_string();
    sample::create(&database, &ago(60))?;
    let output = folder.join("context");

    reporter.remark(&text!("# a sample source: {}", "# 示例数据源: {}", database.display()));
    export(&database, &output, Kind::Full, reporter)?;
    let changes = sample::change(&database, &ago(10))?;
    reporter.remark(&Text::same(""));
    let sample::SampleChanges { updated, inserted, moved, spoiled } = changes;
    reporter.remark(&text!(
        "# now {updated} invoices are updated, {inserted} are new, {moved} moved to another date, {spoiled} spoiled (no JSON any more)",
        "# 现在更新了 {updated} 张发票，新增 {inserted} 张，{moved} 张改了日期，{spoiled} 张被破坏（不再是 JSON）"
    ));
    export(&database, &output, Kind::Incremental, reporter)?;
    list(&output, reporter)?;
    say_what_next(folder, &output, reporter);
    Ok(0)
}

/// Says how to look at the files and how to remove them.
fn say_what_next(folder: &Path, output: &Path, reporter: &Reporter) {
    reporter.remark(&Text::same(""));
    reporter.remark(&text!(
        "# look at it:  find {} -name '*.json' | head",
        "# 查看: find {} -name '*.json' | head",
        output.display()
    ));
    reporter.remark(&text!(
        "# the spoiled invoice keeps its last good file and is read again by every run until it is mended",
        "# 被破坏的发票保留上一个正确的文件，每次运行都会重新读取，直到修正为止"
    ));
    reporter.remark(&text!("# away with it: rm -r {}", "# 删除: rm -r {}", folder.display()));
}

/// Shows the command and runs it.
fn export(database: &Path, output: &Path, kind: Kind, reporter: &Reporter) -> anyhow::Result<()> {
    let (from, to) = (database.display(), output.display());
    let command = format!("$ invoice-export run --source sqlite:{from} --output {to} --mode {kind}");
    reporter.remark(&Text::same(command));
    export::run(options(database, output, kind), &mut |event| reporter.event(&event))?;
    Ok(())
}

/// Some files of each tenant, and how many it has.
fn list(output: &Path, reporter: &Reporter) -> anyhow::Result<()> {
    reporter.remark(&Text::same(""));
    reporter.remark(&text!("# the tree {} holds, among others", "# {} 中有这些文件（部分）", output.display()));
    let mut shown: BTreeMap<PathBuf, usize> = BTreeMap::new();
    for path in walk::files(output) {
        let path = path?;
        let tenant = path.iter().take(1).collect();
        let count = shown.entry(tenant).or_default();
        *count += 1;
        if *count <= SHOWN {
            reporter.remark(&Text::same(path.display().to_string()));
        }
    }
    for (tenant, count) in shown {
        reporter.remark(&text!("# {count} files of tenant {}", "# {count} 个文件属于租户 {}", tenant.display()));
    }
    Ok(())
}

/// An export of the sample with the defaults of `run`.
fn options(database: &Path, output: &Path, kind: Kind) -> ExportOptions {
    let access = Access {
        url: Address::File(database.display().to_string()),
        password: None,
        names: TableNames::default(),
        time_zone: None,
        tls: Tls::default(),
        read_timeout: Duration::ZERO,
        max_document: 256 << 20,
    };
    ExportOptions {
        common: CommonOptions {
            kind,
            paths: Paths { output: output.to_path_buf(), state: output.join(PRIVATE).join("state.db"), mode: None },
            source: Some(SourceName::new(&access.url, &access.names.table)),
            policy: StatePolicy::Ordinary,
            selection: Selection::default(),
            margins: Margins { safety_lag: Duration::from_secs(300), overlap: Duration::from_secs(3600) },
            work: WorkOptions { lock_wait: Duration::ZERO, writers: 2, durability: None },
            rejects: Rejects::Kept,
            surroundings: surroundings::current(),
        },
        window: GivenWindow::default(),
        source: SourceOptions { access, retry_for: Duration::ZERO },
        mode: Mode::Export,
        backups: Backups { every: None, keep: 0 },
        mirror: Mirror::Off,
    }
}
