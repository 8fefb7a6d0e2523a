//! Reads a Markdown document: its headings, its blocks of code and its links, each with its line.

use std::fs;
use std::path::{Path, PathBuf};

use regex::Regex;

pub(crate) struct Document {
    /// Relative to the repository.
    pub(crate) path: String,
    pub(crate) lines: Vec<String>,
    pub(crate) headings: Vec<Heading>,
    pub(crate) blocks: Vec<Block>,
}

pub(crate) struct Heading {
    pub(crate) line: usize,
    pub(crate) level: usize,
    pub(crate) text: String,
}

/// A fenced block of code.
pub(crate) struct Block {
    /// What stands behind the opening fence.
    pub(crate) info: String,
    /// The index of the line after the opening fence.
    pub(crate) start: usize,
    pub(crate) lines: Vec<String>,
    /// Blanks before the fence, which are no part of the lines.
    pub(crate) indent: usize,
    /// How many headings stand before it.
    pub(crate) section: usize,
}

impl Document {
    pub(crate) fn read(path: &str) -> Self {
        let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("read {path}: {error}"));
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: &str, text: &str) -> Self {
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let mut document = Self { path: path.into(), lines: lines.clone(), headings: Vec::new(), blocks: Vec::new() };
        let mut open: Option<Block> = None;
        for (index, line) in lines.iter().enumerate() {
            let fence = line.trim_start().strip_prefix("```");
            match (&mut open, fence) {
                (None, Some(info)) => {
                    let (indent, section) = (line.len() - line.trim_start().len(), document.headings.len());
                    let info = info.trim().to_owned();
                    open = Some(Block { info, start: index + 1, lines: Vec::new(), indent, section });
                }
                (Some(_), Some("")) => document.blocks.extend(open.take()),
                (Some(block), _) => block.lines.push(line.chars().skip(block.indent).collect()),
                (None, None) => document.headings.extend(heading(index, line)),
            }
        }
        assert!(open.is_none(), "{path}: a block of code does not end");
        document
    }

    /// The lines outside of blocks of code, with their indexes, without what stands in backticks.
    pub(crate) fn prose(&self) -> Vec<(usize, String)> {
        let in_backticks = Regex::new("`[^`]*`").unwrap();
        let in_block = |index| self.blocks.iter().any(|block| (block.start - 1..=block.end()).contains(&index));
        let lines = self.lines.iter().enumerate().filter(|(index, _)| !in_block(*index));
        lines.map(|(index, line)| (index, in_backticks.replace_all(line, "``").into_owned())).collect()
    }

    /// What links and pictures lead to, with the indexes of their lines.
    pub(crate) fn links(&self) -> Vec<(usize, String)> {
        let link = Regex::new(r#"\]\(([^)\s]+)[^)]*\)|(?:src|srcset|href)="([^"]+)""#).unwrap();
        let mut found = Vec::new();
        for (index, line) in self.prose() {
            for captures in link.captures_iter(&line) {
                let target = captures.get(1).or(captures.get(2)).map(|target| target.as_str().to_owned());
                found.extend(target.map(|target| (index, target)));
            }
        }
        found
    }

    /// The anchors of its headings, as GitHub makes them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let mut anchors: Vec<String> = Vec::new();
        for heading in &self.headings {
            let plain = slug(&heading.text);
            let again = (1..).map(|n| format!("{plain}-{n}"));
            let anchor = std::iter::once(plain.clone()).chain(again).find(|anchor| !anchors.contains(anchor));
            anchors.extend(anchor);
        }
        anchors
    }
}

impl Block {
    /// The index of the closing fence.
    pub(crate) fn end(&self) -> usize {
        self.start + self.lines.len()
    }

    pub(crate) fn text(&self) -> String {
        self.lines.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// Every document for readers: the README in both languages and what `docs/` holds.
pub(crate) fn all() -> Vec<String> {
    let mut found: Vec<String> = ["README.md", "README.zh-CN.md"].map(str::to_owned).into();
    let entries = walkdir::WalkDir::new(root().join("docs")).sort_by_file_name().into_iter().filter_map(Result::ok);
    let files =
        entries.map(walkdir::DirEntry::into_path).filter(|path| path.extension().is_some_and(|end| end == "md"));
    found.extend(files.map(|path: PathBuf| path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned()));
    found
}

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn heading(line: usize, text: &str) -> Option<Heading> {
    let level = text.chars().take_while(|&c| c == '#').count();
    let title = text[level..].strip_prefix(' ').filter(|_| (1..=6).contains(&level))?;
    Some(Heading { line, level, text: title.trim().to_owned() })
}

fn slug(heading: &str) -> String {
    let link = Regex::new(r"\[([^\]]*)\]\([^)]*\)").unwrap();
    let text = link.replace_all(heading, "$1").to_lowercase();
    let kept = text.chars().filter(|&c| c.is_alphanumeric() || " -_".contains(c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}
