//! Keeps the house as it was drawn: reads the sources as text and checks who imports whom, which
//! package is named where, and how files are called. It runs nothing of the program.
//!
//! The checks are functions from a path and a text to findings, so that the tests at the end can show
//! that each of them is able to fail.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

/// The modules in reading order; each may import from its own group and from the groups before it.
const ORDER: [&[&str]; 10] = [
    VOCABULARY,
    &["fs"],
    &["source"],
    &["tree"],
    &["lock"],
    &["state"],
    &["export"],
    &["cli", "config"],
    &["report"],
    &["commands"],
];
const VOCABULARY: &[&str] = &["lang", "invoice", "window", "run", "event", "effort", "refusal", "panics"];

/// The packages that may be named in one place only.
const PACKAGES: [(&str, &[&str]); 4] = [
    ("mysql", &["src/source/mysql.rs", "src/source/connect.rs"]),
    ("rusqlite", &["src/state/", "src/source/sqlite.rs"]),
    ("walkdir", &["src/tree/walk.rs"]),
    ("indicatif", &["src/report/"]),
];
const PRINTER: &str = "src/report/";
/// No module of the program: Cargo runs it before it builds one, and reads what it prints.
const BUILD_SCRIPT: &str = "src/build.rs";

const LONGEST_FILE: usize = 600;
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];

#[test]
fn the_sources_keep_to_the_house_rules() {
    let mut files = 0;
    let mut found = Vec::new();
    for entry in WalkDir::new(root().join("src")).sort_by_file_name() {
        let entry = entry.unwrap();
        let path = entry.path().strip_prefix(root()).unwrap().to_str().unwrap();
        if path.ends_with(".rs") && path != BUILD_SCRIPT {
            found.extend(findings(path, &fs::read_to_string(entry.path()).unwrap()));
            files += 1;
        }
    }
    assert!(files > 5, "only {files} sources were found");
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn schema_files_are_numbered_without_gaps_and_migrations_are_versioned() {
    let mut found = misnumbered(&names_in("state-schema"));
    found.extend(unversioned(&names_in("migrations")));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The names in a folder of the repository; none where it does not exist.
fn names_in(folder: &str) -> BTreeSet<String> {
    let entries = fs::read_dir(root().join(folder)).into_iter().flatten();
    let names = entries.map(|entry| entry.expect("a readable folder").file_name());
    names.map(|name| name.to_string_lossy().into_owned()).collect()
}

/// Everything that one source does against the rules, as `file:line: what; why`.
fn findings(path: &str, text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let paths = named_paths(&tokens);
    let mut found = form(path, text, &tokens);
    found.extend(imports(path, &paths));
    found.extend(packages(path, &paths));
    found.extend(printing(path, &tokens, &paths));
    // A group of names out of one module is one finding.
    found.dedup();
    found
}

fn form(path: &str, text: &str, tokens: &[Token<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: does not begin with `//!`; every file says first what it owns"));
    }
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        found.push(format!("{path}:{lines}: has {lines} lines; a file of more than {LONGEST_FILE} holds two subjects"));
    }
    for pair in tokens.windows(2) {
        if pair[0].text == "mod" && EMPTY_NAMES.contains(&pair[1].text) {
            let (line, name) = (pair[1].line, pair[1].text);
            found.push(format!("{path}:{line}: a module called {name}; name it after its subject"));
        }
    }
    found
}

fn imports(path: &str, paths: &[Named<'_>]) -> Vec<String> {
    let Some(own) = module_of(path) else {
        return Vec::new();
    };
    let Some(place) = place_of(own) else {
        return vec![format!("{path}:1: the module {own} has no place in the order; give it one in ORDER")];
    };
    let in_root = [format!("src/{own}.rs"), format!("src/{own}/mod.rs")].iter().any(|file| file == path);
    let mut found = Vec::new();
    for named in paths {
        let line = named.line;
        let module = match named.segments[..] {
            ["super", "super", ..] => {
                found
                    .push(format!("{path}:{line}: climbs by `super::super`; say `crate::`, so that it can be checked"));
                continue;
            }
            ["crate", module, ..] => module,
            ["super", module, ..] if in_root => module,
            _ => continue,
        };
        let Some(theirs) = place_of(module) else {
            continue;
        };
        if own == "report" && module != own && !VOCABULARY.contains(&module) {
            found.push(format!("{path}:{line}: report imports {module}; it sees the vocabulary only: {VOCABULARY:?}"));
        } else if theirs > place {
            let order = ORDER.map(|group| group.join(", ")).join(" < ");
            found.push(format!("{path}:{line}: {own} imports {module}; imports go one way only: {order}"));
        }
    }
    found
}

/// The top-level module of a source; none for `lib.rs` and `main.rs`, which see everything.
fn module_of(path: &str) -> Option<&str> {
    let below = path.strip_prefix("src/")?;
    let module = below.split_once('/').map_or_else(|| below.trim_end_matches(".rs"), |(folder, _)| folder);
    (!matches!(below, "lib.rs" | "main.rs")).then_some(module)
}

fn place_of(module: &str) -> Option<usize> {
    ORDER.iter().position(|group| group.contains(&module))
}

fn packages(path: &str, paths: &[Named<'_>]) -> Vec<String> {
    let mut found = Vec::new();
    let elsewhere = |homes: &[&str]| !homes.iter().any(|home| path.starts_with(home));
    for (package, homes) in PACKAGES.into_iter().filter(|(_, homes)| elsewhere(homes)) {
        let names_it =
            |named: &&Named<'_>| named.segments[0] == package && (named.imported || named.segments.len() > 1);
        for named in paths.iter().filter(names_it) {
            let (line, homes) = (named.line, homes.join(" and "));
            found.push(format!(
                "{path}:{line}: names the package {package}; only {homes} may, the rest sees our own types \
                 (a module of ours is `self::{package}`)"
            ));
        }
    }
    found
}

fn printing(path: &str, tokens: &[Token<'_>], paths: &[Named<'_>]) -> Vec<String> {
    if path.starts_with(PRINTER) {
        return Vec::new();
    }
    let macros = tokens.windows(2).filter(|pair| {
        matches!(pair[0].text, "print" | "println" | "eprint" | "eprintln" | "dbg") && pair[1].text == "!"
    });
    let streams = paths.iter().filter(|named| {
        let is_stream = |name: &str| matches!(name, "stdout" | "stderr" | "Stdout" | "Stderr");
        named.segments.windows(2).any(|pair| pair[0] == "io" && is_stream(pair[1]))
    });
    let macros = macros.map(|pair| (pair[0].line, format!("{}!", pair[0].text)));
    let streams = streams.map(|named| (named.line, named.segments.join("::")));
    let say =
        |(line, what)| format!("{path}:{line}: uses {what}; only {PRINTER} prints, the rest returns values or events");
    macros.chain(streams).map(say).collect()
}

/// `0001_words.sql`, `0002_words.sql` and so on.
fn misnumbered(names: &BTreeSet<String>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, number) in names.iter().zip(1..) {
        if !name.starts_with(&format!("{number:04}_")) || !is_words(&name[5..]) {
            found.push(format!(
                "state-schema/{name}:1: is not {number:04}_words.sql; steps are applied in order, none may be missing"
            ));
        }
    }
    found
}

/// `V2025112801__words.sql`, each version once.
fn unversioned(names: &BTreeSet<String>) -> Vec<String> {
    let mut versions = BTreeSet::new();
    let mut found = Vec::new();
    for name in names {
        let parts = name.strip_prefix('V').and_then(|rest| rest.split_once("__"));
        let version = parts.filter(|(_, words)| is_words(words)).map(|(version, _)| version);
        let version = version.filter(|version| !version.is_empty() && version.bytes().all(|b| b.is_ascii_digit()));
        if !version.is_some_and(|version| versions.insert(version)) {
            found.push(format!(
                "migrations/{name}:1: is not V<version>__words.sql with a version of its own; Flyway passes it over"
            ));
        }
    }
    found
}

fn is_words(name: &str) -> bool {
    let words = name.strip_suffix(".sql").unwrap_or_default();
    !words.is_empty() && words.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'))
}

/// A word, `::`, or any other single character of the code; comments and literals are left out.
struct Token<'a> {
    line: usize,
    text: &'a str,
}

impl Token<'_> {
    fn is_word(&self) -> bool {
        self.text.starts_with(is_word_letter)
    }
}

fn is_word_letter(letter: char) -> bool {
    letter == '_' || letter.is_alphanumeric()
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut found = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(letter) = rest.chars().next() {
        let unread = comment(rest).or_else(|| literal(rest));
        let word = rest.find(|letter| !is_word_letter(letter)).unwrap_or(rest.len());
        let length = match unread {
            Some(length) => length,
            None if word > 0 => word,
            None if rest.starts_with("::") => 2,
            None => letter.len_utf8(),
        };
        let (token, after) = rest.split_at(length);
        if unread.is_none() && !letter.is_whitespace() {
            found.push(Token { line, text: token });
        }
        line += token.matches('\n').count();
        rest = after;
    }
    found
}

/// The length of the comment that the text starts with. What follows an inner comment's end is taken
/// for code: too strict rather than blind.
fn comment(text: &str) -> Option<usize> {
    let line = text.starts_with("//").then(|| text.find('\n').unwrap_or(text.len()));
    line.or_else(|| text.strip_prefix("/*").map(|body| body.find("*/").map_or(text.len(), |at| at + 4)))
}

/// The length of the string or character that the text starts with; a lifetime is neither.
fn literal(text: &str) -> Option<usize> {
    let raw = ["r", "br", "cr"].iter().find_map(|prefix| text.strip_prefix(prefix));
    if let Some(body) = raw {
        let hashes = body.len() - body.trim_start_matches('#').len();
        if body[hashes..].starts_with('"') {
            let start = text.len() - body.len() + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return Some(text[start..].find(&close).map_or(text.len(), |at| start + at + close.len()));
        }
    }
    let body = text.strip_prefix(['b', 'c']).unwrap_or(text);
    let quote = body.chars().next().filter(|letter| matches!(letter, '"' | '\''))?;
    if quote == '\'' && !body[1..].starts_with('\\') && body.chars().nth(2) != Some('\'') {
        return None;
    }
    let mut letters = body.char_indices().skip(1);
    while let Some((at, letter)) = letters.next() {
        if letter == '\\' {
            letters.next();
        } else if letter == quote {
            return Some(text.len() - body.len() + at + 1);
        }
    }
    Some(text.len())
}

/// A path as the code names it, `use a::{b, c::d}` taken apart into `a::b` and `a::c::d`.
struct Named<'a> {
    line: usize,
    segments: Vec<&'a str>,
    /// Directly behind `use` or `extern crate`, where a single word is a package too.
    imported: bool,
}

fn named_paths<'a>(tokens: &[Token<'a>]) -> Vec<Named<'a>> {
    let mut found = Vec::new();
    let mut at = 0;
    while at < tokens.len() {
        let imported = at > 0 && matches!(tokens[at - 1].text, "use" | "crate");
        at = if tokens[at].is_word() { take_path(tokens, at, &[], imported, &mut found) } else { at + 1 };
    }
    found
}

/// Takes the path that starts at a word, with its group; returns where the code goes on.
fn take_path<'a>(
    tokens: &[Token<'a>],
    start: usize,
    prefix: &[&'a str],
    imported: bool,
    found: &mut Vec<Named<'a>>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let mut segments = prefix.to_vec();
    let mut at = start;
    loop {
        segments.push(text(at));
        at += 1;
        if text(at) != "::" || !tokens.get(at + 1).is_some_and(Token::is_word) {
            break;
        }
        at += 1;
    }
    found.push(Named { line: tokens[start].line, segments: segments.clone(), imported });
    if text(at) != "::" || text(at + 1) != "{" {
        return at;
    }
    at += 2;
    while !matches!(text(at), "}" | "") {
        at = if tokens[at].is_word() { take_path(tokens, at, &segments, imported, found) } else { at + 1 };
    }
    at + 1
}

mod the_checks_can_fail {
    use super::*;

    fn of(path: &str, code: &str) -> Vec<String> {
        findings(path, &format!("//! Owns something.\n{code}\n"))
    }

    #[test]
    fn clean_sources_have_no_findings() {
        for (path, code) in [
            ("src/tree/name.rs", "use crate::invoice::Tenant;\nuse crate::source::Source;\nuse std::io::Write;"),
            ("src/run.rs", "use crate::invoice::{SourceTime, Tenant};"),
            ("src/commands/run.rs", "use super::open;\nuse crate::{export::pipeline, report::Report, config::Config};"),
            ("src/main.rs", "use invoice_export::commands;\nmod tests { use crate::commands; }"),
            ("src/tree/x.rs", "// use crate::export;\n/* crate::export::x\n mysql::y */ /*/ println!() */"),
            ("src/tree/x.rs", "const A: &str = \"mysql://host // crate::export\"; const B: &str = r#\"\"mysql::x\"#;"),
            (
                "src/tree/x.rs",
                "fn f<'a>(q: char) -> &'a str { match q { '\"' => b\"\", '\\'' => \"println!\", _ => c\"\" } }",
            ),
            ("src/source/mod.rs", "pub mod mysql;\nfn f() { self::mysql::open(); crate::source::mysql::open(); }"),
            ("src/source/mysql.rs", "use mysql::prelude::*;\nuse mysql as driver;"),
            ("src/state/ledger.rs", "use rusqlite::Connection;"),
            (
                "src/report/lines.rs",
                "use crate::{event::Event, run::Counts};\nfn f() { println!(); std::io::stdout(); }",
            ),
            ("src/lock.rs", "fn f(c: &mut Command, mysql: u8) { c.stdout(Stdio::null()); let x = mysql; }"),
        ] {
            assert_eq!(of(path, code), [""; 0], "{code}");
        }
    }

    #[test]
    fn each_breach_is_found_where_it_is() {
        for (path, code, finding) in [
            ("src/tree/x.rs", "\nuse crate::export::plan;", "src/tree/x.rs:3: tree imports export; "),
            ("src/tree/x.rs", "use crate::{invoice::Tenant, state};", "src/tree/x.rs:2: tree imports state; "),
            (
                "src/tree/x.rs",
                "use crate::{\n    run::RunId,\n    lock::{Lock, ExportLock},\n};",
                "src/tree/x.rs:4: tree imports lock; ",
            ),
            ("src/tree/x.rs", "fn f() -> Vec<crate::cli::Args> {}", "src/tree/x.rs:2: tree imports cli; "),
            ("src/tree/x.rs", "pub use crate\n    ::config::*;", "src/tree/x.rs:2: tree imports config; "),
            ("src/tree/x.rs", "const A: &str = \"a\n\\\"b\"; fn f() { crate::lock::g() }", ":3: tree imports lock; "),
            ("src/tree/mod.rs", "use super::export;", "src/tree/mod.rs:2: tree imports export; "),
            ("src/tree/x.rs", "use super::super::export;", "src/tree/x.rs:2: climbs by `super::super`; "),
            ("src/invoice.rs", "use crate::source::Source;", "src/invoice.rs:2: invoice imports source; "),
            ("src/export/plan.rs", "use crate::report::Report;", "src/export/plan.rs:2: export imports report; "),
            ("src/config.rs", "use crate::commands::run;", "src/config.rs:2: config imports commands; "),
            ("src/report/x.rs", "use crate::state::State;", "src/report/x.rs:2: report imports state; "),
            ("src/report/x.rs", "use crate::config::Config;", "src/report/x.rs:2: report imports config; "),
            ("src/extra.rs", "", "src/extra.rs:1: the module extra has no place in the order; "),
            ("src/export/x.rs", "use mysql::Conn;", "src/export/x.rs:2: names the package mysql; "),
            ("src/source/mod.rs", "use mysql;", "src/source/mod.rs:2: names the package mysql; "),
            ("src/source/mod.rs", "extern crate mysql;", "src/source/mod.rs:2: names the package mysql; "),
            ("src/main.rs", "fn f(e: ::mysql::Error) {}", "src/main.rs:2: names the package mysql; "),
            ("src/source/mysql.rs", "use rusqlite::params;", "src/source/mysql.rs:2: names the package rusqlite; "),
            ("src/tree/mark.rs", "walkdir::WalkDir::new(p);", "src/tree/mark.rs:2: names the package walkdir; "),
            ("src/export/x.rs", "use indicatif::{ProgressBar};", "src/export/x.rs:2: names the package indicatif; "),
            ("src/lock.rs", "fn f() { println!(\"\") }", "src/lock.rs:2: uses println!; "),
            ("src/main.rs", "fn f() { eprintln!(\"\") }", "src/main.rs:2: uses eprintln!; "),
            ("src/lock.rs", "use std::io::{self, stderr};", "src/lock.rs:2: uses std::io::stderr; "),
            ("src/lock.rs", "fn f() { io::stdout().lock(); }", "src/lock.rs:2: uses io::stdout; "),
            ("src/tree/mod.rs", "pub mod utils;", "src/tree/mod.rs:2: a module called utils; "),
            ("src/lib.rs", "mod common { }", "src/lib.rs:2: a module called common; "),
        ] {
            let found = of(path, code);
            assert_eq!(found.len(), 1, "{code}: {found:?}");
            assert!(found[0].contains(finding), "{code}: {found:?}");
        }
    }

    #[test]
    fn a_source_without_a_header_and_one_without_an_end_are_found() {
        assert_eq!(findings("src/lock.rs", "use std::fs;\n//! Late.").len(), 1);
        assert_eq!(findings("src/lock.rs", "").len(), 1);
        let lines = |count: usize| format!("//! Owns much.\n{}", "\n".repeat(count - 1));
        assert_eq!(findings("src/lock.rs", &lines(LONGEST_FILE)), [""; 0]);
        assert_eq!(findings("src/lock.rs", &lines(LONGEST_FILE + 1)).len(), 1);
    }

    #[test]
    fn gaps_and_strange_names_among_the_sql_files_are_found() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<BTreeSet<_>>();
        assert_eq!(misnumbered(&names(&["0001_first.sql", "0002_runs_and_marks.sql"])), [""; 0]);
        assert_eq!(misnumbered(&names(&["0001_first.sql", "0003_third.sql"])).len(), 1);
        assert_eq!(misnumbered(&names(&["0001_a.sql", "0001_b.sql"])).len(), 1);
        assert_eq!(misnumbered(&names(&["0002_first.sql"])).len(), 1);
        for name in ["0001.sql", "0001_.sql", "0001_a.txt", "0001-a.sql", "1_a.sql", "README", "0001_票.sql"] {
            assert_eq!(misnumbered(&names(&[name])).len(), 1, "{name}");
        }
        assert_eq!(unversioned(&names(&["V2025112801__add_incremental_export_index.sql", "V2__b.sql"])), [""; 0]);
        assert_eq!(unversioned(&names(&["V1__a.sql", "V1__b.sql"])).len(), 1);
        for name in ["V1_a.sql", "1__a.sql", "V__a.sql", "V1__.sql", "V1__a.txt", "Vx__a.sql", "v1__a.sql"] {
            assert_eq!(unversioned(&names(&[name])).len(), 1, "{name}");
        }
    }
}
