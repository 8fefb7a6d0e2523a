//! What a server's configuration gives every session, and what a session of ours makes of it.

use std::collections::BTreeSet;

use mysql::Conn;
use mysql::prelude::Queryable;

use crate::support::server::{Flavor, Server};
use crate::support::{Database, Exporter, Row, Table, on_every_flavor};

fn database(table: &Table) -> &Database {
    match table {
        Table::Server(database) => database,
        Table::Embedded(_) => unreachable!("it lies on a server"),
    }
}

fn execute(conn: &mut Conn, sql: &str) {
    conn.query_drop(sql).unwrap_or_else(|error| panic!("{error} in: {sql}"));
}

/// What every server may have been given.
const HOSTILE: [&str; 16] = [
    "sql_select_limit = 1",
    "max_join_size = 1",
    "completion_type = 'RELEASE'",
    "sql_auto_is_null = 1",
    "sql_buffer_result = 1",
    "max_sort_length = 8",
    "sort_buffer_size = 32768",
    "wait_timeout = 1",
    "lock_wait_timeout = 1",
    "net_write_timeout = 1",
    "autocommit = 0",
    "sql_mode = 'ANSI_QUOTES,NO_BACKSLASH_ESCAPES,PAD_CHAR_TO_FULL_LENGTH,PIPES_AS_CONCAT'",
    "optimizer_switch = 'index_condition_pushdown=off,mrr=on,mrr_cost_based=off'",
    "character_set_client = gbk",
    "character_set_connection = gbk",
    "character_set_results = gbk",
];

const HOSTILE_MYSQL: [&str; 6] = [
    "max_execution_time = 1",
    "range_optimizer_max_mem_size = 1",
    "show_gipk_in_create_table_and_information_schema = 0",
    "optimizer_switch = 'hypergraph_optimizer=on'",
    "transaction_isolation = 'READ-UNCOMMITTED'",
    "transaction_read_only = 1",
];

const HOSTILE_MARIADB: [&str; 12] = [
    "max_statement_time = 0.001",
    "in_predicate_conversion_threshold = 2",
    "optimizer_max_sel_arg_weight = 1",
    "optimizer_max_sel_args = 1",
    "system_versioning_asof = '2020-01-01 00:00:00'",
    "old_mode = 'IGNORE_INDEX_ONLY_FOR_JOIN,ZERO_DATE_TIME_CAST'",
    "query_cache_type = 1",
    "tmp_disk_table_size = 1024",
    "max_session_mem_used = 65536",
    "wsrep_dirty_reads = 1",
    "tx_isolation = 'READ-UNCOMMITTED'",
    "tx_read_only = 1",
];

fn hostile(flavor: Flavor) -> Vec<&'static str> {
    let own: &[&str] = match flavor {
        Flavor::MySql => &HOSTILE_MYSQL,
        Flavor::MariaDb => &HOSTILE_MARIADB,
    };
    HOSTILE.iter().chain(own).copied().collect()
}

/// A full and an incremental run, between which rows change, on a server that gives every session this.
fn assert_exported(own: &Server, flavor: Flavor, given: &[&str]) {
    let table = Table::on(own);
    // What is given is for later sessions.
    let mut conn = database(&table).connect();
    if flavor == Flavor::MariaDb {
        execute(&mut conn, "ALTER TABLE t_invoice ADD SYSTEM VERSIONING");
    }
    for id in 1..=40 {
        let number = format!("INV{id}");
        table.insert(&Row {
            id,
            number: &number,
            time: "2025-11-28 15:00:00",
            document: "{\"text\": \"发票\"}",
            ..Row::default()
        });
    }
    for setting in given {
        let name = setting.split(' ').next().expect("a name");
        execute(&mut conn, &format!("SET @before_{name} = @@GLOBAL.{name}"));
        execute(&mut conn, &format!("SET GLOBAL {setting}"));
    }
    let exporter = Exporter::new(&table);
    let full = exporter.run(["run", "--mode", "full"]);
    let update = "UPDATE t_invoice SET fext_field = '[2]', fupdate_time = NOW() - INTERVAL 6 MINUTE WHERE fid <= 20";
    execute(&mut conn, update);
    let incremental = exporter.run(["run", "--mode", "incremental"]);
    for setting in given.iter().rev() {
        let name = setting.split(' ').next().expect("a name");
        // It does not take the value that it shows.
        let before = if name == "system_versioning_asof" { "DEFAULT".into() } else { format!("@before_{name}") };
        execute(&mut conn, &format!("SET GLOBAL {name} = {before}"));
    }
    full.expect(0);
    let incremental = incremental.expect(0);
    assert!(!incremental.stderr.contains("trying again"), "{given:?}: {incremental}");
    exporter.assert_agrees();
    exporter.assert_state_is_sound();
}

#[test]
fn a_server_that_gives_its_sessions_odd_settings_is_exported_like_any_other() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        assert_exported(&own, flavor, &hostile(flavor));
        assert_exported(&own, flavor, &["max_join_size = 1"]);
        if flavor == Flavor::MariaDb {
            assert_exported(&own, flavor, &["system_versioning_asof = '2020-01-01 00:00:00'"]);
        }
    });
}

/// Variables that no session of ours sets, by the reason for which they cannot change or stop what it reads.
#[rustfmt::skip]
const HARMLESS: &[(&str, &str)] = &[
    ("it decides what is written, and a session of ours writes nothing",
     "alter_algorithm auto_increment_increment auto_increment_offset binlog_alter_two_phase binlog_annotate_row_events
      binlog_direct_non_transactional_updates binlog_format binlog_row_image binlog_row_value_options
      binlog_rows_query_log_events binlog_transaction_compression binlog_transaction_compression_level_zstd
      bulk_insert_buffer_size check_constraint_checks column_compression_threshold column_compression_zlib_level
      column_compression_zlib_strategy column_compression_zlib_wrap default_storage_engine default_table_encryption
      default_tmp_storage_engine enable_cascade_triggers enforce_storage_engine explicit_defaults_for_timestamp
      external_table_secondary_storage_engine external_table_storage_engine foreign_key_checks
      generated_random_password_length gtid_domain_id gtid_next gtid_owned gtid_seq_no identity innodb_ddl_buffer_size
      innodb_ddl_threads innodb_compression_default innodb_default_encryption_key_id innodb_strict_mode insert_id
      keep_files_on_create last_gtid last_insert_id low_priority_updates max_delayed_threads max_insert_delayed_threads
      old_alter_table old_passwords original_commit_timestamp original_server_version immediate_server_version
      print_identified_with_as_hex require_row_format restrict_fk_on_non_standard_key select_into_buffer_size
      select_into_disk_sync select_into_disk_sync_delay skip_parallel_replication skip_replication
      sql_generate_invisible_primary_key sql_if_exists sql_log_bin sql_require_primary_key sql_safe_updates
      sql_slave_skip_counter storage_engine system_versioning_alter_history system_versioning_insert_history
      transaction_allow_batching unique_checks updatable_views_with_limit wsrep_gtid_seq_no wsrep_on wsrep_osu_method
      wsrep_retry_autocommit wsrep_trx_fragment_size wsrep_trx_fragment_unit xa_detach_on_prepare rbr_exec_mode
      pseudo_replica_mode pseudo_slave_mode default_master_connection"),
    ("it concerns statements, functions or kinds of index that we do not use",
     "analyze_max_length analyze_sample_percentage block_encryption_mode character_set_database
      character_set_filesystem character_set_server collation_database collation_server cte_max_recursion_depth
      default_collation_for_utf8mb4 default_regex_flags default_week_format div_precision_increment end_markers_in_json
      explain_format explain_json_format_version group_concat_max_len histogram_generation_max_mem_size histogram_size
      histogram_type innodb_ft_enable_stopword innodb_ft_user_stopword_table innodb_parallel_read_threads
      innodb_table_locks innodb_tmpdir max_points_in_geometry max_recursive_iterations max_sp_recursion_depth
      max_tmp_tables myisam_repair_threads myisam_sort_buffer_size myisam_stats_method aria_repair_threads
      aria_sort_buffer_size aria_stats_method preload_buffer_size rand_seed1 rand_seed2 set_operations_buffer_size
      show_create_table_skip_secondary_engine show_create_table_verbosity sql_quote_show_create standard_compliant_cte
      windowing_use_high_precision"),
    ("consistent reads take no row locks, and READ COMMITTED has a snapshot for each statement",
     "innodb_lock_wait_timeout innodb_snapshot_isolation deadlock_search_depth_long deadlock_search_depth_short
      deadlock_timeout_long deadlock_timeout_short"),
    ("the index to read is named in each statement, and there is no join to plan",
     "eq_range_index_dive_limit enable_secondary_engine_statistics secondary_engine_cost_threshold
      expensive_subquery_limit join_buffer_size join_buffer_space_limit join_cache_level max_length_for_sort_data
      max_rowid_filter_size max_seeks_for_key mrr_buffer_size optimizer_adjust_secondary_key_costs
      optimizer_extra_pruning_depth optimizer_join_limit_pref_ratio optimizer_max_subgraph_pairs optimizer_prune_level
      optimizer_search_depth optimizer_selectivity_sampling_limit optimizer_use_condition_selectivity
      rowid_merge_buff_size use_stat_tables"),
    ("it changes where memory comes from, not what is read",
     "big_tables connection_memory_chunk_size global_connection_memory_tracking internal_tmp_mem_storage_engine
      max_heap_table_size query_alloc_block_size query_prealloc_size range_alloc_block_size read_buffer_size
      read_rnd_buffer_size tmp_memory_table_size tmp_table_size transaction_alloc_block_size transaction_prealloc_size"),
    ("only an administrator may set it in a session; a statement that is too large for it fails and is reported",
     "connection_memory_limit parser_max_mem_size"),
    ("the server logs, traces, counts or words something",
     "error_count lc_messages lc_time_names log_disabled_statements log_queries_not_using_indexes
      log_slow_admin_statements log_slow_disabled_statements log_slow_filter log_slow_max_warnings
      log_slow_min_examined_row_limit log_slow_query log_slow_query_time log_slow_rate_limit log_slow_slave_statements
      log_slow_verbosity log_warnings long_query_time max_error_count min_examined_row_limit note_verbosity
      optimizer_trace optimizer_trace_features optimizer_trace_limit optimizer_trace_max_mem_size optimizer_trace_offset
      profiling profiling_history_size progress_report_time slow_query_log sql_log_off sql_notes sql_warnings
      statement_id terminology_use_previous thread_pool_priority warning_count"),
    ("it comes with the login, or only a session itself can set it, and no session of ours does",
     "external_user in_transaction proxy_user pseudo_thread_id resultset_metadata server_id timestamp"),
    ("what SET NAMES sets it to does not matter: columns bring their own collation, and the rest is compared as bytes",
     "collation_connection"),
    ("the driver asks for these only if it wants to know",
     "session_track_gtids session_track_schema session_track_state_change session_track_system_variables
      session_track_transaction_info"),
    ("a statement reaches the server in one piece; packets are as large as both sides take",
     "max_allowed_packet net_buffer_length net_read_timeout net_retry_count tcp_nodelay"),
    ("no transaction of ours idles for a second, and the session is not interactive",
     "idle_readonly_transaction_timeout idle_transaction_timeout idle_write_transaction_timeout interactive_timeout"),
    ("a session over the limit is refused at the login, which is tried again", "max_user_connections"),
    ("a read waits until the node has what others have committed, or is as old as on a replica",
     "group_replication_consistency wsrep_causal_reads wsrep_sync_wait"),
    ("it cannot be set while the server runs; the old way of an index hint reads the same rows", "old max_relay_log_size"),
    ("the server's own zone counts, or the one that is set for the column's type", "time_zone"),
    ("the cache is off", "query_cache_strip_comments query_cache_wlock_invalidate"),
];

fn session_variables(conn: &mut Conn, flavor: Flavor) -> BTreeSet<String> {
    let list = match flavor {
        Flavor::MySql => "performance_schema.variables_metadata",
        Flavor::MariaDb => "information_schema.SYSTEM_VARIABLES",
    };
    let sql = format!("SELECT LOWER(VARIABLE_NAME) FROM {list} WHERE VARIABLE_SCOPE LIKE 'SESSION%'");
    conn.query(sql).expect("the server lists its variables").into_iter().collect()
}

/// The names before `=` in what the server was told by sessions of ours, `SET NAMES` and `SET TRANSACTION` included.
fn set_by_us(conn: &mut Conn) -> BTreeSet<String> {
    let logged: Vec<Vec<u8>> = conn
        .query("SELECT argument FROM mysql.general_log WHERE command_type = 'Query' AND argument LIKE 'SET %'")
        .expect("the server keeps a log");
    let statements: Vec<String> =
        logged.into_iter().map(|text| String::from_utf8(text).expect("it is ASCII")).collect();
    assert!(statements.iter().any(|text| text == "SET NAMES utf8mb4"), "{statements:?}");
    let isolation = "SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED, READ ONLY";
    assert!(statements.iter().any(|text| text == isolation), "{statements:?}");
    let names = ["client", "connection", "results"].map(|name| format!("character_set_{name}"));
    let by_transaction = ["transaction_isolation", "transaction_read_only", "tx_isolation", "tx_read_only"];
    let assigned = statements
        .iter()
        .filter_map(|text| text.strip_prefix("SET SESSION "))
        .flat_map(|assignments| assignments.split(", "))
        .filter_map(|assignment| Some(assignment.split_once(" = ")?.0.to_owned()));
    assigned.chain(names).chain(by_transaction.map(str::to_owned)).collect()
}

#[test]
fn every_session_variable_is_set_or_harmless_for_a_reason() {
    on_every_flavor(|flavor| {
        let own = Server::fresh(flavor);
        let table = Table::on(&own);
        table.insert(&Row { time: "2025-11-28 15:00:00", ..Row::default() });
        let mut conn = database(&table).connect();
        execute(&mut conn, "SET GLOBAL log_output = 'TABLE'");
        execute(&mut conn, "SET GLOBAL general_log = 1");
        Exporter::new(&table).run(["run"]).expect(0);
        execute(&mut conn, "SET GLOBAL general_log = 0");
        let all = session_variables(&mut conn, flavor);
        let set = set_by_us(&mut conn);
        let harmless: Vec<&str> = HARMLESS.iter().flat_map(|(_, names)| names.split_whitespace()).collect();
        let unjudged: Vec<&String> =
            all.iter().filter(|name| !set.contains(*name) && !harmless.contains(&name.as_str())).collect();
        assert!(
            unjudged.is_empty(),
            "{flavor:?} has session variables that are not judged yet: {unjudged:?}. Set those that can change or stop \
             a statement of ours in src/source/session.rs, give the others a reason in HARMLESS"
        );
        let both: Vec<&&str> = harmless.iter().filter(|name| set.contains(**name)).collect();
        assert!(both.is_empty(), "{both:?} are set, so they need no reason");
        for given in hostile(flavor) {
            let name = given.split(' ').next().expect("a name");
            assert!(set.contains(name), "{name} is not set");
        }
    });
}
