//! The C compiler: what it says the value of an expression is, and what it says a type looks like.
//!
//! One program is generated for a release. It includes every header that describes the interface between programs and
//! the driver, and has one enumerator for each expression whose value is asked for. It is compiled for x86-64 with
//! debug information, from which [`crate::layout`] reads both.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::error::Error;
use crate::source::Tree;

/// The SDK: what a program and the driver's core (RM) agree on.
pub const SDK: &str = "src/common/sdk/nvidia/inc";
/// The escapes of the device nodes.
pub const UNIX: &str = "src/nvidia/arch/nvalloc/unix/include";

/// The escapes about GPU memory that is the host's.
const NUMA: &str = "nv-ioctl-numa.h";

const INCLUDE_PATHS: [&str; 4] = [
    SDK,
    UNIX,
    "kernel-open/nvidia-uvm",
    "kernel-open/common/inc",
];

/// Headers all of whose structures are wanted, whether a request is known to use them or not: the driver has no entry
/// for some control commands that it answers all the same.
pub fn is_interface_header(name: &str) -> bool {
    name == "nvos.h"
        || name == "nv_escape.h"
        || name == "nv-unix-nvos-params-wrappers.h"
        || name == "uvm_ioctl.h"
        || name == "uvm_linux_ioctl.h"
        || name.ends_with(".h") && (name.starts_with("nv-ioctl") || name.starts_with("ctrl"))
}

/// The compiler, applied to the tree of one release.
#[derive(Debug)]
pub struct Compiler<'a> {
    tree: &'a Tree,
    /// `#include` lines of every header of the interface.
    includes: String,
}

impl<'a> Compiler<'a> {
    pub fn new(tree: &'a Tree) -> Result<Compiler<'a>, Error> {
        let mut includes = String::from("#include \"nvtypes.h\"\n#include \"nvos.h\"\n");
        for directory in ["alloc", "class", "ctrl"] {
            let path = format!("{SDK}/{directory}");
            // The alloc directory came with the 530 branch.
            if !tree.root().join(&path).is_dir() {
                continue;
            }
            for header in tree.files(&path, |name| name.ends_with(".h"))? {
                let _ = writeln!(includes, "#include \"{}\"", &header[SDK.len() + 1..]);
            }
        }
        for header in tree.files(UNIX, is_interface_header)? {
            let _ = writeln!(includes, "#include \"{}\"", &header[UNIX.len() + 1..]);
        }
        includes.push_str("#include \"uvm_linux_ioctl.h\"\n");
        if !tree.root().join(UNIX).join(NUMA).is_file() {
            // Until 535 it was the kernel module's alone, and declared nothing but on Linux.
            let _ = writeln!(
                includes,
                "#define NV_LINUX\n#include \"{NUMA}\"\n#undef NV_LINUX"
            );
        }
        Ok(Compiler { tree, includes })
    }

    /// Every macro that the headers define and that has no parameters, with its text.
    pub fn macros(&self) -> Result<BTreeMap<String, String>, Error> {
        self.macros_of("ringfence-macros.c", &self.includes)
    }

    /// Every macro without parameters that a file of the tree defines by itself, without what it includes.
    pub fn macros_of_file(&self, path: &str) -> Result<BTreeMap<String, String>, Error> {
        self.macros_of("ringfence-macros-of-file.c", &self.without_includes(path)?)
    }

    fn macros_of(&self, name: &str, program: &str) -> Result<BTreeMap<String, String>, Error> {
        let text = self.run(name, program, &["-E", "-dM"])?;
        Ok(text
            .lines()
            .filter_map(|line| line.strip_prefix("#define ")?.split_once(' '))
            .filter(|(name, _)| !name.contains('('))
            .map(|(name, text)| (name.to_owned(), text.to_owned()))
            .collect())
    }

    /// A file of the tree as the preprocessor leaves it, without what it includes and after these definitions.
    pub fn preprocess_file(&self, path: &str, definitions: &str) -> Result<String, Error> {
        let program = format!("{definitions}\n{}", self.without_includes(path)?);
        self.run("ringfence-preprocess.c", &program, &["-E", "-P"])
            .map_err(|error| error.within(path))
    }

    fn without_includes(&self, path: &str) -> Result<String, Error> {
        let text = self.tree.read(path)?;
        let kept = text.lines().filter(|line| {
            let directive = line.trim_start().strip_prefix('#').map(str::trim_start);
            !directive.is_some_and(|directive| directive.starts_with("include"))
        });
        Ok(kept.fold(String::new(), |text, line| text + line + "\n"))
    }

    /// Compiles the headers together with an enumerator for each expression, and gives the file that has the debug
    /// information. The enumerator of the nth expression is [`enumerator`]`(n)`.
    pub fn debug_information(
        &self,
        definitions: &str,
        expressions: &BTreeSet<String>,
    ) -> Result<PathBuf, Error> {
        let mut program = format!(
            "{}{definitions}\nenum ringfence_answers {{\n",
            self.includes
        );
        for (index, expression) in expressions.iter().enumerate() {
            let name = enumerator(index);
            let _ = writeln!(program, "    {name} = (unsigned long long)({expression}),");
        }
        program.push_str("};\n");
        // A shared object rather than an object file, so that the debug information needs no relocation.
        let output = "ringfence-layout.so";
        self.run(
            "ringfence-layout.c",
            &program,
            &[
                "-gdwarf-5",
                "-fno-eliminate-unused-debug-types",
                "-shared",
                "-nostdlib",
                "-o",
                output,
            ],
        )?;
        Ok(self.tree.root().join(output))
    }

    /// Has the compiler check declarations that follow the headers, and gives what it says against them.
    pub fn check(&self, declarations: &str) -> Result<(), Error> {
        let program = format!("{}{declarations}", self.includes);
        self.run("ringfence-check.c", &program, &["-fsyntax-only"])
            .map(drop)
    }

    fn run(&self, name: &str, program: &str, arguments: &[&str]) -> Result<String, Error> {
        let path = self.tree.root().join(name);
        fs::write(&path, program)
            .map_err(|error| Error::new(format!("cannot write {}: {error}", path.display())))?;
        let output = Command::new("cc")
            .current_dir(self.tree.root())
            .args(["-std=gnu11", "-m64", "-w"])
            .args(INCLUDE_PATHS.map(|path| format!("-I{path}")))
            .args(arguments)
            .arg(name)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| {
                Error::new(format!(
                    "cannot run cc: {error}. Install a C compiler for x86-64 (gcc or clang)"
                ))
            })?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        // The first messages say what is wrong; the rest tend to follow from them.
        let messages = String::from_utf8_lossy(&output.stderr);
        let first: Vec<&str> = messages.lines().take(20).collect();
        Err(Error::new(format!(
            "cc does not accept what was generated from the headers ({name}):\n{}",
            first.join("\n")
        )))
    }
}

/// The name of the enumerator whose value answers the nth expression.
pub fn enumerator(index: usize) -> String {
    format!("ringfence_answer_{index}")
}
