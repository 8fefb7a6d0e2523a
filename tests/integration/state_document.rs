//! `docs/state.md` describes each table, view and column of the state, and no other.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use crate::support::exporter::Exporter;
use crate::support::table::{Row, Table};

type Columns = BTreeMap<String, BTreeSet<String>>;

/// The words in backquotes of a text.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

/// The tables that have a heading with a name in backquotes, and the columns in the first cells of the rows below it.
fn described(document: &str) -> Columns {
    let mut tables = Columns::new();
    let mut table = None;
    for line in document.lines() {
        if line.starts_with('#') {
            table = line.strip_prefix("### `").and_then(|name| name.strip_suffix('`')).map(str::to_owned);
            tables.extend(table.clone().map(|name| (name, BTreeSet::new())));
        } else if let (Some(table), Some(row)) = (&table, line.strip_prefix("| `")) {
            let cell = format!("`{}", row.split(" | ").next().unwrap());
            tables.get_mut(table).unwrap().extend(quoted(&cell));
        }
    }
    tables
}

#[test]
fn each_table_and_column_of_the_state_is_described() {
    let table = Table::embedded();
    table.insert(&Row::default());
    let exporter = Exporter::new(&table);
    exporter.run(["run", "--mode", "incremental"]).expect(0);
    let mut columns = Columns::new();
    let question =
        "SELECT m.name, i.name FROM sqlite_schema m, pragma_table_info(m.name) i WHERE m.type IN ('table', 'view')";
    for row in exporter.ask(question) {
        let (table, column) = row.split_once(' ').unwrap();
        columns.entry(table.to_owned()).or_default().insert(column.to_owned());
    }
    let document = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/state.md")).unwrap();
    let described = described(&document);
    assert_eq!(described.keys().collect::<Vec<_>>(), columns.keys().collect::<Vec<_>>());
    for (table, columns) in &columns {
        assert_eq!(&described[table], columns, "{table}");
    }
}
