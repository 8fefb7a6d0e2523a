//! Owns the reading of a path that an operator asks about: which files of the tree it may name.

use std::path::{Component, Path, PathBuf};

use super::name::TreePath;

const ENDING: &str = ".json";

/// The files of the tree that a text may name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AskedFiles {
    /// The text as an absolute path, relative to the current folder, and relative to the output, with and without
    /// `.json`.
    pub paths: Vec<TreePath>,
    /// The text as the bare name of a file in any folder, without `.json`.
    pub stem: Option<String>,
    /// The text names a file that lies outside the output.
    pub outside: bool,
}

impl AskedFiles {
    /// Reads a text that may be an invoice number as well.
    pub fn read(text: &str, output: &Path) -> Self {
        let asked = Path::new(text);
        let within = [
            absolute(asked).zip(absolute(output)),
            // Also where a link leads to the output.
            absolute(asked).map(|asked| real(&asked)).zip(std::fs::canonicalize(output).ok()),
        ];
        let within = within.iter().flatten().filter_map(|(file, output)| file.strip_prefix(output).ok());
        let mut paths: Vec<TreePath> = Vec::new();
        for relative in within.chain(asked.is_relative().then_some(asked)) {
            for path in tree_paths(relative) {
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
        let name = text.strip_suffix(ENDING).unwrap_or(text);
        let stem = TreePath::join("-/-", name).is_some().then(|| name.to_owned());
        let outside = asked.is_absolute() && text.ends_with(ENDING) && paths.is_empty();
        Self { paths, stem, outside }
    }

    /// Whether the text has the form of a file's path or name.
    pub fn is_named(&self) -> bool {
        self.outside || self.stem.is_some() || !self.paths.is_empty()
    }

    /// Whether a file of the tree may be meant.
    pub fn names(&self, path: &TreePath) -> bool {
        self.paths.contains(path) || self.stem.as_deref() == Some(path.stem())
    }

    /// The number that the file's name spells.
    pub fn number(&self) -> Option<String> {
        let of_name = || TreePath::join("-/-", self.stem.as_ref()?)?.number();
        self.paths.first().map_or_else(of_name, TreePath::number)
    }
}

fn absolute(path: &Path) -> Option<PathBuf> {
    std::path::absolute(path).ok()
}

/// A relative path as a path of the tree, with the ending that the text may lack.
fn tree_paths(relative: &Path) -> Vec<TreePath> {
    let mut names = Vec::new();
    for component in relative.components() {
        match (component, component.as_os_str().to_str()) {
            (Component::Normal(_), Some(name)) => names.push(name),
            (Component::CurDir, _) => {}
            _ => return Vec::new(),
        }
    }
    let path = names.join("/");
    ["", ENDING].iter().filter_map(|ending| TreePath::parse(&format!("{path}{ending}"))).collect()
}

/// The path without links, as far as its folders are there.
fn real(path: &Path) -> PathBuf {
    let mut folders = path.ancestors().skip(1);
    let found = folders.find_map(|folder| Some((folder, std::fs::canonicalize(folder).ok()?)));
    found.map_or_else(|| path.to_path_buf(), |(folder, real)| real.join(path.strip_prefix(folder).unwrap_or(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_known_by_any_of_its_names() {
        let output = Path::new("/srv/no-such-folder/context");
        let path = TreePath::parse("1/CN/20251128+A.json").unwrap();
        for text in [
            "/srv/no-such-folder/context/1/CN/20251128+A.json",
            "/srv/no-such-folder/context/1/CN/20251128+A",
            "1/CN/20251128+A.json",
            "./1/CN/20251128+A",
        ] {
            let asked = AskedFiles::read(text, output);
            assert_eq!((asked.paths.first(), asked.outside), (Some(&path), false), "{text}");
            assert_eq!(asked.number().as_deref(), Some("A"));
        }
        for text in ["20251128+A.json", "20251128+A"] {
            let asked = AskedFiles::read(text, output);
            assert_eq!(asked.stem.as_deref(), Some("20251128+A"), "{text}");
        }
    }

    #[test]
    fn a_number_and_a_path_elsewhere_name_no_file_of_the_tree() {
        let output = Path::new("/srv/no-such-folder/context");
        for text in ["INV001", "A/1", "", "../1/CN/20251128+A.json", "1/20251128+A.json"] {
            let asked = AskedFiles::read(text, output);
            assert!(asked.paths.is_empty() && asked.stem.is_none() && !asked.is_named(), "{text}: {asked:?}");
        }
        assert!(AskedFiles::read("/srv/other/1/CN/20251128+A.json", output).outside);
    }
}
