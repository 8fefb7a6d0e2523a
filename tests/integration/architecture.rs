//! Keeps the house as it was drawn: reads the sources and checks which module imports which, which package
//! is named where, and how files and functions are called. It runs nothing of the program.
//!
//! The checks are functions from a path and a text to findings, so that the tests at the end can show
//! that each of them is able to fail.

mod needs;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use walkdir::WalkDir;

use needs::Program;
use reading::{Named, Reading, Role, reading};

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
const VOCABULARY: &[&str] = &["lang", "invoice", "window", "given_time", "run", "event", "effort", "refusal", "panics"];

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

/// Lines.
const LONGEST_FILE: usize = 600;
/// Characters; a longer name is a paragraph.
const LONGEST_NAME: usize = 79;
/// Pronouns of a dialect that a stranger cannot parse; at most one in two thousand words of comments.
const DIALECT: [&str; 8] = ["whoever", "whom", "nobody", "everybody", "somebody", "whose", "what lies", "is told"];
const WORDS_FOR_ONE: usize = 2_000;
/// Of a hundred functions.
const DOCUMENTED: usize = 60;
const EMPTY_NAMES: [&str; 6] = ["utils", "util", "helpers", "helper", "common", "misc"];

#[test]
fn the_sources_keep_to_the_house_rules() {
    let sources = texts_in("src");
    assert!(sources.len() > 5, "only {} sources were found", sources.len());
    let found: Vec<String> = sources.iter().flat_map(|(path, text)| findings(path, text)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn comments_speak_plainly_and_functions_have_docs() {
    let (mut words, mut odd) = (0, Vec::new());
    let (mut functions, mut documented) = (0, 0);
    with_the_program(|program, texts| {
        for (path, reading) in program.files() {
            let comments = comments(texts[path], reading);
            words += comments.iter().flat_map(|(_, text)| text.split_whitespace()).count();
            odd.extend(dialect(path, &comments));
            let counted = reading.functions.iter().filter(|function| !function.of_tests);
            functions += counted.clone().count();
            documented += counted.filter(|function| function.documented).count();
        }
    });
    let many = odd.len() * WORDS_FOR_ONE > words;
    assert!(!many, "{} words of the dialect among {words} of comments:\n{}\n", odd.len(), odd.join("\n"));
    assert!(documented * 100 >= functions * DOCUMENTED, "{documented} of {functions} functions have docs");
}

#[test]
fn no_two_files_need_each_other() {
    let circles = with_the_program(|program, _| program.circles());
    assert!(circles.is_empty(), "{} pairs need each other:\n{}\n", circles.len(), circles.join("\n"));
}

#[test]
fn files_and_names_are_short_also_in_the_tests() {
    let tests = texts_in("tests");
    assert!(tests.len() > 50, "only {} files of tests were found", tests.len());
    let found: Vec<String> = tests.iter().flat_map(|(path, text)| sizes(path, text, &read(path, text))).collect();
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

/// The Rust files below a folder, by their paths in the repository.
fn texts_in(folder: &str) -> Vec<(String, String)> {
    let entries = WalkDir::new(root().join(folder)).sort_by_file_name().into_iter().map(|entry| entry.unwrap());
    let path = |file: &Path| file.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
    let files = entries.map(|entry| (path(entry.path()), entry.into_path()));
    let sources = files.filter(|(path, _)| path.ends_with(".rs") && path != BUILD_SCRIPT);
    sources.map(|(path, file)| (path, fs::read_to_string(file).unwrap())).collect()
}

fn read(path: &str, text: &str) -> Reading {
    reading(text).unwrap_or_else(|error| panic!("{path}:{}: {error}", error.span().start().line))
}

/// The files of the program, taken apart.
fn with_the_program<T>(ask: impl FnOnce(&Program<'_>, &BTreeMap<&str, &str>) -> T) -> T {
    let sources = texts_in("src");
    let readings: Vec<Reading> = sources.iter().map(|(path, text)| read(path, text)).collect();
    let texts = sources.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let paths = sources.iter().map(|(path, _)| path.as_str());
    ask(&Program::new(paths.zip(&readings)), &texts)
}

/// The lines of a source that are comments, with their numbers, without those that only tests have.
fn comments<'a>(text: &'a str, reading: &Reading) -> Vec<(usize, &'a str)> {
    let of_tests = |line: &usize| reading.tests.iter().any(|(first, last)| (first..=last).contains(&line));
    let lines = (1..).zip(text.lines()).filter(|(line, _)| !of_tests(line));
    lines.filter_map(|(line, text)| Some((line, text.trim_start().strip_prefix("//")?))).collect()
}

/// Words that break a comment's line count as well, in the line that they begin in.
fn dialect(path: &str, comments: &[(usize, &str)]) -> Vec<String> {
    let is_letter = |letter: char| letter.is_alphanumeric() || letter == '\'';
    let words = comments.iter().flat_map(|(line, text)| {
        let words = text.split(move |letter| !is_letter(letter)).filter(|word| !word.is_empty());
        words.map(move |word| (*line, word.to_lowercase()))
    });
    let words: Vec<(usize, String)> = words.collect();
    let begins = |at: usize, phrase: &str| {
        let mut rest = words[at..].iter().map(|(_, word)| word.as_str());
        phrase.split(' ').all(|word| rest.next() == Some(word))
    };
    let found = (0..words.len())
        .flat_map(|at| DIALECT.into_iter().filter(move |phrase| begins(at, phrase)).map(move |phrase| (at, phrase)));
    found.map(|(at, phrase)| format!("{path}:{}: {phrase}", words[at].0)).collect()
}

/// Everything that one source does against the rules, as `file:line: what; why`.
fn findings(path: &str, text: &str) -> Vec<String> {
    let reading = read(path, text);
    let mut found = sizes(path, text, &reading);
    found.extend(form(path, text, &reading));
    found.extend(imports(path, &reading.names));
    found.extend(packages(path, &reading.names));
    found.extend(printing(path, &reading));
    // A group of names out of one module is one finding.
    found.dedup();
    found
}

fn sizes(path: &str, text: &str, reading: &Reading) -> Vec<String> {
    let mut found = Vec::new();
    let lines = text.lines().count();
    if lines > LONGEST_FILE {
        found.push(format!("{path}:{lines}: has {lines} lines; a file of more than {LONGEST_FILE} holds two subjects"));
    }
    for function in reading.functions.iter().filter(|function| function.name.chars().count() > LONGEST_NAME) {
        let (line, name) = (function.line, &function.name);
        found.push(format!("{path}:{line}: {name} has more than {LONGEST_NAME} characters; say the same in fewer"));
    }
    found
}

fn form(path: &str, text: &str, reading: &Reading) -> Vec<String> {
    let mut found = Vec::new();
    if !text.starts_with("//!") {
        found.push(format!("{path}:1: does not begin with `//!`; every file says first what it owns"));
    }
    for module in reading.modules.iter().filter(|module| EMPTY_NAMES.contains(&module.name.as_str())) {
        let (line, name) = (module.line, &module.name);
        found.push(format!("{path}:{line}: a module called {name}; name it after its subject"));
    }
    found
}

fn imports(path: &str, paths: &[Named]) -> Vec<String> {
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
        let segments: Vec<&str> = named.segments.iter().map(String::as_str).collect();
        let module = match segments[..] {
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

fn packages(path: &str, paths: &[Named]) -> Vec<String> {
    let mut found = Vec::new();
    let elsewhere = |homes: &[&str]| !homes.iter().any(|home| path.starts_with(home));
    for (package, homes) in PACKAGES.into_iter().filter(|(_, homes)| elsewhere(homes)) {
        let names_it =
            |named: &&Named| named.segments[0] == package && (named.role != Role::Path || named.segments.len() > 1);
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

fn printing(path: &str, reading: &Reading) -> Vec<String> {
    if path.starts_with(PRINTER) {
        return Vec::new();
    }
    let prints = |name: &str| matches!(name, "print" | "println" | "eprint" | "eprintln" | "dbg");
    let macros = reading.macros.iter().filter(|(_, name)| name.rsplit("::").next().is_some_and(prints));
    let is_stream = |name: &str| matches!(name, "stdout" | "stderr" | "Stdout" | "Stderr");
    let streams = reading
        .names
        .iter()
        .filter(|named| named.segments.windows(2).any(|pair| pair[0] == "io" && is_stream(&pair[1])));
    let macros = macros.map(|(line, name)| (*line, format!("{name}!")));
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
            (
                "src/tree/mark.rs",
                "fn f() { walkdir::WalkDir::new(p); }",
                "src/tree/mark.rs:2: names the package walkdir; ",
            ),
            ("src/export/x.rs", "use indicatif::{ProgressBar};", "src/export/x.rs:2: names the package indicatif; "),
            ("src/lock.rs", "fn f() { println!(\"\") }", "src/lock.rs:2: uses println!; "),
            ("src/main.rs", "fn f() { eprintln!(\"\") }", "src/main.rs:2: uses eprintln!; "),
            ("src/lock.rs", "use std::io::{self, stderr};", "src/lock.rs:2: uses std::io::stderr; "),
            ("src/lock.rs", "fn f() { io::stdout().lock(); }", "src/lock.rs:2: uses io::stdout; "),
            ("src/tree/mod.rs", "pub mod utils;", "src/tree/mod.rs:2: a module called utils; "),
            ("src/lib.rs", "mod common { }", "src/lib.rs:2: a module called common; "),
            ("src/lock.rs", "fn f() { vec![crate::cli::all()] }", "src/lock.rs:2: lock imports cli; "),
            ("src/lock.rs", "fn f() { vec![{ println!() }] }", "src/lock.rs:2: uses println!; "),
            ("src/lock.rs", "mod tests { use crate::cli; }", "src/lock.rs:2: lock imports cli; "),
            ("src/lock.rs", "#[derive(mysql::Row)] struct A;", "src/lock.rs:2: names the package mysql; "),
        ] {
            let found = of(path, code);
            assert_eq!(found.len(), 1, "{code}: {found:?}");
            assert!(found[0].contains(finding), "{code}: {found:?}");
        }
    }

    #[test]
    fn a_source_without_a_header_and_one_without_an_end_are_found() {
        assert_eq!(findings("src/lock.rs", "use std::fs;\nmod late {\n//! Late.\n}").len(), 1);
        assert_eq!(findings("src/lock.rs", "").len(), 1);
        let lines = |count: usize| format!("//! Owns much.\n{}", "\n".repeat(count - 1));
        assert_eq!(findings("src/lock.rs", &lines(LONGEST_FILE)), [""; 0]);
        assert_eq!(findings("src/lock.rs", &lines(LONGEST_FILE + 1)).len(), 1);
    }

    #[test]
    fn a_name_that_is_too_long_is_found_also_in_a_macro() {
        let function = |length: usize| format!("fn {}() {{}}", "a".repeat(length));
        for code in
            [&function as &dyn Fn(usize) -> String, &|length| format!("proptest! {{ #[test] {} }}", function(length))]
        {
            assert_eq!(of("src/lock.rs", &code(LONGEST_NAME)), [""; 0]);
            assert_eq!(of("src/lock.rs", &code(LONGEST_NAME + 1)).len(), 1);
        }
    }

    #[test]
    fn words_of_the_dialect_are_found_also_across_lines_and_not_in_tests() {
        let found = |text: &str| dialect("src/lock.rs", &comments(text, &read("src/lock.rs", text)));
        assert_eq!(found("//! Nobody's.\nfn f() {} // what\n"), [""; 0]);
        assert_eq!(found("//! The wrong file, as what\n//! lies is told, Whoever reads.\n").len(), 3);
        assert_eq!(found("//! A.\n\n/// Whose it is.\nfn f() {}\n"), ["src/lock.rs:3: whose"]);
        assert_eq!(found("#[cfg(test)]\nmod tests {\n    // Whose it is.\n    fn f() {}\n}\n"), [""; 0]);
        assert_eq!(found("const A: &str = \"\nwhose\";\n"), [""; 0]);
    }

    #[test]
    fn functions_with_docs_are_told_from_the_others_and_from_tests() {
        let text =
            "/// Docs.\nfn a() {}\nfn b() {}\nimpl A {\n/// Docs.\nfn c() {}\n}\n#[cfg(test)]\nmod tests { fn d() {} }";
        let found = read("src/lock.rs", text).functions;
        let found = found.iter().map(|function| (function.name.as_str(), function.documented, function.of_tests));
        let wanted = [("a", true, false), ("b", false, false), ("c", true, false), ("d", false, true)];
        assert_eq!(found.collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn files_that_need_each_other_are_found_wherever_their_names_are_passed_on() {
        let circles = |sources: &[(&str, &str)]| {
            let readings: Vec<Reading> = sources.iter().map(|(path, text)| read(path, text)).collect();
            Program::new(sources.iter().map(|(path, _)| *path).zip(&readings)).circles()
        };
        let lib = ("src/lib.rs", "mod a;\nmod b;\npub use a::A;");
        for (a, b) in [
            ("use crate::b::B;", "use super::a::A;"),
            ("fn f(b: crate::b::B) {}", "use crate::A;"),
            ("struct A;\nuse super::{b::{self, B}};", "fn f() { vec![crate::a::A] }"),
        ] {
            let found = circles(&[lib, ("src/a.rs", a), ("src/b.rs", b)]);
            assert_eq!(found.len(), 1, "{a} {b}: {found:?}");
            assert!(found[0].starts_with("src/a.rs:") && found[0].contains(" and src/b.rs:"), "{found:?}");
        }
        for (a, b) in [
            ("use crate::b::B;", "struct B;"),
            ("use crate::b::B;", "pub use crate::a::A;"),
            ("use crate::b::B;", "mod a;\nuse std::fmt;\nuse self::a::A;"),
            ("use crate::b::B;", "#[cfg(test)]\nmod tests { use crate::a::A; }"),
            ("pub(super) use crate::b::B;", "use super::a::A;"),
        ] {
            assert_eq!(
                circles(&[lib, ("src/a.rs", a), ("src/b.rs", b), ("src/b/a.rs", "struct A;")]),
                [""; 0],
                "{a} {b}"
            );
        }
        let tests = ("src/lib.rs", "mod a;\n#[cfg(test)]\nmod b;");
        assert_eq!(circles(&[tests, ("src/a.rs", "use super::b::B;"), ("src/b.rs", "use super::a::A;")]), [""; 0]);
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
