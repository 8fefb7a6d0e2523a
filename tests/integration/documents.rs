//! The documents: every command that they show is run, in a place of its own, and what they show of its output is
//! compared with what it prints. Both languages must say the same, and links must lead somewhere.
//!
//! With `INVOICE_EXPORT_WRITE_DOCUMENTS=1` the output that a document shows is replaced by what was printed.

mod comparing;
mod excused;
mod honesty;
mod languages;
mod markdown;
mod place;
mod scenes;
mod steps;

use std::fs;

use comparing::{difference, other_fields, rewritten};
use markdown::{Document, root};
use steps::{Outcome, Step};

const REWRITE: &str = "INVOICE_EXPORT_WRITE_DOCUMENTS";
/// Lines of a README, at the most.
const LONGEST_README: usize = 200;

/// One test for each document, so that they run at the same time.
macro_rules! documents {
    ($($name:ident: $path:literal,)*) => {
        const DOCUMENTS: &[&str] = &[$($path),*];
        $(#[test]
        fn $name() {
            try_out($path);
        })*
    };
}

documents! {
    the_readme_shows_what_happens: "README.md",
    the_chinese_readme_shows_what_happens: "README.zh-CN.md",
    the_installation_shows_what_happens: "docs/install.md",
    the_chinese_installation_shows_what_happens: "docs/install.zh-CN.md",
    the_operations_show_what_happens: "docs/operations.md",
    the_chinese_operations_show_what_happens: "docs/operations.zh-CN.md",
    the_way_from_the_script_shows_what_happens: "docs/coming-from-the-script.md",
    the_chinese_way_from_the_script_shows_what_happens: "docs/coming-from-the-script.zh-CN.md",
    the_audit_shows_what_happens: "docs/verify-and-audit.md",
    the_chinese_audit_shows_what_happens: "docs/verify-and-audit.zh-CN.md",
    the_guarantees_show_what_happens: "docs/guarantees.md",
    the_chinese_guarantees_show_what_happens: "docs/guarantees.zh-CN.md",
    the_configuration_shows_what_happens: "docs/configuration.md",
    the_chinese_configuration_shows_what_happens: "docs/configuration.zh-CN.md",
    the_sources_show_what_happens: "docs/sources.md",
    the_chinese_sources_show_what_happens: "docs/sources.zh-CN.md",
    the_state_shows_what_happens: "docs/state.md",
    the_architecture_shows_what_happens: "docs/architecture.md",
    the_contributing_shows_what_happens: "docs/CONTRIBUTING.md",
}

#[test]
fn every_document_is_tried_and_no_command_is_excused_in_vain() {
    assert_eq!(
        markdown::all().iter().filter(|path| !DOCUMENTS.contains(&path.as_str())).count(),
        0,
        "{:?}",
        markdown::all()
    );
    let idle = excused::idle(&documents());
    assert!(idle.is_empty(), "\n{}\n", idle.join("\n"));
}

#[test]
fn both_languages_have_the_same_headings_and_commands() {
    let chinese =
        |document: &Document| Some(document.path.replace(".md", ".zh-CN.md")).filter(|path| root().join(path).exists());
    let pairs = documents().into_iter().filter_map(|english| Some((Document::read(&chinese(&english)?), english)));
    let found: Vec<String> = pairs.flat_map(|(zh, en)| languages::disagreements(&en, &zh)).collect();
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn links_lead_somewhere_and_chinese_text_has_its_own_punctuation() {
    let mut found: Vec<String> = documents().iter().flat_map(languages::dead_links).collect();
    let chinese = documents().into_iter().filter(|document| document.path.ends_with(".zh-CN.md"));
    found.extend(chinese.flat_map(|document| languages::half_width(&document)));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

#[test]
fn a_readme_is_short() {
    for document in documents().iter().filter(|document| document.path.starts_with("README")) {
        let lines = document.lines.len();
        assert!(lines <= LONGEST_README, "{} has {lines} lines; the most are {LONGEST_README}", document.path);
    }
}

fn documents() -> Vec<Document> {
    markdown::all().iter().map(|path| Document::read(path)).collect()
}

/// Does what the document says, and compares.
fn try_out(path: &str) {
    let document = Document::read(path);
    let (steps, mut found) = steps::steps(&document);
    let outcomes = carry_out(&document, &steps);
    if std::env::var_os(REWRITE).is_some_and(|value| !value.is_empty()) {
        rewrite(&document, &steps, &outcomes);
    }
    found.extend(steps.iter().zip(&outcomes).flat_map(|(step, outcome)| faults(&document, step, outcome)));
    assert!(found.is_empty(), "\n{}\n", found.join("\n"));
}

/// Where there is nothing to do, no place is made.
fn carry_out(document: &Document, steps: &[Step]) -> Vec<Outcome> {
    if steps.is_empty() {
        return Vec::new();
    }
    steps::run(document, steps, &scenes::scene(&document.path))
}

fn faults(document: &Document, step: &Step, outcome: &Outcome) -> Vec<String> {
    let at = format!("{}:{}: {}", document.path, step.line + 1, step.shown);
    let printed = &outcome.printed;
    let Some(code) = outcome.code else {
        return vec![format!("{at}\n  did not end, or was not reached; it printed:\n{printed}")];
    };
    if !step.codes.contains(&code) {
        return vec![format!("{at}\n  ended with exit {code} instead of {:?}; it printed:\n{printed}", step.codes)];
    }
    let block = step.output.map(|number| &document.blocks[number]);
    let fault = block.and_then(|block| match block.info.as_str() {
        "json" => match (serde_json::from_str(&block.text()), serde_json::from_str(printed)) {
            (Ok(shown), Ok(printed)) => other_fields(&shown, &printed, "").map(|at| format!("other fields at {at}")),
            (shown, printed) => Some(format!("no JSON: {:?} {:?}", shown.err(), printed.err())),
        },
        _ => difference(&block.lines, printed).map(|line| format!("differs in {line}")),
    });
    fault.map(|fault| format!("{at}\n  prints other than shown, {fault}; it printed:\n{printed}")).into_iter().collect()
}

/// Puts what was printed where the document shows something else, if the command ended as announced.
fn rewrite(document: &Document, steps: &[Step], outcomes: &[Outcome]) {
    let mut lines = document.lines.clone();
    for (step, outcome) in steps.iter().zip(outcomes).rev() {
        let Some(block) = step.output.map(|number| &document.blocks[number]).filter(|block| block.info == "text")
        else {
            continue;
        };
        let as_announced = outcome.code.is_some_and(|code| step.codes.contains(&code));
        if as_announced && difference(&block.lines, &outcome.printed).is_some() {
            let indent = " ".repeat(block.indent);
            let new = rewritten(&block.lines, &outcome.printed).into_iter();
            lines.splice(block.start..block.end(), new.map(|line| format!("{indent}{line}").trim_end().to_owned()));
        }
    }
    let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
    fs::write(root().join(&document.path), text).expect("rewrite the document");
}
