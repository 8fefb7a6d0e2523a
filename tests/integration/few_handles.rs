//! A process that may have few files open keeps fewer folders open, and exports all the same.

use std::process::Command;

use crate::support::exporter::{Exporter, Finished, Running, run_with, under};
use crate::support::table::{Table, on_every_source};

const TENANTS: u32 = 150;

/// Two countries of each tenant, which are two folders.
fn fill(table: &Table) {
    let rows: Vec<String> = (1..=2 * TENANTS)
        .map(|n| {
            let (tenant, country) = (n / 2, if n % 2 == 0 { "CN" } else { "DE" });
            format!("({n}, 't{tenant}', '{country}', '2025-11-28', 'INV{n}', 3, '{{}}', '2025-11-28 15:00:00')")
        })
        .collect();
    table.execute(&format!(
        "INSERT INTO t_invoice (fid, ftenant_id, fcountry, fissue_date, finvoice_no, fissue_status, fext_field, fupdate_time)
         VALUES {}",
        rows.join(", ")
    ));
}

fn limited(exporter: &Exporter<'_>, limit: u32, args: &[&str]) -> Finished {
    with_inherited(exporter, 0, limit, args)
}

#[test]
fn a_run_over_many_folders_takes_no_more_handles_than_it_may() {
    on_every_source(|table| {
        fill(table);
        for (minute, limit) in [56, 100, 256].into_iter().enumerate() {
            let exporter = Exporter::new(table);
            limited(&exporter, limit, &["run", "--mode", "full", "--writers", "64"]).expect(0);
            exporter.assert_agrees();
            let time = format!("2025-11-28 16:{minute:02}:00");
            table.execute(&format!("UPDATE t_invoice SET fext_field = '[{limit}]', fupdate_time = '{time}'"));
            limited(&exporter, limit, &["run", "--mode", "incremental"]).expect(0);
            exporter.assert_agrees();
            table.execute("UPDATE t_invoice SET fissue_date = '2025-11-29', fcountry = 'FR', fupdate_time = fupdate_time WHERE fid % 4 = 0");
            limited(&exporter, limit, &["verify", "--against-source", "--documents", "--repair", "--hash"]).expect(0);
            limited(&exporter, limit, &["status"]).expect(0);
            exporter.assert_agrees();
            exporter.assert_state_is_sound();
            table.execute("UPDATE t_invoice SET fissue_date = '2025-11-28', fcountry = 'DE', fupdate_time = fupdate_time WHERE fid % 4 = 0");
        }
    });
}

/// Starts the program with so many handles that it inherits, and no others.
fn with_inherited(exporter: &Exporter<'_>, inherited: u32, limit: u32, args: &[&str]) -> Finished {
    let last = 9 + inherited;
    let script = format!(
        "for n in {{3..300}}; do eval \"exec $n<&-\"; done; for n in $(seq 10 {last}); do eval \"exec $n</dev/null\"; done; \
         ulimit -n {limit}; exec \"$@\""
    );
    Running::new(&mut under(exporter, Command::new("bash").args(["-c", &script, "-"]), args)).wait()
}

#[test]
fn handles_that_are_inherited_are_not_counted_as_free() {
    on_every_source(|table| {
        fill(table);
        let exporter = Exporter::new(table);
        for (lang, words) in [("en", "of which 100 are inherited"), ("zh", "其中 100 个继承自父进程")] {
            let refused = with_inherited(&exporter, 100, 155, &["run", "--lang", lang]).expect(1);
            assert!(refused.stderr.contains(words) && refused.stderr.contains("ulimit -n"), "{refused}");
        }
        with_inherited(&exporter, 100, 156, &["run", "--writers", "64"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn too_few_handles_for_any_folder_are_refused_with_the_limit() {
    on_every_source(|table| {
        fill(table);
        let exporter = Exporter::new(table);
        for args in [&["run", "--format", "json"][..], &["run", "--dry-run", "--format", "json"]] {
            // A dry run looks into an output that is there.
            std::fs::create_dir_all(exporter.output()).unwrap();
            let refused = limited(&exporter, 40, args).expect(1);
            assert!(refused.json()["error"].as_str().is_some_and(|text| text.contains("ulimit -n")), "{refused}");
        }
        exporter.run(["run"]).expect(0);
        exporter.assert_agrees();
    });
}

#[test]
fn a_handle_that_is_not_to_be_had_for_once_costs_the_folders_that_were_open() {
    on_every_source(|table| {
        fill(table);
        for nth in [20, 60, 150] {
            let exporter = Exporter::new(table);
            run_with(&exporter, &format!("openat2:error=EMFILE:when={nth}"), &["run", "--mode", "full"]).expect(0);
            exporter.assert_agrees();
        }
    });
}
