//! Compares a document with its Chinese counterpart, and looks where its links lead.

use regex::Regex;

use super::markdown::{Block, Document, root};
use super::steps::without_comment;

/// The block by which a Chinese document turns to Chinese; no other document has one.
const TURN_TO_CHINESE: &str = "export INVOICE_EXPORT_LANG=zh\n";
/// The line by which a Chinese crontab turns to Chinese: cron has no locale.
const CRON_TURNS_TO_CHINESE: &str = "INVOICE_EXPORT_LANG=zh";
/// Blocks that must be the same in both languages, but for comments.
const SAME: [&str; 7] = ["sh", "cron", "sql", "sql state", "json", "ini", "toml"];

/// Where the document and its Chinese counterpart do not agree.
pub(crate) fn disagreements(english: &Document, chinese: &Document) -> Vec<String> {
    let mut found = Vec::new();
    let place = |document: &Document, line: usize| format!("{}:{}", document.path, line + 1);
    let pairs = english.headings.iter().zip(&chinese.headings);
    if let Some((en, zh)) = pairs.clone().find(|(en, zh)| en.level != zh.level) {
        let (at, other) = (place(english, en.line), place(chinese, zh.line));
        found.push(format!("{at} is a heading of level {}, {other} one of level {}", en.level, zh.level));
    } else if english.headings.len() != chinese.headings.len() {
        let (document, rest) = longer((english, &english.headings), (chinese, &chinese.headings));
        let (at, text) = (place(document, rest.line), &rest.text);
        found.push(format!("{at}: the heading {text:?} has no counterpart"));
    }
    let blocks: Vec<&Block> = chinese.blocks.iter().filter(|block| block.text() != TURN_TO_CHINESE).collect();
    let ours: Vec<&Block> = english.blocks.iter().collect();
    for (en, zh) in ours.iter().zip(&blocks) {
        let (at, other) = (place(english, en.start), place(chinese, zh.start));
        if en.info != zh.info || en.section != zh.section {
            found.push(format!(
                "{at} is a block of {:?}, where {other} is one of {:?}, or in another section",
                en.info, zh.info
            ));
            break;
        }
        if SAME.contains(&&*en.info) && plain(en) != plain(zh) {
            found.push(format!("{at} and {other} are not the same but for comments"));
        }
    }
    if ours.len() != blocks.len() {
        let (document, block) = longer((english, &ours), (chinese, &blocks));
        found.push(format!("{}: the block has no counterpart", place(document, block.start)));
    }
    found
}

/// Links to files and headings that are not there.
pub(crate) fn dead_links(document: &Document) -> Vec<String> {
    let links = document.links().into_iter();
    let dead = links
        .filter(|(_, link)| !link.contains("://") && !link.starts_with("mailto:") && !leads_somewhere(document, link));
    dead.map(|(line, link)| format!("{}:{}: {link} leads nowhere", document.path, line + 1)).collect()
}

/// Half-width punctuation between Chinese characters, outside of code.
pub(crate) fn half_width(document: &Document) -> Vec<String> {
    let between = Regex::new(r"\p{Han}\s*[,;:!?()]\s*\p{Han}").unwrap();
    let target = Regex::new(r"\]\([^)]*\)").unwrap();
    let found = document.prose().into_iter().filter_map(|(line, text)| {
        let text = target.replace_all(&text, "]");
        let found = between.find(&text)?;
        Some(format!("{}:{}: half-width punctuation in {:?}", document.path, line + 1, found.as_str()))
    });
    found.collect()
}

fn leads_somewhere(document: &Document, link: &str) -> bool {
    let (path, anchor) = link.split_once('#').map_or((link, None), |(path, anchor)| (path, Some(anchor)));
    let folder = root().join(&document.path).parent().unwrap().to_owned();
    let target = if path.is_empty() { root().join(&document.path) } else { folder.join(path) };
    let Ok(target) = target.canonicalize() else { return false };
    let Some(anchor) = anchor else { return true };
    let Ok(relative) = target.strip_prefix(root().canonicalize().unwrap()) else { return false };
    target.extension().is_some_and(|end| end == "md")
        && Document::read(relative.to_str().unwrap()).anchors().iter().any(|known| known == anchor)
}

/// The lines without comments; those that hold nothing else are left out.
fn plain(block: &Block) -> Vec<String> {
    let lines = block.lines.iter().map(|line| match block.info.as_str() {
        "sql" | "sql state" => line.split(" --").next().unwrap_or_default().trim_end(),
        _ => without_comment(line),
    });
    let counts = |line: &&str| !line.is_empty() && !line.starts_with("--") && *line != CRON_TURNS_TO_CHINESE;
    lines.filter(counts).map(str::to_owned).collect()
}

/// The first of the entries that the other document does not have.
fn longer<'a, T>(one: (&'a Document, &'a [T]), other: (&'a Document, &'a [T])) -> (&'a Document, &'a T) {
    let (more, less) = if one.1.len() > other.1.len() { (one, other) } else { (other, one) };
    (more.0, &more.1[less.1.len()])
}
