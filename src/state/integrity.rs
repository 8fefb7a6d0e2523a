//! Does the state hold together? SQLite's own checks, totals against their parts, the ledger against
//! watermarks and the to-do list. Nothing is changed.

use rusqlite::Connection;

use super::State;
use super::damage::explain;
use crate::lang::{Message, Text};
use crate::refusal::Refusal;
use crate::tree::name::TreePath;

/// How much is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// Everything but the ledger's rows.
    Quick,
    /// Every row and every index entry.
    Deep,
}

/// Something that should not be, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StateFinding {
    pub what: Text,
    pub remedy: Text,
}

impl StateFinding {
    /// Damage in the words of SQLite.
    fn damage(what: impl Into<String>) -> Self {
        Self { what: Text::same(what), remedy: restore_hint() }
    }

    /// With some of what a rule has found.
    fn of(what: Text, found: &[String], remedy: Text) -> Self {
        let (shown, more) = (found[..found.len().min(SHOWN)].join(", "), found.len().saturating_sub(SHOWN));
        let what = match more {
            0 => text!("{what}: {shown}", "{what}: {shown}"; what),
            _ => text!("{what}: {shown}, and {more} more", "{what}: {shown}，另有 {more} 个"; what),
        };
        Self { what, remedy }
    }
}

impl From<&Refusal> for StateFinding {
    fn from(refusal: &Refusal) -> Self {
        let Message { what, hint } = refusal.message();
        Self { what, remedy: hint.unwrap_or_else(|| Text::same("")) }
    }
}

fn restore_hint() -> Text {
    text!("bring the last backup back: state restore latest", "恢复最近的备份: state restore latest")
}

/// What to do about what a dead run left.
pub fn run_again_hint() -> Text {
    text!(
        "run the export again: it makes good what a run that died left",
        "请再次运行导出: 它会补全意外终止的运行留下的部分"
    )
}

fn full_run_hint() -> Text {
    text!(
        "a full run (run --mode full) compares every invoice and corrects the ledger",
        "全量导出（run --mode full）会比对每张发票并修正台账"
    )
}

fn set_hint() -> Text {
    text!("set it to a time you trust: state set TENANT TIME", "请设为可信的时间: state set 租户 时间")
}

/// What a query finds is wrong: its first column says where. At most some of it is shown.
struct Rule {
    depth: Depth,
    what: fn() -> Text,
    remedy: fn() -> Text,
    sql: &'static str,
}

const SHOWN: usize = 5;

const RULES: [Rule; 17] = [
    Rule {
        depth: Depth::Quick,
        what: || text!("the counts of these runs do not balance", "这些运行的各项计数对不上"),
        remedy: restore_hint,
        sql: "SELECT id FROM run WHERE seen <> written + unchanged + rejected + gone",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("the ways of writing of these runs do not add up", "这些运行的新增、替换、移动与写入数不一致"),
        remedy: restore_hint,
        sql: "SELECT id FROM run WHERE written <> new + replaced + moved OR unchanged < taken_over",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("from where on these tenants were read is no time", "这些租户的连续读取起点不是时间"),
        remedy: restore_hint,
        sql: "SELECT name FROM tenant WHERE read_from <> '' AND datetime(read_from) IS NULL",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("the totals of these runs differ from what they did for their tenants", "这些运行的总数与各租户之和不一致"),
        remedy: restore_hint,
        sql: "SELECT r.id FROM run r LEFT JOIN (
                SELECT run, sum(seen) AS seen, sum(written) AS written, sum(bytes) AS bytes FROM run_tenant GROUP BY run
              ) t ON t.run = r.id
              WHERE (r.written, r.bytes) <> (coalesce(t.written, 0), coalesce(t.bytes, 0)) OR r.seen < coalesce(t.seen, 0)",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("watermarks or look-backs of these tenants are no times", "这些租户的水位线或回看起点不是时间"),
        remedy: restore_hint,
        sql: "SELECT name FROM tenant WHERE (watermark IS NOT NULL AND datetime(watermark) IS NULL)
                 OR (look_back IS NOT NULL AND datetime(look_back) IS NULL)",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("the look-backs of these tenants lie above their watermarks", "这些租户的回看起点晚于水位线"),
        remedy: restore_hint,
        sql: "SELECT name FROM tenant WHERE look_back > coalesce(watermark, '')",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("the watermarks of these tenants lie above every boundary that runs had and every time that was set", "这些租户的水位线晚于所有运行的导出时间边界和所有设置过的时间"),
        remedy: set_hint,
        sql: "SELECT name FROM tenant WHERE watermark > max(
                coalesce((SELECT max(boundary) FROM run), ''), coalesce((SELECT max(new) FROM watermark_change), ''))",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("these tenants belong to a family that does not exist", "这些租户所属的分组不存在"),
        remedy: restore_hint,
        sql: "SELECT name FROM tenant WHERE family NOT IN (SELECT n FROM tenant)",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("these open rejects are not on the to-do list", "这些未关闭的问题记录不在待处理列表中"),
        remedy: full_run_hint,
        sql: "SELECT id FROM reject WHERE closed_run IS NULL AND id NOT IN (SELECT id FROM todo)",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("these ids are on the to-do list as rejects, but no reject is open", "这些 id 在待处理列表中标为无法导出，但没有未关闭的问题记录"),
        remedy: run_again_hint,
        sql: "SELECT id FROM todo d WHERE why = 'reject'
              AND NOT EXISTS (SELECT 1 FROM reject r WHERE r.id = d.id AND closed_run IS NULL)",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("these files were left in doubt by a run that died", "这些文件因运行意外终止而待确认"),
        remedy: run_again_hint,
        sql: "SELECT path FROM doubt_path",
    },
    Rule {
        depth: Depth::Quick,
        what: || text!("the last run that changed the tree is missing in the history", "历史中缺少最近一次改动导出目录的运行"),
        remedy: restore_hint,
        sql: "SELECT published_run FROM meta WHERE published_run > (SELECT coalesce(max(id), 0) FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: || text!("these invoices in the ledger belong to no tenant, no folder or no run that is known", "台账中这些发票所属的租户、目录或运行不存在"),
        remedy: full_run_hint,
        sql: "SELECT id FROM entry WHERE tenant NOT IN (SELECT n FROM tenant) OR folder NOT IN (SELECT n FROM folder)
                 OR run NOT IN (SELECT id FROM run) OR first_run NOT IN (SELECT id FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: || text!("the log of files of these runs names folders that are not known", "这些运行的文件记录引用了不存在的目录"),
        remedy: restore_hint,
        sql: "SELECT DISTINCT run FROM file_past WHERE folder NOT IN (SELECT n FROM folder)",
    },
    Rule {
        depth: Depth::Deep,
        what: || text!("these invoices count as seen, though they lie above every boundary that runs had", "这些发票被视为已读，但晚于所有运行的导出时间边界"),
        remedy: full_run_hint,
        sql: "SELECT id FROM entry WHERE settled AND time > (SELECT coalesce(max(boundary), '') FROM run)",
    },
    Rule {
        depth: Depth::Deep,
        what: || text!("these paths belong to invoices with different documents", "这些路径属于内容不同的多张发票"),
        remedy: full_run_hint,
        sql: "SELECT f.path || '/' || e.name || '.json' FROM entry e JOIN folder f ON f.n = e.folder
              GROUP BY e.folder, e.name HAVING min(e.sha256) <> max(e.sha256)",
    },
    Rule {
        depth: Depth::Deep,
        what: || text!("these invoices gave their paths to others, and are in the ledger all the same", "这些发票已让出路径，却仍在台账中"),
        remedy: run_again_hint,
        sql: "SELECT id FROM todo WHERE why = 'displaced' AND id IN (SELECT CAST(id AS TEXT) FROM entry)",
    },
];

impl State {
    /// Everything that should not be. Damage that keeps SQLite from reading is a finding too.
    pub fn check(&self, depth: Depth) -> anyhow::Result<Vec<StateFinding>> {
        let mut findings = Vec::new();
        let pragma = if depth == Depth::Deep { "integrity_check" } else { "quick_check" };
        let said = self
            .ask_despite_damage(|conn| texts(conn, &format!("PRAGMA {pragma}({SHOWN})")))?
            .unwrap_or_else(|damage| vec![damage]);
        for what in said.into_iter().filter(|said| said != "ok") {
            findings.push(StateFinding::damage(what.replace('\n', "; ")));
        }
        for rule in RULES.iter().filter(|rule| depth == Depth::Deep || rule.depth == Depth::Quick) {
            match self.ask_despite_damage(|conn| texts(conn, rule.sql))? {
                Ok(found) if found.is_empty() => {}
                Ok(found) => findings.push(StateFinding::of((rule.what)(), &found, (rule.remedy)())),
                Err(damage) => findings.push(StateFinding::damage(damage)),
            }
        }
        if depth == Depth::Deep {
            findings.extend(self.impossible_paths()?);
        }
        findings.dedup();
        Ok(findings)
    }

    fn impossible_paths(&self) -> anyhow::Result<Option<StateFinding>> {
        let found = self.ask_despite_damage(|conn| {
            let mut query = conn.prepare("SELECT path FROM ledger WHERE path IS NOT NULL")?;
            let paths = query.query_map([], |row| row.get::<_, String>(0))?;
            let wrong = paths.filter(|path| path.as_ref().map_or(true, |path| TreePath::parse(path).is_none()));
            wrong.take(SHOWN + 1).collect::<rusqlite::Result<Vec<String>>>()
        })?;
        Ok(match found {
            Ok(wrong) if wrong.is_empty() => None,
            Ok(wrong) => {
                let what = text!("the ledger holds impossible paths", "台账中有无效的路径");
                Some(StateFinding::of(what, &wrong, restore_hint()))
            }
            Err(damage) => Some(StateFinding::damage(damage)),
        })
    }

    /// The answer, or what damage keeps SQLite from giving it.
    fn ask_despite_damage<T>(
        &self,
        question: impl Fn(&Connection) -> rusqlite::Result<T>,
    ) -> anyhow::Result<Result<T, String>> {
        match self.read(|conn| Ok(question(conn)))? {
            Ok(answer) => Ok(Ok(answer)),
            Err(error) => {
                let detail = error.to_string();
                let error = explain(error, self.path());
                if error.is::<Refusal>() { Ok(Err(detail)) } else { Err(error) }
            }
        }
    }
}

fn texts(conn: &Connection, sql: &str) -> rusqlite::Result<Vec<String>> {
    let mut query = conn.prepare(sql)?;
    let rows = query.query_map([], |row| {
        Ok(match row.get_ref(0)? {
            rusqlite::types::ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
            other => other.as_i64().map(|number| number.to_string()).unwrap_or_default(),
        })
    })?;
    rows.collect()
}
