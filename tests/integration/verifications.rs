//! Verifications: each is a run in the history, never the run that a later one goes by, and `status` says when each
//! tenant was last proven.

use std::fs;
use std::time::Duration;

use serde_json::{Value, json};

use crate::history::{INCREMENTAL, MINUTE};
use crate::support::disk::Mount;
use crate::support::exporter::{Exporter, run_with_at};
use crate::support::table::{Row, Table, on_every_source};

/// Two invoices of tenant 1 and one of tenant 10, exported.
fn exported(table: &Table) -> Exporter<'_> {
    for (id, tenant) in [(1, "1"), (2, "1"), (3, "10")] {
        insert(table, id, tenant);
    }
    let exporter = Exporter::new(table);
    exporter.run(INCREMENTAL).expect(0);
    exporter
}

fn insert(table: &Table, id: i64, tenant: &str) {
    let time = table.ago(50 * MINUTE);
    table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &time, ..Row::default() });
}

#[track_caller]
fn verify(exporter: &Exporter<'_>, args: &[&str], code: i32) -> Value {
    exporter.run(["verify", "--format", "json"].iter().chain(args)).expect(code).json()
}

fn history(exporter: &Exporter<'_>, run: &Value) -> Value {
    exporter.run(["history", &run.to_string(), "--format", "json"]).expect(0).json()
}

/// What `status` says of the last proof of each tenant: tenant, run, against, content, since, until.
fn proofs(exporter: &Exporter<'_>) -> Vec<String> {
    let status = exporter.run(["status", "--format", "json"]).expect(0).json();
    let mut proofs: Vec<String> = status
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            assert_eq!(row["verified_time"].is_string(), row["verified_run"].is_i64());
            let fields = ["run", "against", "content", "since", "until"].map(|field| &row[format!("verified_{field}")]);
            let words = fields.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
            format!("{}: {}", row["tenant"].as_str().unwrap(), words.join(" "))
        })
        .collect();
    proofs.sort_by_key(|proof| proof.split(':').next().unwrap().parse::<u32>().ok());
    proofs
}

#[test]
fn every_verification_is_a_run_with_what_it_compared_and_found() {
    on_every_source(|table| {
        let exporter = exported(table);
        assert_eq!(proofs(&exporter), ["1: null null null null null", "10: null null null null null"]);
        let plain = verify(&exporter, &[], 0);
        assert_eq!((&plain["run"], &plain["not_recorded"], &plain["source"]), (&json!(2), &Value::Null, &Value::Null));
        assert_eq!(
            (&plain["against"], &plain["content"], &plain["since"]),
            (&json!("ledger"), &json!("size"), &Value::Null)
        );
        table.execute("DELETE FROM t_invoice WHERE fid = 3");
        fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
        fs::write(exporter.output().join("10/CN/20251128+X.json"), "{}").unwrap();
        let window = ["--since", "2020-01-01", "--until", "2099-12-31"];
        let args = ["--against-source", "--hash", "--tenant", "1", "--tenant", "10"];
        let answer = verify(&exporter, &args, 6);
        assert_eq!(
            (&answer["run"], &answer["tenants"], &answer["differences"]),
            (&json!(3), &json!(["1", "10"]), &json!(3))
        );
        assert_eq!((&answer["against"], &answer["content"]), (&json!("keys"), &json!("hash")));
        assert!(answer["source"].as_str().unwrap().ends_with(".t_invoice"), "{answer}");
        let run = history(&exporter, &answer["run"]);
        assert_eq!(
            (&run["kind"], &run["status"], &run["boundary"]),
            (&json!("verify"), &json!("success"), &Value::Null)
        );
        for field in ["against", "content", "files_looked_at", "differences", "pending", "known_rejects"] {
            assert_eq!(run[field], answer[field], "{field}: {run}");
        }
        assert_eq!(run["verified_tenants"], json!([{ "tenant": "1" }, { "tenant": "10" }]));
        let found = |tenant: &str, difference: &str| json!({ "tenant": tenant, "difference": difference, "number": 1 });
        assert_eq!(run["findings"], json!([found("1", "missing"), found("10", "foreign"), found("10", "withdrawn")]));

        let documents = verify(&exporter, &[&["--against-source", "--documents"][..], &window].concat(), 6);
        let run = history(&exporter, &documents["run"]);
        for (field, time) in [("since", "2019-12-31 23:59:59"), ("until", "2099-12-31 23:59:59")] {
            assert!(run[field].as_str().unwrap().starts_with(time), "{run}");
            assert_eq!(run[field], documents[field]);
        }
        let listed = exporter.run(["history", "--kind", "verify"]).expect(0);
        let lines: Vec<&str> = listed.stdout.lines().collect();
        assert!(lines.len() == 4 && lines[3].contains("3 files, nothing differs"), "{listed}");
        assert!(lines[1].contains(" -> 2099-12-31") && lines[2].contains("3 differ"), "{listed}");
        assert!(lines[3].contains("everything"), "{listed}");
        exporter.run(["state", "check", "--deep"]).expect(0);
    });
}

#[test]
fn status_says_when_each_tenant_was_last_proven_and_how() {
    let table = Table::embedded();
    let exporter = exported(&table);
    verify(&exporter, &["--against-source"], 0);
    assert_eq!(proofs(&exporter), ["1: 2 keys size null null", "10: 2 keys size null null"]);
    let text = exporter.run(["status"]).expect(0);
    assert!(text.stdout.contains("last proven") && text.stdout.contains(" keys"), "{text}");
    verify(&exporter, &["--hash", "--tenant", "10"], 0);
    assert_eq!(proofs(&exporter), ["1: 2 keys size null null", "10: 2 keys size null null"]);
    // A difference proves nothing, also where only the folder tells the tenant.
    let foreign = exporter.output().join("10/CN/20251128+X.json");
    fs::write(&foreign, "{}").unwrap();
    verify(&exporter, &["--against-source"], 6);
    assert_eq!(proofs(&exporter), ["1: 4 keys size null null", "10: 2 keys size null null"]);
    fs::remove_file(&foreign).unwrap();
    insert(&table, 4, "2");
    exporter.run(INCREMENTAL).expect(0);
    assert_eq!(proofs(&exporter)[1..], ["2: null null null null null", "10: 2 keys size null null"]);
    verify(&exporter, &["--since", "2020-01-01 00:00:00", "--against-source", "--documents"], 0);
    let windowed = "2: 6 documents size 2020-01-01 00:00:00 null";
    assert_eq!(proofs(&exporter), ["1: 4 keys size null null", windowed, "10: 2 keys size null null"]);
    let chinese = exporter.run(["status", "--lang", "zh"]).expect(0);
    assert!(
        chinese.stdout.contains("最近一次核对无误")
            && chinese.stdout.contains("台账和数据源的全部内容，2020-01-01 00:00:00 ->"),
        "{chinese}"
    );
}

#[test]
fn a_repair_is_the_verification_that_found_what_it_mends() {
    let table = Table::embedded();
    let exporter = exported(&table);
    fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
    let answer = verify(&exporter, &["--against-source", "--repair"], 0);
    assert_eq!((&answer["run"], &answer["written"], &answer["left"]), (&json!(2), &json!(1), &json!(0)));
    assert_eq!(exporter.ask("SELECT id, kind, status, written FROM run WHERE id > 1"), ["2 verify success 1"]);
    assert!(exporter.ask_one("SELECT boundary FROM run WHERE id = 2").starts_with("20"));
    let run = history(&exporter, &answer["run"]);
    assert_eq!((&run["differences"], &run["findings"][0]["difference"]), (&json!(1), &json!("missing")));
    assert_eq!(proofs(&exporter), ["1: null null null null null", "10: 2 keys size null null"]);
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
    exporter.run(["state", "check", "--deep"]).expect(0);
}

#[test]
fn where_nothing_may_be_written_the_answer_comes_without_a_run() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    insert(&table, 1, "1");
    let mount = Mount::memory(&exporter.output(), "size=16m");
    exporter.run(INCREMENTAL).expect(0);
    mount.again("ro");
    for args in [&[][..], &["--against-source"], &["--against-source", "--documents", "--hash"]] {
        let answer = verify(&exporter, args, 0);
        assert_eq!((&answer["result"], &answer["files_looked_at"]), (&json!("nothing differs"), &json!(1)));
        let why = answer["not_recorded"].as_str().unwrap();
        assert!(answer["run"].is_null() && why.contains("Read-only file system"), "{answer}");
    }
    let text = exporter.run(["verify"]).expect(0);
    assert!(text.stdout.contains("not recorded"), "{text}");
    exporter.run(["verify", "--against-source", "--repair"]).expect(1);
    mount.again("rw");
    // Another user's state can be read by root, and is not written.
    for name in ["lock", "state.db"] {
        let file = exporter.output().join(".export_state").join(name);
        std::os::unix::fs::chown(file, Some(65_534), None).expect("this needs root");
    }
    let answer = verify(&exporter, &["--against-source"], 0);
    assert!(answer["run"].is_null() && answer["not_recorded"].is_string(), "{answer}");
    assert_eq!(exporter.ask("SELECT id FROM run"), ["1"]);
}

#[test]
fn a_verification_that_dies_is_interrupted_and_leaves_no_doubt() {
    let table = Table::embedded();
    let exporter = exported(&table);
    assert!(run_with_at(&exporter, "1/CN", "getdents64:signal=KILL:when=1", &["verify"]).was_killed());
    assert_eq!(exporter.ask("SELECT id, status FROM run ORDER BY id"), ["1 success", "2 running"]);
    let trouble = exporter.run(["history", "last-failed", "--format", "json"]).expect(0).json();
    assert_eq!((&trouble["id"], &trouble["kind"]), (&json!("2"), &json!("verify")));
    insert(&table, 4, "1");
    let run = exporter.run(INCREMENTAL).expect(0);
    assert!(["all keys are compared", "died"].iter().all(|doubt| !run.stderr.contains(doubt)), "{run}");
    assert_eq!(exporter.ask("SELECT status FROM run ORDER BY id"), ["success", "interrupted", "success"]);
    assert_eq!(proofs(&exporter)[0], "1: null null null null null");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn differences_of_tenants_that_the_state_does_not_know_are_on_record_as_one() {
    on_every_source(|table| {
        for (id, tenant) in [(1, "1"), (2, "10"), (3, "20"), (4, "20")] {
            insert(table, id, tenant);
        }
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "incremental", "--tenant", "1"]).expect(0);
        let answer = verify(&exporter, &["--against-source"], 6);
        assert_eq!((&answer["run"], &answer["differences"]), (&json!(2), &json!(3)), "{answer}");
        let run = history(&exporter, &answer["run"]);
        assert_eq!((&run["status"], &run["differences"]), (&json!("success"), &json!(3)));
        assert_eq!(run["findings"], json!([{ "tenant": null, "difference": "lost", "number": 3 }]));
        let detail = answer["findings"][0]["detail"].as_str().unwrap();
        assert!(detail.contains("no run has exported its tenant"), "{detail}");
    });
}

#[test]
fn a_tenant_that_lacks_an_invoice_which_moved_to_it_is_not_proven() {
    on_every_source(|table| {
        let exporter = exported(table);
        table.execute("UPDATE t_invoice SET ftenant_id = '10', fupdate_time = fupdate_time WHERE fid = 2");
        let answer = verify(&exporter, &["--against-source"], 6);
        assert_eq!(answer["differences"], json!(1), "{answer}");
        assert_eq!(proofs(&exporter), ["1: null null null null null", "10: null null null null null"]);
        let run = history(&exporter, &answer["run"]);
        assert_eq!(run["differences"], json!(1));
        let moved = |tenant: &str| json!({ "tenant": tenant, "difference": "moved", "number": 1 });
        assert_eq!(run["findings"], json!([moved("1"), moved("10")]));
    });
}

#[test]
fn a_weaker_verification_does_not_take_a_proof_away() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let window = ["--since", "2020-01-01 00:00:00"];
    verify(&exporter, &[&["--against-source", "--documents"][..], &window].concat(), 0);
    let windowed = |tenant: &str| format!("{tenant}: 2 documents size 2020-01-01 00:00:00 null");
    assert_eq!(proofs(&exporter), ["1", "10"].map(windowed));
    verify(&exporter, &["--tenant", "1"], 0);
    assert_eq!(proofs(&exporter), ["1: 3 ledger size null null".to_owned(), windowed("10")]);
    verify(&exporter, &["--against-source"], 0);
    verify(&exporter, &["--hash"], 0);
    assert_eq!(proofs(&exporter), ["1: 4 keys size null null", "10: 4 keys size null null"]);
    verify(&exporter, &["--against-source", "--documents", "--tenant", "1"], 0);
    verify(&exporter, &["--against-source"], 0);
    assert_eq!(proofs(&exporter), ["1: 6 documents size null null", "10: 7 keys size null null"]);
}

#[test]
fn status_shows_the_date_of_each_depth_and_the_newest_verification() {
    let table = Table::embedded();
    let exporter = exported(&table);
    // The clocks of the state stand still, so the dates are put in.
    let at = |run: u32, day: &str| {
        let state = rusqlite::Connection::open(exporter.state()).unwrap();
        let sql =
            "DROP TRIGGER IF EXISTS run_is_final; UPDATE run SET started = '2026-11-DAYT10:00:00Z' WHERE id = RUN";
        state.execute_batch(&sql.replace("DAY", day).replace("RUN", &run.to_string())).unwrap();
    };
    let row = |tenant: &str| {
        let status = exporter.run(["status", "--tenant", tenant, "--format", "json"]).expect(0).json();
        let fields =
            ["proven_ledger_time", "proven_keys_time", "proven_documents_time"].map(|field| status[0][field].clone());
        let newest =
            ["run", "against", "differences"].map(|field| status[0][format!("newest_verification_{field}")].clone());
        (fields.map(|time| time.as_str().map(|time| time[8..10].to_owned())), json!(newest))
    };
    let shown = |lang: &str| {
        let status = exporter.run(["status", "--utc", "--lang", lang]).expect(0);
        (status.stdout.lines().nth(1).unwrap().to_owned(), status.stdout)
    };
    let days = |days: [&str; 3]| days.map(|day| (!day.is_empty()).then(|| day.to_owned()));
    assert_eq!(row("1"), (days(["", "", ""]), json!([null, null, null])));
    verify(&exporter, &["--against-source", "--documents"], 0);
    at(2, "01");
    assert_eq!(row("1"), (days(["01", "01", "01"]), json!([2, "documents", 0])));
    verify(&exporter, &["--against-source", "--tenant", "1"], 0);
    at(3, "08");
    assert_eq!(row("1"), (days(["08", "08", "01"]), json!([3, "keys", 0])));
    assert_eq!(row("10"), (days(["01", "01", "01"]), json!([2, "documents", 0])));
    let both = "2026-11-01 10:00:00Z documents; 2026-11-08 10:00:00Z keys";
    assert!(shown("en").0.contains(both), "{}", shown("en").1);
    // A deeper one that comes later outdoes the one before it.
    verify(&exporter, &["--against-source", "--documents"], 0);
    at(4, "15");
    assert!(!shown("en").0.contains("11-08") && shown("en").0.contains("2026-11-15 10:00:00Z documents"));
    fs::remove_file(exporter.output().join("1/CN/20251128+INV1.json")).unwrap();
    verify(&exporter, &[], 6);
    at(5, "22");
    assert_eq!(row("1"), (days(["15", "15", "15"]), json!([5, "ledger", 1])));
    for (lang, titles, newest) in [
        ("en", ["last proven (UTC)", "last verified (UTC)"], "2026-11-22 10:00:00Z ledger: 1 differ"),
        ("zh", ["最近一次核对无误", "最近一次核对"], "2026-11-22 10:00:00Z 台账: 有 1 处差异"),
    ] {
        let (row, all) = shown(lang);
        assert!(titles.iter().all(|title| all.contains(title)) && row.contains(newest), "{all}");
        assert!(row.contains("2026-11-15 10:00:00"), "{all}");
    }
}

#[test]
fn no_files_prove_nothing() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    table.insert(&Row { id: 1, tenant: "1", document: "{", ..Row::default() });
    exporter.run(INCREMENTAL).expect(3);
    let answer = verify(&exporter, &["--against-source"], 0);
    assert_eq!((&answer["files_looked_at"], &answer["known_rejects"]), (&json!(0), &json!(1)));
    assert!(proofs(&exporter).iter().all(|proof| proof.ends_with(": null null null null null")));
    // Without a source, the open rejects of the state are as many.
    assert_eq!(verify(&exporter, &[], 0)["known_rejects"], json!(1));
    assert_eq!(verify(&exporter, &["--tenant", "1"], 0)["known_rejects"], json!(1));
}

#[test]
fn the_history_names_the_tenants_that_a_verification_was_limited_to() {
    let table = Table::embedded();
    let exporter = exported(&table);
    verify(&exporter, &[], 0);
    verify(&exporter, &["--tenant", "10"], 0);
    verify(&exporter, &["--tenant", "10", "--since", "2020-01-01 00:00:00"], 0);
    let listed = exporter.run(["history", "--kind", "verify"]).expect(0);
    let lines: Vec<&str> = listed.stdout.lines().collect();
    assert!(lines[1].contains("tenant 10, 2020-01-01 00:00:00 ->") && !lines[1].contains("none"), "{listed}");
    assert!(lines[2].contains("tenant 10 ") && !lines[2].contains("everything"), "{listed}");
    assert!(lines[3].contains("everything"), "{listed}");
    let listed = exporter.run(["history", "--kind", "verify", "--format", "json"]).expect(0).json();
    let tenants: Vec<&Value> = listed.as_array().unwrap().iter().map(|run| &run["tenants"]).collect();
    assert_eq!(tenants, [&json!(1), &json!(1), &json!(2)]);
}

#[test]
fn pending_invoices_leave_a_tenant_without_a_watermark_unproven() {
    let table = Table::embedded();
    for (id, tenant) in [(1, "1"), (2, "10")] {
        insert(&table, id, tenant);
    }
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "full"]).expect(0);
    exporter.run(["run", "--mode", "incremental", "--tenant", "10"]).expect(0);
    table.insert(&Row { id: 3, tenant: "1", number: "INV3", time: &table.ago(Duration::ZERO), ..Row::default() });
    let answer = verify(&exporter, &["--against-source"], 0);
    assert_eq!((&answer["files_looked_at"], &answer["pending"]), (&json!(2), &json!(1)));
    assert_eq!(proofs(&exporter), ["1: null null null null null", "10: 3 keys size null null"]);
}

#[test]
fn a_tenants_history_has_the_verifications_that_covered_it_with_its_own_figures() {
    on_every_source(|table| {
        let exporter = exported(table);
        let file = exporter.output().join("1/CN/20251128+INV1.json");
        fs::remove_file(&file).unwrap();
        verify(&exporter, &["--tenant", "10"], 0);
        verify(&exporter, &["--tenant", "1"], 6);
        verify(&exporter, &["--against-source", "--repair"], 0);
        insert(table, 4, "20");
        exporter.run(INCREMENTAL).expect(0);
        let shown = |tenant: &str, args: &[&str]| -> Vec<String> {
            let args = [&["history", "--tenant", tenant, "--format", "json"], args].concat();
            let listed = exporter.run(&args).expect(0).json();
            let entries = listed.as_array().unwrap().iter();
            let fields =
                ["id", "kind", "tenants", "differences", "pending", "files_looked_at", "known_rejects", "written"];
            entries.map(|entry| fields.map(|field| entry[field].to_string().replace('"', "")).join(" ")).collect()
        };
        let (export, none) = ("1 incremental 1 null null null null", "null null null null");
        assert_eq!(shown("1", &[])[..3], ["4 verify 1 1 0 null 0 1", "3 verify 1 1 0 2 0 0", &format!("{export} 2")]);
        assert_eq!(shown("10", &[]), ["4 verify 1 0 0 null 0 0", "2 verify 1 0 0 1 0 0", &format!("{export} 1")]);
        assert_eq!(shown("20", &[]), [format!("5 incremental 1 {none} 1")]);
        assert_eq!(
            shown("10", &["--kind", "verify", "--status", "success", "--limit", "1"]),
            [shown("10", &[])[0].clone()]
        );
        assert_eq!(shown("10", &["--kind", "incremental"]).len(), 1);
        assert_eq!(shown("10", &["--status", "failed"]), [""; 0]);
        for (lang, [found, nothing]) in [("en", ["1 differ", " nothing differs"]), ("zh", ["有 1 处差异", " 没有差异"])]
        {
            let text = |tenant| {
                exporter.run(["history", "--tenant", tenant, "--kind", "verify", "--lang", lang]).expect(0).stdout
            };
            assert!(text("1").lines().nth(1).unwrap().contains(found), "{}", text("1"));
            assert!(text("10").lines().nth(1).unwrap().contains(nothing), "{}", text("10"));
        }
    });
}

#[test]
fn what_was_pending_is_on_record_by_tenant_and_decides_for_good_what_is_proven() {
    on_every_source(|table| {
        for (id, tenant) in [(1, "1"), (2, "10")] {
            insert(table, id, tenant);
        }
        let exporter = Exporter::new(table);
        exporter.run(["run", "--mode", "full"]).expect(0);
        exporter.run(["run", "--mode", "incremental", "--tenant", "10"]).expect(0);
        let now = table.ago(Duration::ZERO);
        for (id, tenant) in [(3, "1"), (4, "1"), (5, "10"), (6, "new")] {
            table.insert(&Row { id, tenant, number: &format!("INV{id}"), time: &now, ..Row::default() });
        }
        let answer = verify(&exporter, &["--against-source"], 0);
        assert_eq!((&answer["run"], &answer["pending"]), (&json!(3), &json!(4)), "{answer}");
        let run = history(&exporter, &answer["run"]);
        let watermark = exporter.ask_one("SELECT watermark FROM tenant WHERE name = '10'");
        let pending = |tenant: Option<&str>, number: u64, watermark: Option<&str>| json!({ "tenant": tenant, "number": number, "watermark": watermark });
        let unknown = pending(None, 1, None);
        let expected = [unknown, pending(Some("1"), 2, None), pending(Some("10"), 1, Some(&watermark))];
        assert_eq!(run["pending_tenants"], json!(expected));
        assert_eq!((&run["verified_tenants"], &run["tenants"]), (&json!([]), &json!(2)));
        // Which tenants have a watermark later changes nothing.
        exporter.run(INCREMENTAL).expect(0);
        exporter.run(["state", "reset", "10", "--yes"]).expect(0);
        let proven = &proofs(&exporter)[1..];
        assert_eq!(proven, ["1: null null null null null", "10: 3 keys size null null"]);
        exporter.run(["state", "check", "--deep"]).expect(0);
    });
}

#[test]
fn a_verification_whose_findings_cannot_be_recorded_ends_as_failed() {
    let table = Table::embedded();
    let exporter = exported(&table);
    let state = rusqlite::Connection::open(exporter.state()).unwrap();
    let refusal = "CREATE TRIGGER no_room BEFORE INSERT ON verification BEGIN SELECT RAISE(ABORT, 'no room'); END";
    state.execute_batch(refusal).unwrap();
    drop(state);
    let answer = verify(&exporter, &[], 0);
    assert!(answer["not_recorded"].as_str().unwrap().contains("no room"), "{answer}");
    let runs = exporter.ask("SELECT id, status, error LIKE '%no room%' FROM run WHERE id > 1");
    assert_eq!(runs, ["2 failed 1"]);
}
