//! The committed catalogue against the compiler, for every release in it.
//!
//! For each release, every size, offset and number of the catalogue becomes a static assertion in a C program that
//! includes the release's own headers. That is independent of how the importer got them, which was by reading debug
//! information. It needs a clone of the driver's source, which the environment variable NVIDIA_DRIVER_SOURCE names, and
//! cc; without the variable it is skipped.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::io::Write as _;
use std::panic::resume_unwind;
use std::path::Path;
use std::time::Instant;
use std::{env, thread};

use nvproxy_abi_catalogue::{Catalogue, Ioctl, Release};
use nvproxy_abi_importer::compiler::Compiler;
use nvproxy_abi_importer::source::{Source, Tree};

const VARIABLE: &str = "NVIDIA_DRIVER_SOURCE";

fn catalogue() -> Catalogue {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../data/releases.bin");
    Catalogue::decode(&std::fs::read(path).expect("the file is there")).expect("it is valid")
}

/// Past the test harness, which keeps what a test that passes prints.
fn say(text: &str) {
    writeln!(std::io::stderr(), "parity: {text}").expect("stderr can be written");
}

/// How many assertions of each kind were made.
#[derive(Clone, Copy, Debug, Default)]
struct Totals {
    releases: usize,
    structures: usize,
    offsets: usize,
    numbers: usize,
    bit_fields: usize,
}

impl Totals {
    fn add(&mut self, other: Totals) {
        self.releases += other.releases;
        self.structures += other.structures;
        self.offsets += other.offsets;
        self.numbers += other.numbers;
        self.bit_fields += other.bit_fields;
    }
}

/// The C program under construction.
#[derive(Default)]
struct Program {
    text: String,
    totals: Totals,
    /// Structures without a name of their own, which get one here.
    typedefs: BTreeSet<String>,
}

impl Program {
    fn assert(&mut self, expression: &str, value: u32, what: &str) {
        writeln!(
            self.text,
            "_Static_assert(({expression}) == {value:#x}, \"{what} is not {value:#x}\");"
        )
        .expect("a String can be written");
    }

    fn release(&mut self, release: &Release) {
        self.totals.releases += 1;
        for (name, structure) in &release.structures {
            let type_name = self.type_name(name);
            self.totals.structures += 1;
            self.assert(&format!("sizeof({type_name})"), structure.size, name);
            for field in &structure.fields {
                let member = format!("{name}, {}", field.path);
                if field.bit_field.is_some() {
                    // A bit field has no address.
                    self.totals.bit_fields += 1;
                    continue;
                }
                self.totals.offsets += 1;
                let offset = format!("__builtin_offsetof({type_name}, {})", field.path);
                self.assert(&offset, field.offset, &member);
                // An array whose length is left open has no size.
                if field.elements != 0 {
                    let size = format!("sizeof((({type_name} *)0)->{})", field.path);
                    self.assert(&size, field.size, &member);
                }
            }
        }
        for Ioctl { number, name } in release
            .frontend
            .iter()
            .chain(&release.uvm)
            .map(|ioctl| &**ioctl)
        {
            self.number(name, *number);
        }
        for control in &release.controls {
            if let Some(name) = &control.name {
                self.number(name, control.id);
            }
            if let Some(structure) = &control.structure {
                self.number(&format!("sizeof({structure})"), control.size);
            }
        }
        for class in &release.classes {
            self.number(&class.name, class.id);
            if let Some(structure) = &class.structure {
                self.number(&format!("sizeof({structure})"), class.size);
            }
        }
    }

    fn number(&mut self, expression: &str, value: u32) {
        self.totals.numbers += 1;
        self.assert(expression, value, expression);
    }

    /// How C names a structure. `OWNER::MEMBER` is what the array `MEMBER` of `OWNER` is made of.
    fn type_name(&mut self, name: &str) -> String {
        let Some((owner, member)) = name.rsplit_once("::") else {
            return name.to_owned();
        };
        let owner = self.type_name(owner);
        let own: String = name
            .chars()
            .map(|character| {
                if character.is_ascii_alphanumeric() {
                    character
                } else {
                    '_'
                }
            })
            .collect();
        let own = format!("ringfence_{own}");
        if self.typedefs.insert(own.clone()) {
            writeln!(
                self.text,
                "typedef __typeof__((({owner} *)0)->{member}[0]) {own};"
            )
            .expect("a String can be written");
        }
        own
    }
}

/// The numbers after every `methodId=`, found without the importer's scanner.
fn exported_ids(tree: &Tree) -> BTreeSet<u32> {
    let mut ids = BTreeSet::new();
    let tables = tree.files("src/nvidia/generated", |name| name.ends_with("_nvoc.c"));
    for path in tables.expect("the tables are there") {
        let text = tree.read(&path).expect("a table can be read");
        for entry in text.split("/*methodId=*/").skip(1) {
            let digits = entry
                .trim_start()
                .strip_prefix("0x")
                .expect("a hexadecimal number");
            let (digits, _) = digits.split_once('u').expect("an unsigned number");
            ids.insert(u32::from_str_radix(digits, 16).expect("digits"));
        }
    }
    ids
}

/// Checks every release whose place is `first` plus a multiple of `step`.
fn check(source: &Source, first: usize, step: usize) -> Totals {
    let mut totals = Totals::default();
    for release in catalogue().releases.iter().skip(first).step_by(step) {
        let version = release.version;
        let tree = source
            .extract(&version)
            .unwrap_or_else(|error| panic!("{error}"));
        let ids: BTreeSet<u32> = release.controls.iter().map(|control| control.id).collect();
        assert_eq!(
            ids,
            exported_ids(&tree),
            "{version}: exported control commands"
        );
        let mut program = Program::default();
        program.release(release);
        let compiler = Compiler::new(&tree).unwrap_or_else(|error| panic!("{error}"));
        if let Err(error) = compiler.check(&program.text) {
            panic!("{version}: {error}");
        }
        totals.add(program.totals);
    }
    totals
}

#[test]
fn the_compiler_agrees_with_every_size_offset_and_number() {
    let Some(path) = env::var_os(VARIABLE) else {
        say(&format!(
            "SKIPPED: {VARIABLE} does not name a clone of https://github.com/NVIDIA/open-gpu-kernel-modules"
        ));
        return;
    };
    let start = Instant::now();
    let source = Source::open(Path::new(&path)).unwrap_or_else(|error| panic!("{error}"));
    let step = thread::available_parallelism().map_or(1, |count| count.get().min(2));
    let mut totals = Totals::default();
    thread::scope(|scope| {
        let workers: Vec<_> = (0..step)
            .map(|first| {
                scope.spawn({
                    let source = &source;
                    move || check(source, first, step)
                })
            })
            .collect();
        for worker in workers {
            totals.add(worker.join().unwrap_or_else(|panic| resume_unwind(panic)));
        }
    });
    say(&format!("{totals:?} in {} s", start.elapsed().as_secs()));
    assert_eq!(totals.releases, catalogue().releases.len());
}

/// The checks above find a difference if there is one.
#[test]
fn a_wrong_offset_does_not_compile() {
    let Some(path) = env::var_os(VARIABLE) else {
        say("SKIPPED, as above");
        return;
    };
    let source = Source::open(Path::new(&path)).unwrap_or_else(|error| panic!("{error}"));
    let catalogue = catalogue();
    let release = catalogue.releases.last().expect("there are releases");
    let tree = source
        .extract(&release.version)
        .unwrap_or_else(|error| panic!("{error}"));
    let compiler = Compiler::new(&tree).unwrap_or_else(|error| panic!("{error}"));
    let assertion = |offset| {
        let mut program = Program::default();
        program.assert("__builtin_offsetof(NVOS54_PARAMETERS, cmd)", offset, "cmd");
        compiler.check(&program.text)
    };
    let located = release
        .locate("NVOS54_PARAMETERS", "cmd")
        .expect("it has a command");
    assert!(assertion(located.offset).is_ok());
    let error = assertion(located.offset + 1).expect_err("a wrong offset");
    assert!(error.to_string().contains("cmd is not 0x9"), "{error}");
}
