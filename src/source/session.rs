//! Owns the session variables on which the statements rely. A server's configuration may give sessions other defaults.
//! Variables that can change or stop a statement are set here. `tests/integration/session.rs` gives the reason for each
//! variable of both servers.

/// The two servers, where they differ.
#[derive(Clone, Copy)]
pub(super) enum Flavour {
    MySql,
    MariaDb,
}

/// A variable and its value in every session of the exporter.
pub(super) struct Variable {
    pub name: &'static str,
    /// As SQL.
    value: &'static str,
    /// The value as the server shows it. None if the server may show another one, or if an error tells that the
    /// variable was not set.
    pub shown: Option<&'static str>,
}

/// A variable that is read back.
const fn exactly(name: &'static str, value: &'static str, shown: &'static str) -> Variable {
    Variable { name, value, shown: Some(shown) }
}

/// A variable that is not read back.
const fn roughly(name: &'static str, value: &'static str) -> Variable {
    Variable { name, value, shown: None }
}

const GREATEST_NUMBER: &str = "18446744073709551615";

/// The variables of both servers.
const COMMON: [Variable; 15] = [
    exactly("autocommit", "1", "1"),
    // Else the server converts its answers, which then hide the character sets of their columns (`column_types.rs`).
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
    // The server waits while a page is processed, and a connection is idle while others are read.
    roughly("net_write_timeout", "CAST(GREATEST(@@SESSION.net_write_timeout, 600) AS UNSIGNED)"),
    roughly("wait_timeout", "CAST(GREATEST(@@SESSION.wait_timeout, 28800) AS UNSIGNED)"),
];

const MYSQL: [Variable; 5] = [
    roughly("max_execution_time", "0"),
    // Else the number of rows may be a day old.
    exactly("information_schema_stats_expiry", "0", "0"),
    // A list of ids that does not fit makes the server read the whole index.
    exactly("range_optimizer_max_mem_size", "8388608", "8388608"),
    // A secondary engine lags behind.
    exactly("use_secondary_engine", "'OFF'", "OFF"),
    // Else the catalogue hides a primary key that the server has generated.
    exactly("show_gipk_in_create_table_and_information_schema", "1", "1"),
];

const MARIADB: [Variable; 10] = [
    roughly("max_statement_time", "0"),
    // Else a long `IN (…)` becomes a join with a temporary table, and rows come in another order.
    exactly("in_predicate_conversion_threshold", "0", "0"),
    exactly("optimizer_max_sel_arg_weight", "32000", "32000"),
    exactly("optimizer_max_sel_args", "16000", "16000"),
    // A table with system versioning would show its past.
    exactly("system_versioning_asof", "DEFAULT", "DEFAULT"),
    exactly("old_mode", "''", ""),
    // While a table is locked, the cache answers with its earlier rows.
    exactly("query_cache_type", "0", "OFF"),
    exactly("tmp_disk_table_size", GREATEST_NUMBER, GREATEST_NUMBER),
    exactly("max_session_mem_used", "9223372036854775807", "9223372036854775807"),
    // A node that left its Galera cluster would answer with old rows.
    exactly("wsrep_dirty_reads", "0", "0"),
];

/// The variables that `SET NAMES` sets.
const BY_NAME: [Variable; 2] =
    [exactly("character_set_client", "", "utf8mb4"), exactly("character_set_connection", "", "utf8mb4")];

pub(super) const NAMES: &str = "SET NAMES utf8mb4";
pub(super) const TRANSACTION: &str = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY";

impl Flavour {
    /// The variables to be set. A server that is older than one, or was built without it, does without.
    pub(super) fn variables(self) -> Vec<&'static Variable> {
        let own: &[Variable] = match self {
            Self::MySql => &MYSQL,
            Self::MariaDb => &MARIADB,
        };
        COMMON.iter().chain(own).collect()
    }

    /// The variables that `SET NAMES` and `SET TRANSACTION` set.
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

/// The statement that sets these variables.
pub(super) fn assignment(variables: &[&Variable]) -> String {
    let each: Vec<String> =
        variables.iter().map(|variable| format!("{} = {}", variable.name, variable.value)).collect();
    format!("SET SESSION {}", each.join(", "))
}

/// The statement that reads these variables.
pub(super) fn question(variables: &[&Variable]) -> String {
    let each: Vec<String> = variables.iter().map(|variable| format!("@@SESSION.{}", variable.name)).collect();
    format!("SELECT {}", each.join(", "))
}
