//! Owns the walk through the output, by `walkdir`. It reads names, never contents, and changes nothing.

use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use walkdir::{DirEntry, WalkDir};

use super::name::TreePath;
use crate::invoice::Tenant;

/// A file's depth below the output: tenant, country, file.
const FILE_DEPTH: usize = 3;

/// Whether the output holds any `*/*/*.json`; looks no further than the first one.
pub fn has_files(output: &Path) -> anyhow::Result<bool> {
    files(output).next().transpose().map(|file| file.is_some())
}

/// The paths of all `*/*/*.json`, relative to the output and sorted within each folder. The output
/// itself may be a symlink; links below it are not followed.
pub fn files(output: &Path) -> impl Iterator<Item = anyhow::Result<PathBuf>> {
    let entries = WalkDir::new(output).max_depth(FILE_DEPTH).sort_by_file_name().into_iter();
    let entries = entries.filter_entry(|entry| entry.depth() == 0 || !is_not_ours(entry));
    entries.filter_map(move |entry| match entry {
        Ok(entry) if is_exported(&entry) => {
            let path = entry.path();
            Some(Ok(path.strip_prefix(output).unwrap_or(path).to_path_buf()))
        }
        Ok(_) => None,
        // No output yet, or the entry was removed since its folder was read.
        Err(error) if error.io_error().is_some_and(|cause| cause.kind() == ErrorKind::NotFound) => None,
        Err(error) => {
            let output = output.display();
            Some(Err(text!("cannot look for exported files in {output}", "无法在 {output} 中查找已导出的文件")
                .caused_by(error)))
        }
    })
}

/// Something in the output that is not hidden.
#[derive(Debug)]
pub struct TreeEntry {
    /// Relative to the output.
    pub path: PathBuf,
    pub kind: TreeEntryKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TreeEntryKind {
    /// A tenant's or a country's folder, with its owner and its permission bits.
    Folder { owner: u32, mode: u32 },
    /// A folder that this user may not list, at any depth; it comes after the folder itself.
    Closed,
    /// Anything else below a tenant's folder, at any depth.
    File,
}

/// The files of a tenant that spell this number, in any country and of any date. Folders that cannot be read have none.
pub fn of_number(output: &Path, tenant: &Tenant, number: &str) -> Vec<TreePath> {
    let (folder, ending) = (TreePath::of(tenant, None, "20000101", number), TreePath::ending_of(number));
    let entries = WalkDir::new(output.join(folder.tenant())).min_depth(2).max_depth(2).sort_by_file_name();
    let files = entries.into_iter().filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let paths = files.filter_map(|entry| TreePath::parse(entry.path().strip_prefix(output).ok()?.to_str()?));
    paths.filter(|path| path.ending() == ending).collect()
}

/// Everything below the output, in no order: folders of tenants and countries, and everything that is no folder.
/// Files beside the tenants' folders are left out.
pub fn everything(output: &Path) -> impl Iterator<Item = anyhow::Result<TreeEntry>> {
    let entries = WalkDir::new(output).min_depth(1).into_iter().filter_entry(|entry| !is_not_ours(entry));
    entries.filter_map(move |entry| {
        let found = entry.map_err(anyhow::Error::from).and_then(|entry| {
            let kind = if entry.file_type().is_dir() {
                let metadata = entry.metadata()?;
                TreeEntryKind::Folder { owner: metadata.uid(), mode: metadata.mode() & 0o7777 }
            } else {
                TreeEntryKind::File
            };
            let path = entry.path();
            let path = path.strip_prefix(output).unwrap_or(path).to_path_buf();
            let counts = match kind {
                TreeEntryKind::Folder { .. } => entry.depth() < FILE_DEPTH,
                TreeEntryKind::Closed | TreeEntryKind::File => entry.depth() > 1,
            };
            Ok(counts.then_some(TreeEntry { path, kind }))
        });
        match found {
            // The entry was removed since its folder was read.
            Err(error) if is(ErrorKind::NotFound, &error) => None,
            Err(error) => Some(
                closed(&error, output)
                    .ok_or_else(|| text!("cannot look through {}", "无法遍历 {}", output.display()).caused_by(error)),
            ),
            Ok(found) => found.map(Ok),
        }
    })
}

fn is(kind: ErrorKind, error: &anyhow::Error) -> bool {
    let walked = error.downcast_ref::<walkdir::Error>().and_then(walkdir::Error::io_error);
    walked.is_some_and(|cause| cause.kind() == kind)
}

/// The folder below the output that permission to read is missing for.
fn closed(error: &anyhow::Error, output: &Path) -> Option<TreeEntry> {
    let path = error.downcast_ref::<walkdir::Error>().and_then(walkdir::Error::path)?;
    let path = path.strip_prefix(output).ok().filter(|path| !path.as_os_str().is_empty())?;
    is(ErrorKind::PermissionDenied, error).then(|| TreeEntry { path: path.to_path_buf(), kind: TreeEntryKind::Closed })
}

/// Hidden names are never an invoice's. `lost+found` is where a volume is mounted, and readable by
/// root alone.
fn is_not_ours(entry: &DirEntry) -> bool {
    let name = entry.file_name().as_encoded_bytes();
    name.starts_with(b".") || (entry.depth() == 1 && name == b"lost+found")
}

fn is_exported(entry: &DirEntry) -> bool {
    entry.depth() == FILE_DEPTH
        && entry.file_type().is_file()
        && entry.file_name().as_encoded_bytes().ends_with(b".json")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn tree(files: &[&str]) -> TempDir {
        let output = tempfile::tempdir().unwrap();
        for file in files {
            let path = output.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "{}").unwrap();
        }
        output
    }

    #[test]
    fn a_missing_and_an_empty_output_hold_no_files() {
        let output = tree(&[]);
        assert!(!has_files(output.path()).unwrap());
        assert!(!has_files(&output.path().join("missing")).unwrap());
        fs::create_dir_all(output.path().join("1/CN/folder.json")).unwrap();
        assert!(!has_files(output.path()).unwrap());
    }

    #[test]
    fn one_exported_file_is_found_among_other_things() {
        let output = tree(&["README", "1/notes.json", "1/CN/notes.txt", "2/DE/20251128+1.json"]);
        assert!(has_files(output.path()).unwrap());
        assert!(has_files(tree(&["票据/中国/任意.json"]).path()).unwrap());
    }

    #[test]
    fn only_files_at_the_depth_of_invoices_count() {
        let output = tree(&["a.json", "1/a.json", "1/CN/deeper/a.json", "1/CN/a.json.tmp"]);
        assert!(!has_files(output.path()).unwrap());
    }

    #[test]
    fn state_hidden_and_foreign_folders_are_passed_over() {
        let output = tree(&[
            ".export_state/staging/a.json",
            ".git/CN/a.json",
            "1/.hidden/a.json",
            "1/CN/.a.json",
            "lost+found/CN/a.json",
        ]);
        assert!(!has_files(output.path()).unwrap());
    }

    #[test]
    fn a_linked_output_is_followed_and_links_below_it_are_not() {
        let real = tree(&["1/CN/20251128+1.json"]);
        let other = tree(&["1/CN/notes.txt"]);
        symlink(real.path(), other.path().join("output")).unwrap();
        symlink(real.path().join("1"), other.path().join("2")).unwrap();
        symlink(real.path().join("1/CN"), other.path().join("1/DE")).unwrap();
        symlink(real.path().join("1/CN/20251128+1.json"), other.path().join("1/CN/20251128+1.json")).unwrap();
        assert!(has_files(&other.path().join("output")).unwrap());
        assert!(!has_files(other.path()).unwrap());
    }

    #[test]
    fn a_name_that_is_not_text_is_a_name() {
        let output = tree(&["1/CN/notes.txt"]);
        let name = std::ffi::OsStr::from_bytes(b"\xff.json");
        fs::write(output.path().join("1/CN").join(name), "{}").unwrap();
        assert!(has_files(output.path()).unwrap());
    }

    #[test]
    fn an_output_that_cannot_be_read_is_an_error() {
        let output = tree(&["file"]);
        let error = has_files(&output.path().join("file/below")).unwrap_err();
        assert!(error.to_string().starts_with("cannot look for exported files in "), "{error:#}");
    }
}
