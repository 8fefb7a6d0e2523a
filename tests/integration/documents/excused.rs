//! The commands of documents that the test does not run, each with the reason.

use super::markdown::Document;
use super::steps::commands;

/// How the name of the document begins (`*`: every one), how the command begins, and why it is not run.
const EXCUSED: [(&str, &str, &str); 9] = [
    ("*", "cargo build --release", "the program that the tests are built with stands where this puts one"),
    ("*", "scripts/test", "the tests of documents are part of it"),
    ("docs/CONTRIBUTING", "scripts/dev-db start", "the server that it starts outlives the document"),
    ("docs/CONTRIBUTING", "cargo test", "it builds"),
    ("docs/CONTRIBUTING", "cargo clippy", "it builds"),
    ("docs/CONTRIBUTING", ".ci/run", "it builds, installs and runs all tests"),
    ("docs/CONTRIBUTING", "scripts/soak", "it takes minutes"),
    ("docs/CONTRIBUTING", "scripts/bench", "it builds a release and takes minutes"),
    ("docs/CONTRIBUTING", "scripts/pictures", "tests/integration/scripts.rs runs it"),
];

pub(crate) fn is_excused(document: &str, command: &str) -> bool {
    EXCUSED.iter().any(|(of, beginning, _)| matches(of, beginning, document, command))
}

/// The excuses that no command of these documents needs.
pub(crate) fn idle(documents: &[Document]) -> Vec<String> {
    let of = |document: &Document| {
        let blocks = document.blocks.iter().filter(|block| block.info == "sh");
        let commands = blocks.flat_map(commands).map(|(_, command)| command);
        commands.map(|command| (document.path.clone(), command)).collect::<Vec<_>>()
    };
    let all: Vec<_> = documents.iter().flat_map(of).collect();
    let is_idle = |(of, beginning, _): &&(&str, &str, &str)| {
        !all.iter().any(|(document, command)| matches(of, beginning, document, command))
    };
    EXCUSED
        .iter()
        .filter(is_idle)
        .map(|(of, beginning, _)| format!("nothing in {of} begins with {beginning:?}"))
        .collect()
}

fn matches(of: &str, beginning: &str, document: &str, command: &str) -> bool {
    (of == "*" || document.starts_with(of)) && command.starts_with(beginning)
}
