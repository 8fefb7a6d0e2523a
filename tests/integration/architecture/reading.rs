//! A source taken apart by `syn`: the paths, macros, modules and functions that it names, each with its line.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Attribute, Item, Meta, UseTree, Visibility};

/// A path as the code names it; `use a::{b, c::d}` is `a::b` and `a::c::d`.
pub(super) struct Named {
    pub(super) line: usize,
    pub(super) segments: Vec<String>,
    /// The name that a `use` gives it here.
    pub(super) alias: Option<String>,
    pub(super) role: Role,
    pub(super) of_tests: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Path,
    Import,
    /// A `use` that others see.
    Reexport,
}

/// A function or a module.
pub(super) struct Declared {
    pub(super) line: usize,
    pub(super) name: String,
    pub(super) documented: bool,
    pub(super) of_tests: bool,
}

/// What one source names.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) names: Vec<Named>,
    pub(super) macros: Vec<(usize, String)>,
    pub(super) modules: Vec<Declared>,
    pub(super) functions: Vec<Declared>,
    /// First and last line of each item that only tests have.
    pub(super) tests: Vec<(usize, usize)>,
    within_tests: bool,
}

pub(super) fn reading(text: &str) -> syn::Result<Reading> {
    let mut reading = Reading::default();
    reading.visit_file(&syn::parse_file(text)?);
    Ok(reading)
}

impl Reading {
    fn name(&mut self, line: usize, segments: Vec<String>, alias: Option<String>, role: Role) {
        self.names.push(Named { line, segments, alias, role, of_tests: self.within_tests });
    }

    fn declared(&self, name: &syn::Ident, attrs: &[Attribute]) -> Declared {
        let documented = attrs.iter().any(|attr| attr.path().is_ident("doc"));
        let of_tests = self.within_tests || is_for_tests(attrs);
        Declared { line: name.span().start().line, name: name.to_string(), documented, of_tests }
    }

    /// Takes a `use` apart; each branch of a group has the line that it starts in.
    fn branches(&mut self, tree: &UseTree, before: &[String], line: usize, role: Role) {
        let with = |name: &syn::Ident| [before, &[name.to_string()]].concat();
        match tree {
            UseTree::Path(path) => self.branches(&path.tree, &with(&path.ident), line, role),
            UseTree::Name(name) if name.ident == "self" => {
                self.name(line, before.to_vec(), before.last().cloned(), role);
            }
            UseTree::Name(name) => self.name(line, with(&name.ident), Some(name.ident.to_string()), role),
            UseTree::Rename(name) => self.name(line, with(&name.ident), Some(name.rename.to_string()), role),
            UseTree::Glob(_) => self.name(line, before.to_vec(), None, role),
            UseTree::Group(group) => {
                for tree in &group.items {
                    self.branches(tree, before, tree.span().start().line, role);
                }
            }
        }
    }

    /// Reads what `syn` leaves as tokens: the arguments of macros and attributes.
    fn tokens(&mut self, tokens: TokenStream) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let is = |at: usize, sign| matches!(tokens.get(at), Some(TokenTree::Punct(punct)) if punct.as_char() == sign);
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            at += 1;
            let line = token.span().start().line;
            match token {
                TokenTree::Group(group) => self.tokens(group.stream()),
                TokenTree::Ident(first) => {
                    let mut segments = vec![first.to_string()];
                    while let (true, true, Some(TokenTree::Ident(next))) =
                        (is(at, ':'), is(at + 1, ':'), tokens.get(at + 2))
                    {
                        segments.push(next.to_string());
                        at += 3;
                    }
                    if is(at, '!') {
                        self.macros.push((line, segments.join("::")));
                    }
                    if let (true, Some(TokenTree::Ident(name))) = (first == "fn", tokens.get(at)) {
                        let function = self.declared(name, &[]);
                        self.functions.push(Declared { of_tests: true, ..function });
                    }
                    self.name(line, segments, None, Role::Path);
                }
                _ => {}
            }
        }
    }

    /// Goes on with an item, or leaves it for tests alone.
    fn within(&mut self, attrs: &[Attribute], lines: proc_macro2::Span, further: impl FnOnce(&mut Self)) {
        let before = self.within_tests;
        if is_for_tests(attrs) && !before {
            self.within_tests = true;
            self.tests.push((lines.start().line, lines.end().line));
        }
        further(self);
        self.within_tests = before;
    }
}

impl<'ast> Visit<'ast> for Reading {
    fn visit_item(&mut self, item: &'ast Item) {
        self.within(attributes(item), item.span(), |reading| visit::visit_item(reading, item));
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        let role = if matches!(item.vis, Visibility::Inherited) { Role::Import } else { Role::Reexport };
        self.branches(&item.tree, &[], item.tree.span().start().line, role);
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.name(item.span().start().line, vec![item.ident.to_string()], None, Role::Import);
    }

    fn visit_item_mod(&mut self, item: &'ast syn::ItemMod) {
        self.modules.push(self.declared(&item.ident, &item.attrs));
        visit::visit_item_mod(self, item);
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.functions.push(self.declared(&item.sig.ident, &item.attrs));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.functions.push(self.declared(&item.sig.ident, &item.attrs));
        self.within(&item.attrs, item.span(), |reading| visit::visit_impl_item_fn(reading, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        self.functions.push(self.declared(&item.sig.ident, &item.attrs));
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.name(path.span().start().line, segments, None, Role::Path);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast syn::Macro) {
        let name: Vec<String> = called.path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.macros.push((called.path.span().start().line, name.join("::")));
        self.visit_path(&called.path);
        self.tokens(called.tokens.clone());
    }

    fn visit_meta_list(&mut self, list: &'ast syn::MetaList) {
        self.tokens(list.tokens.clone());
    }
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Const(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        Item::Impl(item) => &item.attrs,
        Item::Mod(item) => &item.attrs,
        Item::Struct(item) => &item.attrs,
        Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

fn is_for_tests(attrs: &[Attribute]) -> bool {
    attrs.iter().any(|attr| match &attr.meta {
        Meta::Path(path) => path.is_ident("test"),
        Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string() == "test",
        Meta::NameValue(_) => false,
    })
}
