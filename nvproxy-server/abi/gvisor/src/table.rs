//! gVisor's table of releases (`Init` in version.go): which requests it serves of each, and to which capabilities.
//!
//! The first release is written out as maps of handlers. Each later one takes those of an earlier one, and then sets and
//! deletes entries. What else such a function does, it does for a description of structures (`getInfo`), which nothing
//! is read from.

use std::collections::BTreeMap;

use crate::constants::Constants;
use crate::error::Error;
use crate::request::{Granted, Kind, Served};
use crate::tokens::{Cursor, Source};

/// One release in gVisor's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its three numbers; the last is 0 where a release has two.
    pub version: (u32, u32, u32),
    /// Whether gVisor takes the driver without being forced to.
    pub supported: bool,
    pub served: Served,
}

/// The maps of a release, and the functions that make their entries.
const MAPS: [(&str, &str, Kind); 4] = [
    ("frontendIoctl", "feHandler", Kind::Frontend),
    ("uvmIoctl", "uvmHandler", Kind::Uvm),
    ("controlCmd", "ctrlHandler", Kind::Control),
    ("allocationClass", "allocHandler", Kind::Class),
];

/// Reads the table. `numbers` are the constants of the package nvgpu, `sets` those of nvproxy.
pub fn read(source: &Source, numbers: &Constants, sets: &Constants) -> Result<Vec<Release>, Error> {
    let mut init = source.after("func Init() {")?;
    init.expect("abisOnce . Do ( func ( ) {")?;
    init.expect("abis = make ( map [ nvconf . DriverVersion ] driverABIEntry ) ;")?;
    let mut reader = Reader {
        numbers,
        sets,
        variables: BTreeMap::new(),
        releases: Vec::new(),
    };
    while !init.is("}") {
        reader.release(&mut init)?;
    }
    init.expect("} ) ; } ;")?;
    reader.releases.sort_by_key(|release| release.version);
    Ok(reader.releases)
}

struct Reader<'a> {
    numbers: &'a Constants,
    sets: &'a Constants,
    /// What the variables of Go stand for: each, what its release serves.
    variables: BTreeMap<String, Served>,
    releases: Vec<Release>,
}

impl Reader<'_> {
    /// Takes a statement that adds a release.
    fn release(&mut self, cursor: &mut Cursor) -> Result<(), Error> {
        let variable = cursor.word()?.text;
        let discarded = variable == "_";
        cursor.expect(if discarded { "=" } else { ":=" })?;
        let function = cursor.word()?;
        let supported = match &*function.text {
            "addDriverABI" => true,
            "addUnsupportedDriverABI" => false,
            _ => {
                return Err(
                    cursor.refuse(format_args!("the function {} is not known", function.text))
                );
            }
        };
        cursor.expect("(")?;
        let mut numbers = [0; 3];
        for number in &mut numbers {
            *number = cursor.number()?;
            cursor.expect(",")?;
        }
        // Checksums, which only the releases that are supported have.
        let checksums = if supported { 2 } else { 0 };
        for _ in 0..checksums {
            if !cursor.accept("ChecksumNoDriver") {
                cursor.text()?;
            }
            cursor.expect(",")?;
        }
        let served = self.construct(cursor)?;
        cursor.expect(") ;")?;
        let [branch, minor, patch] = numbers;
        let version = (branch, minor, patch);
        if self.releases.iter().any(|other| other.version == version) {
            return Err(cursor.refuse(format_args!("{version:?} is there twice")));
        }
        if !discarded
            && self
                .variables
                .insert(variable.clone(), served.clone())
                .is_some()
        {
            return Err(cursor.refuse(format_args!("{variable} is there twice")));
        }
        self.releases.push(Release {
            version,
            supported,
            served,
        });
        Ok(())
    }

    /// Takes what makes a release's maps: that of another release, or a function.
    fn construct(&self, cursor: &mut Cursor) -> Result<Served, Error> {
        if !cursor.accept("func") {
            return self.other(cursor);
        }
        cursor.expect("( ) * driverABI")?;
        let mut body = cursor.block()?;
        let served = if body.is("return") {
            self.written_out(&mut body)?
        } else {
            self.changed(&mut body)?
        };
        if body.at_end() {
            Ok(served)
        } else {
            Err(body.wrong("the end of the function"))
        }
    }

    /// Takes the variable of another release.
    fn other(&self, cursor: &mut Cursor) -> Result<Served, Error> {
        let name = cursor.word()?.text;
        let served = self.variables.get(&name).cloned();
        served.ok_or_else(|| cursor.refuse(format_args!("there is no release {name}")))
    }

    /// Takes `return &driverABI{...}`.
    fn written_out(&self, body: &mut Cursor) -> Result<Served, Error> {
        body.expect("return & driverABI")?;
        let mut fields = body.block()?;
        body.expect(";")?;
        let mut served = Served::new();
        let mut missing: Vec<&str> = MAPS.iter().map(|(field, ..)| *field).collect();
        while !fields.at_end() {
            let field = fields.word()?.text;
            fields.expect(":")?;
            if field == "getInfo" {
                fields.until(&[","])?;
            } else {
                let place = missing.iter().position(|name| *name == field);
                let place = place
                    .ok_or_else(|| fields.refuse(format_args!("the field {field} is not known")))?;
                missing.swap_remove(place);
                self.map(&field, &mut fields, &mut served)?;
            }
            fields.expect(",")?;
        }
        match missing.first() {
            Some(field) => Err(fields.wrong(format_args!("the field {field}"))),
            None => Ok(served),
        }
    }

    /// Takes a whole map.
    fn map(&self, field: &str, cursor: &mut Cursor, served: &mut Served) -> Result<(), Error> {
        cursor.expect("map [")?;
        cursor.until(&["]"])?;
        cursor.expect("]")?;
        cursor.word()?;
        let mut entries = cursor.block()?;
        while !entries.at_end() {
            let (kind, key, name) = self.key(field, &mut entries)?;
            entries.expect(":")?;
            let granted = self.handler(field, name, &mut entries)?;
            entries.expect(",")?;
            if let Some(other) = served.insert((kind, key), granted) {
                return Err(entries.refuse(format_args!("{} and another are {key:#x}", other.name)));
            }
        }
        Ok(())
    }

    /// Takes a function that changes what another release serves.
    fn changed(&self, body: &mut Cursor) -> Result<Served, Error> {
        body.expect("abi :=")?;
        let mut served = self.other(body)?;
        body.expect("( ) ;")?;
        while !body.is("return") {
            if body.accept("prevGetInfo") {
                body.expect(":= abi . getInfo ;")?;
            } else if body.accept("delete") {
                body.expect("( abi .")?;
                let field = body.word()?.text;
                body.expect(",")?;
                let (kind, key, name) = self.key(&field, body)?;
                body.expect(") ;")?;
                if served.remove(&(kind, key)).is_none() {
                    return Err(body.refuse(format_args!("{name} is deleted, and was not there")));
                }
            } else {
                self.set(body, &mut served)?;
            }
        }
        body.expect("return abi ;")?;
        Ok(served)
    }

    /// Takes `abi.MAP[KEY] = HANDLER`, or what sets `getInfo`.
    fn set(&self, body: &mut Cursor, served: &mut Served) -> Result<(), Error> {
        body.expect("abi .")?;
        let field = body.word()?.text;
        if field == "getInfo" {
            body.expect("= func ( ) * DriverABIInfo")?;
            body.block()?;
        } else {
            body.expect("[")?;
            let (kind, key, name) = self.key(&field, body)?;
            body.expect("] =")?;
            let granted = self.handler(&field, name, body)?;
            served.insert((kind, key), granted);
        }
        body.expect(";")
    }

    /// Takes the key of an entry in a map.
    fn key(&self, field: &str, cursor: &mut Cursor) -> Result<(Kind, u32, String), Error> {
        let (_, _, kind) = map_of(field, cursor)?;
        cursor.expect("nvgpu .")?;
        let name = cursor.word()?.text;
        let number = self.numbers.number(&name, cursor)?;
        Ok((kind, number, name))
    }

    /// Takes the value of an entry: `MAKER(FUNCTION, CAPABILITIES)`.
    fn handler(&self, field: &str, name: String, cursor: &mut Cursor) -> Result<Granted, Error> {
        let (_, maker, _) = map_of(field, cursor)?;
        cursor.expect(maker)?;
        cursor.expect("(")?;
        cursor.word()?;
        if cursor.is("[") {
            cursor.block()?;
        }
        cursor.expect(",")?;
        let capabilities = self.sets.capabilities(cursor)?;
        cursor.expect(")")?;
        Ok(Granted { name, capabilities })
    }
}

fn map_of(field: &str, cursor: &Cursor) -> Result<(&'static str, &'static str, Kind), Error> {
    let found = MAPS.iter().find(|(name, ..)| *name == field);
    let found = found.ok_or_else(|| cursor.refuse(format_args!("the map {field} is not known")))?;
    Ok(*found)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &str = "
const (
	NV_ESC_A = 1
	UVM_A    = 2
	CMD_A    = 3
	CMD_B    = CMD_A + 1
	CLASS_A  = 5
)
";

    const SETS: &str = "const compUtil = nvconf.CapCompute | nvconf.CapUtility\n";

    const FIRST: &str = "
		v1 := addUnsupportedDriverABI(535, 104, 05, func() *driverABI {
			// A remark.
			return &driverABI{
				frontendIoctl: map[uint32]frontendIoctlHandler{
					nvgpu.NV_ESC_A: feHandler(simple[nvgpu.P], compUtil), // more
				},
				uvmIoctl: map[uint32]uvmIoctlHandler{
					nvgpu.UVM_A: uvmHandler(simple, nvconf.CapVideo),
				},
				controlCmd: map[uint32]controlCmdHandler{
					nvgpu.CMD_A: ctrlHandler(simple, compUtil|nvconf.CapGraphics),
				},
				allocationClass: map[nvgpu.ClassID]allocationClassHandler{
					nvgpu.CLASS_A: allocHandler(simple, compUtil),
				},

				getInfo: func() *DriverABIInfo { return &DriverABIInfo{A: b{1, 2}} },
			}
		})
";

    const SECOND: &str = "
		v2 := addDriverABI(550, 40, 07, \"a\", ChecksumNoDriver, func() *driverABI {
			abi := v1()
			abi.controlCmd[nvgpu.CMD_B] = ctrlHandler(simple, nvconf.CapVideo)
			delete(abi.controlCmd, nvgpu.CMD_A)
			prevGetInfo := abi.getInfo
			abi.getInfo = func() *DriverABIInfo {
				info := prevGetInfo()
				return info
			}
			return abi
		})
		_ = addDriverABI(550, 90, 12, \"a\", \"b\", v2) // the same
";

    fn table(statements: &str) -> Result<Vec<Release>, String> {
        let text = format!(
            "func Init() {{\n\tabisOnce.Do(func() {{\n\t\tabis = make(map[nvconf.DriverVersion]driverABIEntry)\n{statements}\t}})\n}}\n"
        );
        let source = Source::new("version.go", &text).expect("tokens");
        let constants = |text| {
            let source = Source::new("constants.go", text).expect("tokens");
            Constants::read(&[source]).expect("constants")
        };
        read(&source, &constants(NUMBERS), &constants(SETS)).map_err(|error| error.to_string())
    }

    fn lines(release: &Release) -> Vec<String> {
        let line = |((kind, number), granted): (&(Kind, u32), &Granted)| {
            let capabilities: Vec<&str> = granted.capabilities.iter().map(String::as_str).collect();
            format!(
                "{} {number} {} {}",
                kind.name(),
                granted.name,
                capabilities.join(",")
            )
        };
        release.served.iter().map(line).collect()
    }

    #[test]
    fn releases_are_those_before_them_with_changes() {
        let releases = table(&format!("{FIRST}{SECOND}")).expect("a table");
        let versions: Vec<_> = releases
            .iter()
            .map(|it| (it.version, it.supported))
            .collect();
        assert_eq!(
            versions,
            [
                ((535, 104, 5), false),
                ((550, 40, 7), true),
                ((550, 90, 12), true)
            ]
        );
        assert_eq!(
            lines(&releases[0]),
            [
                "frontend 1 NV_ESC_A CapCompute,CapUtility",
                "uvm 2 UVM_A CapVideo",
                "control 3 CMD_A CapCompute,CapGraphics,CapUtility",
                "class 5 CLASS_A CapCompute,CapUtility",
            ]
        );
        assert_eq!(
            lines(&releases[1]),
            [
                "frontend 1 NV_ESC_A CapCompute,CapUtility",
                "uvm 2 UVM_A CapVideo",
                "control 4 CMD_B CapVideo",
                "class 5 CLASS_A CapCompute,CapUtility",
            ]
        );
        assert_eq!(releases[2].served, releases[1].served);
    }

    /// Each is a form that Go knows and the reader does not: it says where, and leaves nothing out.
    #[test]
    fn what_is_not_understood_ends_it_at_its_line() {
        let later = |statement: &str| {
            format!(
                "{FIRST}v2 := addDriverABI(550, 40, 07, \"a\", \"b\", func() *driverABI {{\nabi := v1()\n{statement}\nreturn abi\n}})\n"
            )
        };
        for (statements, expected) in [
            (
                later("for cmd := range abi.controlCmd { more(cmd) }"),
                "version.go:26: `abi` was expected, and `for` found",
            ),
            (
                later("abi.controlCmd[0x20] = ctrlHandler(simple, compUtil)"),
                "version.go:26: `nvgpu` was expected, and `0x20` found",
            ),
            (
                later("abi.controlCmd[nvgpu.CMD_C] = ctrlHandler(simple, compUtil)"),
                "version.go:26: there is no constant CMD_C",
            ),
            (
                later("abi.controlCmd[nvgpu.CMD_B] = ctrlHandler(simple, allCaps())"),
                "version.go:26: there is no constant allCaps",
            ),
            (
                later("abi.controlCmd[nvgpu.CMD_B] = feHandler(simple, compUtil)"),
                "version.go:26: `ctrlHandler` was expected, and `feHandler` found",
            ),
            (
                later("abi.controlCmd[nvgpu.CMD_B] = abi.controlCmd[nvgpu.CMD_A]"),
                "version.go:26: `ctrlHandler` was expected, and `abi` found",
            ),
            (
                later("abi.newMap[nvgpu.CMD_B] = ctrlHandler(simple, compUtil)"),
                "version.go:26: the map newMap is not known",
            ),
            (
                later("delete(abi.controlCmd, nvgpu.CMD_B)"),
                "version.go:26: CMD_B is deleted, and was not there",
            ),
            (
                format!("{FIRST}v2 := addUnsupportedDriverABI(550, 40, 07, v0)\n"),
                "version.go:24: there is no release v0",
            ),
            (
                format!("{FIRST}v2 := addOtherABI(550, 40, 07, v1)\n"),
                "version.go:24: the function addOtherABI is not known",
            ),
            (
                format!("{FIRST}if more {{\n}}\n"),
                "version.go:24: `:=` was expected, and `more` found",
            ),
            (
                format!("{FIRST}v2 := addUnsupportedDriverABI(535, 104, 05, v1)\n"),
                "version.go:24: (535, 104, 5) is there twice",
            ),
        ] {
            assert_eq!(table(&statements), Err(expected.to_owned()));
        }
        let without = FIRST.replace(
            "uvmIoctl: map[uint32]uvmIoctlHandler",
            "other: map[uint32]uvmIoctlHandler",
        );
        let error = table(&without).expect_err("a field");
        assert_eq!(error, "version.go:11: the field other is not known");
    }
}
