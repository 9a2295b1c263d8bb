//! gVisor's module on disk, as `go mod download gvisor.dev/gvisor` leaves it, and what is read of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use crate::constants::Constants;
use crate::doors;
use crate::error::Error;
use crate::table::{self, Release};
use crate::tokens::Source;

/// Where numbers are: the driver's interface.
const NVGPU: &str = "pkg/abi/nvgpu";
/// Where the table and its handlers are.
const NVPROXY: &str = "pkg/sentry/devices/nvproxy";
/// Where capabilities have their names.
const CAPABILITIES: &str = "pkg/sentry/devices/nvproxy/nvconf/caps.go";

/// Files that a generator of gVisor's wrote, or that are for tests: they have no table and no number of the driver's.
const LEFT_OUT: [&str; 3] = ["_test.go", "_autogen.go", "_autogen_unsafe.go"];

/// Reads which requests each release serves, with the capabilities named as a container's user names them.
pub fn read(module: &Path) -> Result<Vec<Release>, Error> {
    let go_mod = text(module, "go.mod")?;
    if !go_mod.starts_with("module gvisor.dev/gvisor\n") {
        let module = module.display();
        return Err(Error::new(format!(
            "{module} is not the module gvisor.dev/gvisor"
        )));
    }
    let numbers = Constants::read(&package(module, NVGPU)?)?;
    let nvproxy = package(module, NVPROXY)?;
    let sets = Constants::read(&nvproxy)?;
    let version = nvproxy
        .iter()
        .find(|source| source.file.ends_with("/version.go"));
    let version = version.ok_or_else(|| Error::new(format!("{NVPROXY} has no version.go")))?;
    check_only_table(&nvproxy)?;
    let mut releases = table::read(version, &numbers, &sets)?;
    let doors = doors::read(&nvproxy, &numbers)?;
    let names = names(&Source::new(CAPABILITIES, &text(module, CAPABILITIES)?)?)?;
    for release in &mut releases {
        doors::open(&doors, &mut release.served);
        for granted in release.served.values_mut() {
            granted.capabilities = renamed(&granted.capabilities, &names)?;
        }
    }
    Ok(releases)
}

fn text(module: &Path, file: &str) -> Result<String, Error> {
    let path = module.join(file);
    fs::read_to_string(&path).map_err(|error| Error::new(format!("{}: {error}", path.display())))
}

/// The files of a package, in order.
fn package(module: &Path, folder: &str) -> Result<Vec<Source>, Error> {
    let path = module.join(folder);
    let failed = |error| Error::new(format!("{}: {error}", path.display()));
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(&path).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        let name = name.to_string_lossy().into_owned();
        if name.ends_with(".go") && !LEFT_OUT.iter().any(|end| name.ends_with(end)) {
            names.insert(name);
        }
    }
    let files = names.iter().map(|name| format!("{folder}/{name}"));
    files
        .map(|file| Source::new(&file, &text(module, &file)?))
        .collect()
}

/// No other place than the table adds a release: else some would be left out.
fn check_only_table(files: &[Source]) -> Result<(), Error> {
    for source in files {
        let at_table = source.file.ends_with("/version.go");
        let mut add = source.tokens.iter().filter(|token| {
            matches!(
                &*token.text,
                "addDriverABI" | "addUnsupportedDriverABI" | "driverABIEntry"
            )
        });
        if let Some(token) = add.next().filter(|_| !at_table) {
            let text = format_args!("{} is used outside of version.go", token.text);
            return Err(Error::at(&source.file, token.line, text));
        }
    }
    Ok(())
}

/// What each capability is called (`individualString`).
fn names(source: &Source) -> Result<BTreeMap<String, String>, Error> {
    let mut body = source.after("func (c DriverCaps) individualString() string {")?;
    body.expect("switch c {")?;
    let mut names = BTreeMap::new();
    while body.accept("case") {
        let constant = body.word()?.text;
        body.expect(": return")?;
        let name = body.text()?.text;
        body.expect(";")?;
        names.insert(constant, name);
    }
    body.expect("default :")?;
    Ok(names)
}

fn renamed(
    constants: &BTreeSet<String>,
    names: &BTreeMap<String, String>,
) -> Result<BTreeSet<String>, Error> {
    let name = |constant: &String| {
        let name = names.get(constant).cloned();
        name.ok_or_else(|| {
            Error::new(format!(
                "{CAPABILITIES}: {constant} is no single capability with a name"
            ))
        })
    };
    constants.iter().map(name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_names_of_containers() {
        let text = "
func (c DriverCaps) individualString() string {
	switch c {
	case CapCompute:
		return \"compute\"
	case CapFabricIMEXManagement:
		return \"fabric-imex-mgmt\"
	default:
		panic(c)
	}
}
";
        let source = |text| Source::new("caps.go", text).expect("tokens");
        let found = names(&source(text)).expect("names");
        assert_eq!(found.len(), 2);
        let set = |constant: &str| BTreeSet::from([constant.to_owned()]);
        assert_eq!(renamed(&set("CapCompute"), &found), Ok(set("compute")));
        let error = renamed(&set("AllContainerDriverCaps"), &found).expect_err("several");
        assert!(
            error.to_string().contains("AllContainerDriverCaps"),
            "{error}"
        );
        let other = text.replace("case CapCompute:", "case CapCompute, CapVideo:");
        let error = names(&source(&other)).expect_err("two");
        assert_eq!(
            error.to_string(),
            "caps.go:4: `:` was expected, and `,` found"
        );
    }

    #[test]
    fn releases_are_added_in_the_table_alone() {
        let source =
            |file| Source::new(file, "\naddDriverABI(610, 1, 2, a, b, c)\n").expect("tokens");
        assert_eq!(check_only_table(&[source("nvproxy/version.go")]), Ok(()));
        let error = check_only_table(&[source("nvproxy/more.go")]).expect_err("another");
        assert_eq!(
            error.to_string(),
            "nvproxy/more.go:2: addDriverABI is used outside of version.go"
        );
    }

    #[test]
    fn another_folder_is_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        assert!(read(folder.path()).is_err());
        std::fs::write(folder.path().join("go.mod"), "module example.org/x\n").expect("a file");
        let error = read(folder.path()).expect_err("another module");
        assert!(
            error
                .to_string()
                .ends_with("is not the module gvisor.dev/gvisor"),
            "{error}"
        );
    }
}
