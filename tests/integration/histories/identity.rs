//! Which files a run may remove, and which it may leave: the id of a row proves that it is the invoice that was
//! exported only in the same table, and only of the same tenant, number and year.

use std::collections::BTreeSet;

/// An invoice as a run read it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version {
    pub(super) id: i64,
    pub(super) path: String,
    pub(super) document: &'static str,
}

/// What was read in the table that is there now.
#[derive(Clone, Default)]
pub(super) struct Identity {
    /// By some run, perhaps.
    possible: BTreeSet<Version>,
    /// By a run that ended well, for certain.
    certain: BTreeSet<Version>,
}

impl Identity {
    pub(super) fn may_read(&mut self, versions: impl IntoIterator<Item = Version>) {
        self.possible.extend(versions);
    }

    pub(super) fn read(&mut self, versions: impl IntoIterator<Item = Version>) {
        self.certain.extend(versions);
    }

    /// Another table is in the place of the one that was there.
    pub(super) fn is_another(&mut self) {
        *self = Self::default();
    }

    /// Not every source shows whether it is another one.
    pub(super) fn may_be_another(&mut self) {
        self.certain.clear();
    }

    /// The invoices that a file may be the old one of.
    pub(super) fn possible(&self, path: &str, content: &[u8]) -> impl Iterator<Item = i64> {
        let is_it = move |version: &&Version| version.path == path && version.document.as_bytes() == content;
        self.possible.iter().filter(is_it).map(|version| version.id)
    }

    pub(super) fn is_certain(&self, id: i64, path: &str, content: &[u8]) -> bool {
        let is_it = |version: &Version| version.path == path && version.document.as_bytes() == content;
        self.certain.iter().any(|version| version.id == id && is_it(version))
    }
}

/// Tenant and number of a path.
pub(super) fn parts(path: &str) -> (&str, &str) {
    let tenant = path.split('/').next().unwrap_or_default();
    let name = path.rsplit('/').next().unwrap_or_default();
    let number = name.split('+').nth(1).and_then(|number| number.strip_suffix(".json"));
    (tenant, number.unwrap_or_default())
}

/// The year in the name of a path.
pub(super) fn year(path: &str) -> &str {
    path.rsplit('/').next().and_then(|name| name.get(..4)).unwrap_or_default()
}
