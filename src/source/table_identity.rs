//! Owns the identity of the source's table: the proof that an id still is the row that was exported.
//!
//! The facts that servers show (MariaDB 10.11 and MySQL 9.7, tried out; "=" means unchanged):
//!
//! | what happens | `TABLE_ID` | `CREATE_TIME` | `AUTO_INCREMENT` |
//! |---|---|---|---|
//! | TRUNCATE, also refilled to the same rows | new | = | starts anew |
//! | DELETE of all rows | = | = | = |
//! | ... and `ALTER TABLE … AUTO_INCREMENT = 1` | = | new | starts anew |
//! | ADD COLUMN (instant), ADD or DROP INDEX, COMMENT | = | new | = |
//! | ADD COLUMN (in place) | MariaDB =, MySQL new | new | = |
//! | ALTER with a copy, OPTIMIZE, ENGINE=InnoDB | new | new | = |
//! | ANALYZE | = | = | = |
//! | RENAME to and fro | = | MariaDB new (it is the ctime of the `.frm`), MySQL = | = |
//! | RENAME of another table into its place (gh-ost, pt-osc) | new | new | that table's |
//! | reload of a dump | new | new | the dump's |
//! | TRUNCATE of one partition | one of several new | = | = |
//!
//! So `TABLE_ID` shows what `CREATE_TIME` does not, and the other way round, and a harmless ALTER cannot be told from
//! one that lets ids start anew. All facts must be the same. `TABLE_ID` takes the PROCESS privilege on both servers.
//! A physical backup that is put back brings all of these back, with ids that are given out a second time. That
//! takes a restart, so the start of the server is one of the facts.
//!
//! Where the application chooses integer ids itself, the greatest id takes the place of `AUTO_INCREMENT`: it goes back
//! when ids begin anew after a DELETE of all rows. It goes back as well when the newest row is deleted, which only keeps
//! files. The smallest id proves nothing more: it goes back only where ids begin anew below rows that remain, and a
//! counter of the server's own never does that. A row that is deleted and inserted again with its id cannot be told
//! from an updated one: no fact of the table changes, and a server shows nothing of a row's age. `export/standing.rs`
//! says which rows count as the same invoice all the same.
//!
//! A restart of the server changes the facts too, since a backup that was put back in between shows nowhere else. So the
//! old files of invoices that move stay from then on, until their rows are read anew.
//!
//! SQLite has no TRUNCATE. Its facts are the file (device and inode) and the version of its schema, which DROP,
//! CREATE, ALTER and VACUUM change. Rows that are deleted and inserted anew change neither, and SQLite gives the ids
//! of deleted rows out again, except where the table says AUTOINCREMENT; without that nothing is proven.

/// The facts that tell a table from another one with its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TableIdentity {
    /// Another text for another table.
    pub facts: String,
    /// No id beyond this one was given out yet: the table's counter, or its greatest id. None if ids are texts, or if
    /// an SQLite table has given out none.
    pub next_id: Option<i64>,
}

impl TableIdentity {
    /// Whether a later table is provably this one. A counter that went back gives out ids again.
    pub fn lasts(&self, later: &Self) -> bool {
        self.facts == later.facts && self.next_id <= later.next_id
    }
}

/// A pattern for `LIKE` that matches InnoDB's name of a table, and with `#p#%` behind it the names of its partitions.
/// InnoDB spells names as file names: letters without an accent, digits and `_` as they are, `$` as `@0024`. Other
/// letters have codes of two or four characters, for which `%` stands. A pattern that also matches other tables makes
/// the facts change too often, which only keeps files.
pub(super) fn innodb_name(database: &str, table: &str) -> String {
    let mut pattern = String::new();
    for (n, part) in [database, table].into_iter().enumerate() {
        if n > 0 {
            pattern.push('/');
        }
        for letter in part.chars() {
            match letter {
                'a'..='z' | 'A'..='Z' | '0'..='9' => pattern.push(letter.to_ascii_lowercase()),
                '_' => pattern.push_str("|_"),
                _ if letter.is_ascii() => pattern.push_str(&format!("@{:04x}", u32::from(letter))),
                _ => pattern.push_str("@%"),
            }
        }
    }
    pattern
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_is_the_same_while_its_facts_are_and_no_id_is_given_out_again() {
        let identity = |facts: &str, next_id| TableIdentity { facts: facts.to_owned(), next_id };
        assert!(identity("a", Some(4)).lasts(&identity("a", Some(4))));
        assert!(identity("a", Some(4)).lasts(&identity("a", Some(9))));
        assert!(identity("a", None).lasts(&identity("a", Some(1))));
        assert!(!identity("a", Some(4)).lasts(&identity("a", Some(3))));
        assert!(!identity("a", Some(4)).lasts(&identity("a", None)));
        assert!(!identity("a", Some(4)).lasts(&identity("b", Some(4))));
    }

    #[test]
    fn a_pattern_for_innodbs_name_escapes_what_like_would_read_otherwise() {
        assert_eq!(innodb_name("Invoices_1", "t_invoice"), "invoices|_1/t|_invoice");
        assert_eq!(innodb_name("p-$x", "T 发#P#1%"), "p@002d@0024x/t@0020@%@0023p@00231@0025");
    }
}
