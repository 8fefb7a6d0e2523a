//! The demo shows a newcomer a killed run, the run that heals it, a spoiled invoice and where a file comes from.

use std::fs;

use crate::support::exporter::Exporter;
use crate::support::table::Table;

/// What is shown of the invoice with this number.
fn shown<'a>(said: &'a str, number: &str) -> &'a str {
    let asked = format!("$ invoice-export why {number} ");
    let from = said.find(&asked).unwrap_or_else(|| panic!("{asked}: {said}"));
    said[from..].split("\n\n").next().unwrap()
}

#[test]
fn a_demo_kills_a_run_and_the_next_one_leaves_a_whole_tree() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let folder = exporter.home().join("demo");
    let done = exporter.run(["demo", folder.to_str().unwrap(), "--lang", "en"]).expect(0);
    let said = &done.stdout;
    // A machine that is too fast for the kill says so; then no run of the history died.
    let killed = said.contains("killed in the middle (kill -9): ") && said.contains(" of 291 files are in place");
    assert_eq!(killed, said.contains(" interrupted "), "{done}");
    assert!(killed || said.contains("too fast"), "{done}");
    assert!(said.contains(" full         success ") && said.contains(" incremental  partial "), "{done}");
    for tenant in ["147 files of tenant 1", "101 files of tenant 10", "46 files of tenant 89"] {
        assert!(said.contains(tenant), "{done}");
    }
    let (source, output) = (format!("sqlite:{}", folder.join("source.db").display()), folder.join("context"));
    let verify = ["verify", "--against-source", "--documents", "--source", &source, "--output"];
    let verified = exporter.run([verify.as_slice(), &[output.to_str().unwrap(), "--format", "json"]].concat());
    assert_eq!(verified.json()["differences"], 0, "{verified}");
}

#[test]
fn a_demo_says_why_a_spoiled_invoice_is_stale_and_which_run_wrote_a_good_one() {
    let table = Table::embedded();
    let exporter = Exporter::new(&table);
    let folder = exporter.home().join("demo");
    let done = exporter.run(["demo", folder.to_str().unwrap(), "--lang", "en"]).expect(0);
    let spoiled = shown(&done.stdout, "INV000000200");
    assert!(spoiled.contains("stale") && spoiled.contains("not JSON") && spoiled.contains("intact"), "{spoiled}");
    let good = shown(&done.stdout, "INV000000042");
    assert!(good.contains("exported") && good.contains("(incremental)"), "{good}");
}

#[test]
fn a_demo_is_not_led_astray_by_variables_that_are_meant_for_another_source() {
    let table = Table::embedded();
    let mut exporter = Exporter::new(&table);
    let folder = exporter.home().join("demo");
    for (name, value) in [("INVOICE_EXPORT_DRY_RUN", "true"), ("DRY_RUN", "true"), ("INVOICE_EXPORT_MODE", "backwards")]
    {
        exporter = exporter.env(name, value);
    }
    exporter.run(["demo", folder.to_str().unwrap()]).expect(0);
    assert!(fs::exists(folder.join("context/.export_state/state.db")).unwrap());
}
