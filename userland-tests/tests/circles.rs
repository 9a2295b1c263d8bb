//! That no modules of a crate name each other in a circle: what a module does can be read with nothing but those that it names.
//!
//! A module and those below it are one subject, and may name each other. So the children of each module are compared,
//! each with all that is below it. Modules of tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proc_macro2::{Delimiter, Group, TokenStream, TokenTree};
use serde_json::Value;

/// The names that lead from the root of a crate to a module.
type Module = Vec<String>;

/// What a crate's source says.
struct Crate<'a> {
    /// Where the file of its root is.
    directory: PathBuf,
    /// Reads a file, if it is there.
    source: &'a dyn Fn(&Path) -> Option<String>,
    modules: BTreeSet<Module>,
    /// A module, and what it names: the path from the root to a module, or to something in one.
    names: BTreeSet<(Module, Module)>,
    /// What is in a module because it uses it: by the path that it has there, the path by which it was used.
    uses: BTreeMap<Module, Module>,
}

impl Crate<'_> {
    fn read<'a>(root: &Path, source: &'a dyn Fn(&Path) -> Option<String>) -> Crate<'a> {
        let mut read = Crate {
            directory: root.parent().expect("a directory").to_owned(),
            source,
            modules: BTreeSet::new(),
            names: BTreeSet::new(),
            uses: BTreeMap::new(),
        };
        let text = source(root).expect("the file of the root");
        read.module(Vec::new(), text.parse().expect("Rust"));
        read
    }

    fn module(&mut self, module: Module, source: TokenStream) {
        self.tokens(&module, source);
        self.modules.insert(module);
    }

    /// Reads a module that has a file of its own.
    fn file(&mut self, module: Module) {
        let path = self.directory.join(module.join("/"));
        let files = [
            path.with_extension("rs"),
            path.join("mod.rs"),
            // Of the modules `arch`, the one that is chosen.
            path.with_file_name(format!("{ARCH}.rs")),
        ];
        let text = files.iter().find_map(|file| (self.source)(file));
        let text = text.unwrap_or_else(|| panic!("{} has no file", path.display()));
        self.module(module, text.parse().expect("Rust"));
    }

    /// Reads what stands in a module, or in brackets in it.
    fn tokens(&mut self, module: &Module, source: TokenStream) {
        let tokens: Vec<TokenTree> = source.into_iter().collect();
        let mut next = &tokens[..];
        while let [token, rest @ ..] = next {
            match (token, rest) {
                (TokenTree::Punct(sign), [TokenTree::Group(attribute), item @ ..])
                    if sign.as_char() == '#' && is_for_tests(attribute) =>
                {
                    let end = item.iter().position(ends_item);
                    next = end.map_or(&[], |end| &item[end + 1..]);
                    continue;
                }
                (TokenTree::Ident(word), [TokenTree::Ident(name), body, after @ ..])
                    if word == "mod" =>
                {
                    let inner = [&module[..], &[name.to_string()]].concat();
                    match body {
                        TokenTree::Group(body) => self.module(inner, body.stream()),
                        _ => self.file(inner),
                    }
                    next = after;
                    continue;
                }
                (TokenTree::Ident(word), _) if word == "crate" || word == "super" => {
                    let paths = paths(module.clone(), next).into_iter();
                    self.names
                        .extend(paths.map(|(_, path)| (module.clone(), path)));
                }
                (TokenTree::Ident(word), _) if word == "use" => {
                    let used = paths(module.clone(), rest).into_iter();
                    let used = used.map(|(name, path)| ([&module[..], &[name]].concat(), path));
                    self.uses.extend(used.filter(|(here, path)| here != path));
                }
                (TokenTree::Group(group), _) => self.tokens(module, group.stream()),
                _ => {}
            }
            next = rest;
        }
    }

    /// The module that a path leads to or into.
    fn module_of(&self, path: &[String]) -> Module {
        let is_module = |length: &usize| self.modules.contains(&path[..*length]);
        let length = (0..=path.len()).rev().find(is_module);
        let length = length.expect("the root is a module");
        let elsewhere = path.get(..=length).and_then(|here| self.uses.get(here));
        match elsewhere {
            Some(elsewhere) => self.module_of(&[elsewhere, &path[length + 1..]].concat()),
            None => path[..length].to_vec(),
        }
    }

    /// The arrows that are part of a circle, in words.
    fn circles(&self) -> Vec<String> {
        let mut arrows = BTreeMap::new();
        for (from, named) in &self.names {
            let to = self.module_of(named);
            let common = from.iter().zip(&to).take_while(|(one, other)| one == other);
            let common = common.count();
            if common < from.len() && common < to.len() {
                let words = format!("{} names {}", from.join("::"), named.join("::"));
                arrows.insert((from[..=common].to_vec(), to[..=common].to_vec()), words);
            }
        }
        let leads = |from, to| {
            let (mut seen, mut next) = (BTreeSet::new(), vec![from]);
            while let Some(module) = next.pop() {
                if seen.insert(module) {
                    let arrows = arrows.keys().filter(|(from, _)| from == module);
                    next.extend(arrows.map(|(_, to)| to));
                }
            }
            seen.contains(to)
        };
        let circles = arrows.iter().filter(|((from, to), _)| leads(to, from));
        circles.map(|(_, words)| words.clone()).collect()
    }
}

/// The paths of a tree of them that goes on from `path`, each with the name that it has where it is used.
fn paths(mut path: Module, mut tokens: &[TokenTree]) -> Vec<(String, Module)> {
    loop {
        match tokens {
            [TokenTree::Ident(word), ..] if word == "crate" => path.clear(),
            [TokenTree::Ident(word), ..] if word == "super" => drop(path.pop()),
            [TokenTree::Ident(word), ..] if word == "self" => {}
            [TokenTree::Ident(word), ..] => path.push(word.to_string()),
            [TokenTree::Group(tree), ..] => {
                let tree: Vec<TokenTree> = tree.stream().into_iter().collect();
                let branches = tree.split(|token| is(token, ','));
                return branches
                    .flat_map(|branch| paths(path.clone(), branch))
                    .collect();
            }
            // All that is in a module, or arguments of a type.
            _ => break,
        }
        match tokens {
            [_, one, two, rest @ ..] if is(one, ':') && is(two, ':') => tokens = rest,
            _ => break,
        }
    }
    let name = match tokens {
        [_, TokenTree::Ident(word), TokenTree::Ident(name), ..] if word == "as" => name.to_string(),
        _ => path.last().cloned().unwrap_or_default(),
    };
    vec![(name, path)]
}

fn is(token: &TokenTree, sign: char) -> bool {
    matches!(token, TokenTree::Punct(punct) if punct.as_char() == sign)
}

/// Whether what has this attribute is for tests alone.
fn is_for_tests(attribute: &Group) -> bool {
    let text = attribute.stream().to_string().replace(' ', "");
    text == "cfg(test)" || text.starts_with("cfg(all(") && text.contains("test")
}

fn ends_item(token: &TokenTree) -> bool {
    let is_body = matches!(token, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
    is_body || is(token, ';')
}

/// The root files of what is compiled of the workspace, each with its package's name.
fn roots() -> Vec<(String, PathBuf)> {
    let output = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo");
    let metadata: Value = serde_json::from_slice(&output.stdout).expect("metadata");
    let mut roots = Vec::new();
    for package in list(&metadata["packages"]) {
        for target in list(&package["targets"]) {
            if target["kind"][0] != "custom-build" {
                roots.push((text(&package["name"]), text(&target["src_path"]).into()));
            }
        }
    }
    roots
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn text(value: &Value) -> String {
    value.as_str().expect("text").to_owned()
}

#[test]
fn no_modules_name_each_other_in_a_circle() {
    let source = |path: &Path| fs::read_to_string(path).ok();
    let mut found = Vec::new();
    for (package, root) in roots() {
        let circles = Crate::read(&root, &source).circles();
        found.extend(circles.iter().map(|circle| format!("{package}: {circle}")));
    }
    assert!(found.is_empty(), "in circles:\n{}", found.join("\n"));
}

#[test]
fn circles_are_found() {
    let files = BTreeMap::from([
        (
            "lib.rs",
            "mod one; mod two; mod three; mod four { mod deep; } #[cfg(test)] mod tests;",
        ),
        (
            "one.rs",
            "use crate::{four, two::{self, Two as Other}}; mod child; // crate::three",
        ),
        (
            "one/child.rs",
            "use super::{Parent, super::four::deep::Deep}; const TEXT: &str = \"crate::three\";",
        ),
        (
            "two/mod.rs",
            "mod below; #[cfg(test)] mod tests { use crate::one; }",
        ),
        (
            "two/below.rs",
            "fn below() { say!(super::super::three::f::<u8>()) }",
        ),
        (
            "three.rs",
            "mod left; mod right; use left::Left as Renamed; pub(in super::four) fn three() -> super::one::One {}",
        ),
        (
            "three/left.rs",
            "use super::right::*; use libc; use crate::Root;",
        ),
        ("three/right.rs", "use super::Renamed;"),
        ("four/deep.rs", "use crate::five::Five; use super::Four;"),
    ]);
    let source = |path: &Path| files.get(path.to_str()?).map(|text| (*text).to_owned());
    let found = Crate::read(Path::new("lib.rs"), &source).circles();
    let expected = [
        "one names two::Two",
        "three names one::One",
        "three::left names three::right",
        "three::right names three::Renamed",
        "two::below names three::f",
    ];
    assert_eq!(found, expected);
}
