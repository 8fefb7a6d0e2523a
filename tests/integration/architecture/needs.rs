//! Which file of the program needs which, by `use` and by path. A `mod` declares a file and a `pub use` passes a
//! name on; neither is a need of its own, and a name that is passed on is needed where it is defined.

use std::collections::{BTreeMap, BTreeSet};

use super::reading::{Named, Reading, Role};

type Module = Vec<String>;

/// The files by their modules, without what only tests have.
pub(super) struct Program<'a> {
    files: BTreeMap<Module, (&'a str, &'a Reading)>,
}

/// The lines of a file that name another one.
type Needs<'a> = BTreeMap<(&'a str, &'a str), BTreeSet<usize>>;

impl<'a> Program<'a> {
    pub(super) fn new(sources: impl Iterator<Item = (&'a str, &'a Reading)>) -> Self {
        let mut files: BTreeMap<Module, _> = sources.map(|(path, reading)| (module(path), (path, reading))).collect();
        let declared = files.iter().flat_map(|(parent, (_, reading))| {
            let for_tests = reading.modules.iter().filter(|module| module.of_tests);
            for_tests.map(|module| below(parent, &module.name))
        });
        for only_tests in declared.collect::<Vec<_>>() {
            files.retain(|module, _| !module.starts_with(&only_tests));
        }
        Self { files }
    }

    pub(super) fn files(&self) -> impl Iterator<Item = (&'a str, &'a Reading)> {
        self.files.values().copied()
    }

    /// Pairs of files that need each other, each with the lines that say so.
    pub(super) fn circles(&self) -> Vec<String> {
        let needs = self.needs();
        let lines = |pair| {
            let lines: &BTreeSet<usize> = &needs[&pair];
            lines.iter().map(usize::to_string).collect::<Vec<_>>().join(",")
        };
        let mutual = needs.keys().filter(|(one, other)| one < other && needs.contains_key(&(*other, *one)));
        mutual
            .map(|&(one, other)| format!("{one}:{} and {other}:{}", lines((one, other)), lines((other, one))))
            .collect()
    }

    fn needs(&self) -> Needs<'a> {
        let mut needs = Needs::new();
        for (own, (path, reading)) in &self.files {
            // A single word names no file, as in `pub(super)`.
            let asks =
                |named: &&Named| named.role == Role::Import || named.role == Role::Path && named.segments.len() > 1;
            for named in reading.names.iter().filter(asks).filter(|named| !named.of_tests) {
                if let Some(theirs) = self.home(own, &named.segments, 0).filter(|theirs| theirs != path) {
                    needs.entry((*path, theirs)).or_default().insert(named.line);
                }
            }
        }
        needs
    }

    /// The file in which what a module calls by this path is defined.
    fn home(&self, own: &Module, path: &[String], depth: usize) -> Option<&'a str> {
        let climbs = path.iter().take_while(|name| *name == "super").count();
        let (mut at, mut rest) = match path.first()?.as_str() {
            "crate" | "invoice_export" => (Module::new(), &path[1..]),
            "self" => (own.clone(), &path[1..]),
            "super" => (own[..own.len().checked_sub(climbs)?].to_vec(), &path[climbs..]),
            // A name of its own: a module below it, or what an import has counted.
            name if self.files.contains_key(&below(own, name)) => (own.clone(), path),
            _ => return None,
        };
        while let Some((name, further)) =
            rest.split_first().filter(|(name, _)| self.files.contains_key(&below(&at, name)))
        {
            (at, rest) = (below(&at, name), further);
        }
        let (file, reading) = self.files.get(&at)?;
        let passes_on =
            |named: &&Named| named.role != Role::Path && !named.of_tests && named.alias.as_ref() == rest.first();
        // Names that are passed on in a circle would never end.
        match rest.first().and_then(|_| reading.names.iter().find(passes_on)).filter(|_| depth < 9) {
            Some(passed_on) => self.home(&at, &passed_on.segments, depth + 1),
            None => Some(file),
        }
    }
}

/// `src/a/b.rs` is `a::b`, as `src/a/b/mod.rs` is.
fn module(path: &str) -> Module {
    let name = path.trim_start_matches("src/").trim_end_matches(".rs");
    name.split('/').filter(|part| !matches!(*part, "lib" | "mod")).map(str::to_owned).collect()
}

fn below(module: &[String], name: &str) -> Module {
    [module, &[name.to_owned()]].concat()
}
