//! Owns the choice of the column by which rows are read again, and the words for tables that have none.

use super::TableNames;
use crate::lang::{Message, Text};

/// What a table is, as far as its keys depend on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum TableKind {
    Table,
    /// Each unique key contains the columns that the table is partitioned by.
    Partitioned,
    View,
}

/// The keys of a table.
pub(super) struct Keys<'a> {
    pub primary: &'a [String],
    /// The columns that are NOT NULL, have a unique index of their own, and are of a type that ids can have.
    pub unique: Vec<&'a str>,
    pub kind: TableKind,
}

/// The column of the ids: the named one, or the primary key if that has a single column.
pub(super) fn id_column(names: &TableNames, keys: &Keys<'_>) -> anyhow::Result<String> {
    match (&names.id, keys.primary) {
        (Some(named), _) => Ok(named.clone()),
        (None, [only]) => Ok(only.clone()),
        _ if keys.kind == TableKind::View => Err(view(names).into()),
        (None, []) => {
            let what = text!("the table {} has no primary key", "表 {} 没有主键", names.table);
            Err(what.with_hint(way_out(keys)).into())
        }
        (None, several) => {
            let (table, number, columns) = (&names.table, several.len(), several.join(", "));
            let what = text!(
                "the primary key of the table {table} has {number} columns ({columns})",
                "表 {table} 的主键有 {number} 列（{columns}）"
            );
            Err(what.with_hint(way_out(keys)).into())
        }
    }
}

/// Says that a column cannot hold the ids.
pub(super) fn unfit_id(names: &TableNames, id: &str, keys: &Keys<'_>) -> Message {
    if keys.kind == TableKind::View {
        return view(names);
    }
    let what = text!(
        "the column {id} of the table {} cannot be the id: it must be NOT NULL and have a unique index of its own",
        "表 {} 的列 {id} 不能作为 id：它必须是 NOT NULL，并有自己的唯一索引",
        names.table
    );
    what.with_hint(way_out(keys))
}

fn view(names: &TableNames) -> Message {
    message! {
        "{} is a view, which has no unique index by which its rows could be read again",
        "{} 是视图，视图没有唯一索引，无法按 id 重新读取记录", names.table;
        "name the table beneath it with --table", "请用 --table 指定视图所基于的表"
    }
}

fn way_out(keys: &Keys<'_>) -> Text {
    match (keys.unique.as_slice(), keys.kind) {
        ([], TableKind::Partitioned) => text!(
            "no column is unique by itself, because each unique key of a partitioned table contains the columns that it is partitioned by; such a table can be exported if it is partitioned by the id alone",
            "分区表的每个唯一键都必须包含分区列，因此没有任何一列单独唯一；只有仅按 id 分区的表才能导出"
        ),
        ([], _) => text!(
            "no NOT NULL column has a unique index of its own; make one (ALTER TABLE ... ADD UNIQUE), and name it with --id-column",
            "没有任何 NOT NULL 列具有自己的唯一索引；请创建一个（ALTER TABLE ... ADD UNIQUE），并用 --id-column 指定该列"
        ),
        (unique, _) => {
            text!("name a unique column with --id-column: {}", "请用 --id-column 指定唯一列: {}", unique.join(", "))
        }
    }
}
