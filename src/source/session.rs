//! The session variables that our statements rely on. A server's configuration gives every session other defaults;
//! what can change or stop our statements is set here, and what cannot stays as it is. A test walks all variables of
//! both servers and gives the reason for each (`tests/integration/session.rs`).

/// Which of the two servers, where they differ.
#[derive(Clone, Copy)]
pub(super) enum Flavour {
    MySql,
    MariaDb,
}

/// One variable, and the value that every session of ours has.
pub(super) struct Variable {
    pub name: &'static str,
    /// As SQL.
    value: &'static str,
    /// As the server shows it; None where that is not always the same, or where an error tells that it was not set.
    pub shown: Option<&'static str>,
}

const fn exactly(name: &'static str, value: &'static str, shown: &'static str) -> Variable {
    Variable { name, value, shown: Some(shown) }
}

const fn roughly(name: &'static str, value: &'static str) -> Variable {
    Variable { name, value, shown: None }
}

const GREATEST_NUMBER: &str = "18446744073709551615";

/// On both servers.
const COMMON: [Variable; 15] = [
    exactly("autocommit", "1", "1"),
    // Else the server converts what it sends, and an answer does not tell the character sets of its columns (`column_types.rs`).
    exactly("character_set_results", "NULL", ""),
    exactly("sql_select_limit", GREATEST_NUMBER, GREATEST_NUMBER),
    exactly("sql_mode", "''", ""),
    // A join that a limit on its rows forbids ends with the error 1104.
    exactly("max_join_size", GREATEST_NUMBER, GREATEST_NUMBER),
    exactly("sql_big_selects", "1", "1"),
    // A COMMIT must neither begin the next transaction nor end the session.
    exactly("completion_type", "'NO_CHAIN'", "NO_CHAIN"),
    // `IS NULL` would find the row that was inserted last.
    exactly("sql_auto_is_null", "0", "0"),
    // The server would hold each page in memory before it sends the first row.
    exactly("sql_buffer_result", "0", "0"),
    // Rows are sorted by so many bytes of a value, and pages rely on their order.
    exactly("max_sort_length", "1024", "1024"),
    roughly("sort_buffer_size", "CAST(GREATEST(@@SESSION.sort_buffer_size, 262144) AS UNSIGNED)"),
    roughly("optimizer_switch", "'default'"),
    roughly("lock_wait_timeout", "10"),
    // A page takes as long as its reader takes for its rows, and a connection waits while others are read.
    roughly("net_write_timeout", "CAST(GREATEST(@@SESSION.net_write_timeout, 600) AS UNSIGNED)"),
    roughly("wait_timeout", "CAST(GREATEST(@@SESSION.wait_timeout, 28800) AS UNSIGNED)"),
];

const MYSQL: [Variable; 5] = [
    roughly("max_execution_time", "0"),
    // Else the number of rows is that of up to a day ago.
    exactly("information_schema_stats_expiry", "0", "0"),
    // A list of ids that does not fit makes the server read the whole index.
    exactly("range_optimizer_max_mem_size", "8388608", "8388608"),
    // A second engine has the rows of some time ago.
    exactly("use_secondary_engine", "'OFF'", "OFF"),
    // Else a primary key that the server has made itself is not in the catalogue.
    exactly("show_gipk_in_create_table_and_information_schema", "1", "1"),
];

const MARIADB: [Variable; 10] = [
    roughly("max_statement_time", "0"),
    // Else a long `IN (…)` becomes a join with a temporary table, which is read in another order.
    exactly("in_predicate_conversion_threshold", "0", "0"),
    exactly("optimizer_max_sel_arg_weight", "32000", "32000"),
    exactly("optimizer_max_sel_args", "16000", "16000"),
    // A table with system versioning would show its past.
    exactly("system_versioning_asof", "DEFAULT", "DEFAULT"),
    exactly("old_mode", "''", ""),
    // While a table is locked, the cache answers with what was there before.
    exactly("query_cache_type", "0", "OFF"),
    exactly("tmp_disk_table_size", GREATEST_NUMBER, GREATEST_NUMBER),
    exactly("max_session_mem_used", "9223372036854775807", "9223372036854775807"),
    // A node that a Galera cluster has lost would answer with what it had then.
    exactly("wsrep_dirty_reads", "0", "0"),
];

/// What `SET NAMES` and `SET TRANSACTION` set.
const BY_NAME: [Variable; 2] =
    [exactly("character_set_client", "", "utf8mb4"), exactly("character_set_connection", "", "utf8mb4")];

pub(super) const NAMES: &str = "SET NAMES utf8mb4";
pub(super) const TRANSACTION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY";

impl Flavour {
    /// What is to be set. A server that does not know a variable, because it is older or built without it, does
    /// without.
    pub(super) fn variables(self) -> Vec<&'static Variable> {
        let own: &[Variable] = match self {
            Self::MySql => &MYSQL,
            Self::MariaDb => &MARIADB,
        };
        COMMON.iter().chain(own).collect()
    }

    /// What the statements before have set.
    pub(super) fn set_by_name(self) -> Vec<&'static Variable> {
        const LEVEL: &str = "READ-COMMITTED";
        const MYSQL: [Variable; 2] =
            [exactly("transaction_isolation", "", LEVEL), exactly("transaction_read_only", "", "1")];
        const MARIADB: [Variable; 2] = [exactly("tx_isolation", "", LEVEL), exactly("tx_read_only", "", "1")];
        let own: &[Variable] = match self {
            Self::MySql => &MYSQL,
            Self::MariaDb => &MARIADB,
        };
        BY_NAME.iter().chain(own).collect()
    }
}

pub(super) fn assignment(variables: &[&Variable]) -> String {
    let each: Vec<String> =
        variables.iter().map(|variable| format!("{} = {}", variable.name, variable.value)).collect();
    format!("SET SESSION {}", each.join(", "))
}

pub(super) fn question(variables: &[&Variable]) -> String {
    let each: Vec<String> = variables.iter().map(|variable| format!("@@SESSION.{}", variable.name)).collect();
    format!("SELECT {}", each.join(", "))
}
