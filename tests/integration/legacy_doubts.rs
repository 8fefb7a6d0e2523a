//! Lines of the script's state file that may claim more than was exported, and files with several wrong lines.

use std::time::Duration;

use serde_json::json;

use crate::support::exporter::Exporter;
use crate::support::scene::INCREMENTAL;
use crate::support::table::{Row, Table, on_every_source};

const HOUR: Duration = Duration::from_secs(3_600);

fn import(exporter: &Exporter<'_>, content: &str, args: &[&str]) -> crate::support::exporter::Finished {
    let file = exporter.home().join("state.txt");
    std::fs::create_dir_all(exporter.output()).unwrap();
    std::fs::write(&file, content).unwrap();
    exporter.run([&["import-legacy-state", file.to_str().unwrap()], args].concat())
}

#[test]
fn what_a_failed_line_or_one_ahead_of_the_clock_claims_is_compared() {
    on_every_source(|table| {
        let (past, soon) = (table.ago(4 * HOUR), table.ago(HOUR));
        for (id, tenant) in [(1, "failed"), (2, "ahead"), (3, "well")] {
            table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &past, ..Row::default() });
        }
        let exporter = Exporter::new(table);
        let content =
            format!("failed|{soon}|1|FAILED\nahead|{}|1|SUCCESS\nwell|{soon}|1|SUCCESS\n", table.ahead(5 * HOUR));
        for (lang, [failed, ahead]) in [
            ("en", ["last run failed: failed", "clock: ahead"]),
            ("zh", ["上次运行失败: failed", "晚于本机时钟: ahead"]),
        ] {
            let shown = import(&exporter, &content, &["--dry-run", "--lang", lang]).expect(0);
            let all = format!("{}{}", shown.stdout, shown.stderr);
            assert!(all.contains(failed) && all.contains(ahead), "{shown}");
        }
        let imported = import(&exporter, &content, &["--format", "json"]).expect(0).json();
        assert_eq!(imported["in_doubt"], json!(2), "{imported}");
        let look_backs = exporter.ask("SELECT name, look_back IS NULL FROM tenant ORDER BY name");
        assert_eq!(look_backs, ["ahead 1", "failed 1", "well 0"]);
        exporter.run(INCREMENTAL).expect(0);
        assert_eq!(exporter.ask("SELECT id FROM entry ORDER BY id"), ["1", "2"], "the script exported the third");
        exporter.run(["run", "--mode", "full"]).expect(0);
        exporter.assert_agrees();
        exporter.assert_state_is_sound();
    });
}

#[test]
fn everything_wrong_in_a_file_is_said_at_once() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let content = "1|2999-01-01 00:00:00|-1|DONE\n1|2025-11-28 16:30:00|1|SUCCESS\n\
                   2|2025-11-28 16:30:00|1|SUCCESS\n2|never|1|SUCCESS\n2|2025-11-28 16:30:00|01|SUCCESS\n";
    let refused = import(&exporter, content, &[]).expect(1);
    let line = |number: usize| {
        let start = format!("state.txt:{number}: ");
        refused.stderr.lines().find(|line| line.contains(&start)).map(str::to_owned)
    };
    let first = line(1).unwrap();
    assert!(
        ["lies in the future", "no number", "SUCCESS or FAILED"].iter().all(|what| first.contains(what)),
        "{refused}"
    );
    assert!(line(2).unwrap().contains("stands in line 1 already"), "{refused}");
    let fourth = line(4).unwrap();
    assert!(fourth.contains("is no time") && fourth.contains("stands in line 3 already"), "{refused}");
    assert_eq!((line(3), line(5)), (None, None), "{refused}");
    assert!(refused.last_error().contains("1, 2, 4"), "{refused}");
    let chinese = import(&exporter, content, &["--lang", "zh"]).expect(1);
    assert!(chinese.stderr.contains("晚于当前时间；") && chinese.stderr.contains("该租户已在第 1 行出现"), "{chinese}");
}
