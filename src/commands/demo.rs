//! `demo`: makes an embedded sample source and shows, with the ordinary commands of this very program, a run that is
//! killed, the one that heals it, what changed, and where each file comes from. A newcomer sees real files without a
//! server.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use clap::ValueEnum;

use super::surroundings;
use crate::cli::{self, Demo};
use crate::config;
use crate::lang::{Explain, Text};
use crate::refusal::Refusal;
use crate::report::Reporter;
use crate::source::sample;
use crate::tree::walk;

/// Files of each tenant that are shown.
const SHOWN: usize = 2;
/// On a fast machine a run can be through before it is killed; then another one is tried.
const KILLS_TRIED: usize = 5;
/// What the commands end with if an invoice is rejected, and if its file is not what its row says.
const REJECTED: i32 = 3;
const FINDING: i32 = 6;

/// Makes the sample, exports it completely and again after some changes, and shows each step.
pub(super) fn run(common: &cli::Common, args: &Demo, reporter: &Reporter) -> anyhow::Result<u8> {
    let folder = &args.folder;
    if folder.exists() {
        let folder = folder.display();
        return Err(Refusal::usage(message! {
            "{folder} is already there", "{folder} 已存在";
            "name another folder, or remove it: rm -r '{folder}'", "请指定其他目录，或将其删除: rm -r '{folder}'"
        }));
    }
    fs::create_dir_all(folder).explain(|| text!("cannot create {}", "无法创建 {}", folder.display()))?;
    let stage = Stage::new(common, folder, reporter)?;
    stage.make_sample()?;
    stage.kill_a_run()?;
    stage.export("full")?;
    stage.change_sample()?;
    stage.export("incremental")?;
    stage.list()?;
    if !common.quiet {
        stage.ask()?;
    }
    stage.say_what_next(folder);
    Ok(0)
}

/// The sample, its export, and the program that is shown.
struct Stage<'a> {
    program: PathBuf,
    /// The flags that the demo itself was given.
    flags: Vec<OsString>,
    database: PathBuf,
    output: PathBuf,
    reporter: &'a Reporter,
}

impl<'a> Stage<'a> {
    fn new(common: &cli::Common, folder: &Path, reporter: &'a Reporter) -> anyhow::Result<Self> {
        let program =
            std::env::current_exe().explain(|| text!("cannot find this program's file", "找不到本程序的文件"))?;
        let (database, output) = (folder.join("source.db"), folder.join("context"));
        Ok(Self { program, flags: flags(common), database, output, reporter })
    }

    fn make_sample(&self) -> anyhow::Result<()> {
        sample::create(&self.database, &minutes_ago(60))?;
        self.say(&text!("# a sample source: {}", "# 示例数据源: {}", self.database.display()));
        Ok(())
    }

    /// A killed run in two lines: how far it got, and that the next run needs no help.
    fn kill_a_run(&self) -> anyhow::Result<()> {
        let mut in_place = None;
        for _ in 0..KILLS_TRIED {
            in_place = self.killed_run()?;
            if in_place.is_some() {
                break;
            }
            fs::remove_dir_all(&self.output)
                .explain(|| text!("cannot remove {}", "无法删除 {}", self.output.display()))?;
        }
        let issued = sample::ISSUED;
        match in_place {
            Some(files) => self.say(&text!(
                "# a first run is killed in the middle (kill -9): {files} of {issued} files are in place, each of them whole",
                "# 第一次运行中途被 kill -9: {issued} 个文件中已写好 {files} 个，且每个都是完整的"
            )),
            None => self.say(&text!(
                "# this machine is too fast: each run that was to be killed in the middle was through before",
                "# 本机太快: 每次想在中途 kill 时，运行都已结束"
            )),
        }
        self.say(&text!(
            "# nothing has to be repaired by hand: the next run makes it complete",
            "# 无需手工修复: 下一次运行即可补全"
        ));
        Ok(())
    }

    /// Starts a full run and kills it when the first of its files is in place. The number of files that were, or `None` if
    /// it was through before.
    fn killed_run(&self) -> anyhow::Result<Option<usize>> {
        let mut command = self.command(&self.run_args("full"));
        let mut run = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().explain(|| self.cannot_start())?;
        while self.files_in_place() == 0 {
            if self.end_of(&mut run)?.is_some() {
                return Ok(None);
            }
        }
        // A run that ended just now cannot be killed, which the wait tells.
        let _ = run.kill();
        let end = run.wait().explain(|| self.cannot_start())?;
        Ok(end.code().is_none().then(|| self.files_in_place()))
    }

    fn end_of(&self, run: &mut Child) -> anyhow::Result<Option<std::process::ExitStatus>> {
        run.try_wait().explain(|| self.cannot_start())
    }

    fn files_in_place(&self) -> usize {
        // Before the run has made the output, there is none.
        walk::files(&self.output).filter(Result::is_ok).count()
    }

    fn change_sample(&self) -> anyhow::Result<()> {
        let changes = sample::change(&self.database, &minutes_ago(10))?;
        let sample::SampleChanges { updated, inserted, moved, spoiled } = changes;
        self.say(&Text::same(""));
        self.say(&text!(
            "# now {updated} invoices are updated, {inserted} are new, {moved} moved to another date, {spoiled} spoiled (no JSON any more)",
            "# 现在更新了 {updated} 张发票，新增 {inserted} 张，{moved} 张改了日期，{spoiled} 张被破坏（不再是 JSON）"
        ));
        Ok(())
    }

    fn export(&self, mode: &str) -> anyhow::Result<()> {
        self.show(&self.run_args(mode))
    }

    /// The history, and where the files of a spoiled invoice and of an updated one come from.
    fn ask(&self) -> anyhow::Result<()> {
        let output = [OsString::from("--output"), self.output.clone().into()];
        self.say(&Text::same(""));
        self.show(&[&["history".into()], output.as_slice()].concat())?;
        for number in [sample::spoiled_number(), sample::updated_number()] {
            self.say(&Text::same(""));
            self.show(&[&["why".into(), number.into()], self.source_args().as_slice()].concat())?;
        }
        Ok(())
    }

    fn run_args(&self, mode: &str) -> Vec<OsString> {
        [&["run".into()], self.source_args().as_slice(), &["--mode".into(), mode.into()]].concat()
    }

    fn source_args(&self) -> [OsString; 4] {
        let source = format!("sqlite:{}", self.database.display());
        ["--source".into(), source.into(), "--output".into(), self.output.clone().into()]
    }

    /// Shows the command and runs it.
    fn show(&self, args: &[OsString]) -> anyhow::Result<()> {
        let words: Vec<_> = args.iter().map(|word| word.to_string_lossy()).collect();
        let words = words.join(" ");
        self.say(&Text::same(format!("$ invoice-export {words}")));
        let end = self.command(args).status().explain(|| self.cannot_start())?;
        match end.code() {
            Some(0 | REJECTED | FINDING) => Ok(()),
            _ => Err(text!(
                "the demo ends here: \"invoice-export {words}\" ended with {end}",
                "演示到此结束: “invoice-export {words}”的退出状态为 {end}"
            )
            .into()),
        }
    }

    /// This program, untouched by variables that are meant for another source.
    fn command(&self, args: &[OsString]) -> Command {
        let mut command = Command::new(&self.program);
        for name in config::set_variables() {
            command.env_remove(name);
        }
        command.args(args).arg("--no-config").args(&self.flags).stdin(Stdio::null());
        command
    }

    fn cannot_start(&self) -> Text {
        text!("cannot start {}", "无法启动 {}", self.program.display())
    }

    fn say(&self, text: &Text) {
        self.reporter.remark(text);
    }

    /// Some files of each tenant, and how many it has.
    fn list(&self) -> anyhow::Result<()> {
        self.say(&Text::same(""));
        self.say(&text!("# the tree {} holds, among others", "# {} 中有这些文件（部分）", self.output.display()));
        let mut shown: BTreeMap<PathBuf, usize> = BTreeMap::new();
        for path in walk::files(&self.output) {
            let path = path?;
            let tenant = path.iter().take(1).collect();
            let count = shown.entry(tenant).or_default();
            *count += 1;
            if *count <= SHOWN {
                self.say(&Text::same(path.display().to_string()));
            }
        }
        for (tenant, count) in shown {
            self.say(&text!("# {count} files of tenant {}", "# {count} 个文件属于租户 {}", tenant.display()));
        }
        Ok(())
    }

    /// Says how to look at the files and how to remove them.
    fn say_what_next(&self, folder: &Path) {
        self.say(&Text::same(""));
        self.say(&text!(
            "# the spoiled invoice keeps its last good file and is read again by every run until it is mended",
            "# 被破坏的发票保留上一个正确的文件，每次运行都会重新读取，直到修正为止"
        ));
        self.say(&text!(
            "# look at it:  find {} -name '*.json' | head",
            "# 查看: find {} -name '*.json' | head",
            self.output.display()
        ));
        self.say(&text!(
            "# the program: {}, ready for your own source",
            "# 程序: {}，可直接用于你自己的数据源",
            self.program.display()
        ));
        self.say(&text!("# away with it: rm -r {}", "# 删除演示: rm -r {}", folder.display()));
    }
}

/// The flags of the demo that say how its commands print.
fn flags(common: &cli::Common) -> Vec<OsString> {
    let value = |value: Option<clap::builder::PossibleValue>| value.map(|value| value.get_name().to_owned());
    let switches =
        [(common.quiet, "-q"), (common.verbose, "-v"), (common.utc, "--utc"), (common.no_progress, "--no-progress")];
    let valued = [
        ("--lang", common.lang.and_then(|lang| value(lang.to_possible_value()))),
        ("--format", value(common.format.to_possible_value())),
    ];
    let switches = switches.into_iter().filter(|(given, _)| *given).map(|(_, name)| name.into());
    let valued = valued.into_iter().filter_map(|(name, value)| Some([name.into(), value?.into()])).flatten();
    switches.chain(valued).collect()
}

/// The source time of so many minutes ago.
fn minutes_ago(minutes: i64) -> String {
    (surroundings::now() - chrono::TimeDelta::minutes(minutes)).format("%Y-%m-%d %H:%M:%S").to_string()
}
