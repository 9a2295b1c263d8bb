//! What gVisor serves besides the entries of its table: handlers that look into the parameters and decide for themselves
//! (frontend.go). Those read here take ranges of control commands whole, classes of memory, and a class that stands for
//! others. That the table decides about all else is checked: each of its maps is asked in one place.

use std::collections::BTreeSet;

use crate::constants::Constants;
use crate::error::Error;
use crate::request::{Granted, Kind, Served};
use crate::tokens::{Cursor, Source};

/// What goes past the table, by the ioctl through which it comes, of which it has the capabilities.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// The name of the ioctl.
    pub ioctl: &'static str,
    pub kind: Kind,
    pub number: u32,
    pub name: String,
}

/// Adds to what a release serves that goes past the table.
pub fn open(doors: &[Door], served: &mut Served) {
    for door in doors {
        let ioctl = served.values().find(|granted| granted.name == door.ioctl);
        let capabilities = ioctl.map_or_else(BTreeSet::new, |ioctl| ioctl.capabilities.clone());
        let name = door.name.clone();
        let granted = Granted { name, capabilities };
        served.entry((door.kind, door.number)).or_insert(granted);
    }
}

/// Reads the doors. `numbers` are the constants of the package nvgpu.
pub fn read(files: &[Source], numbers: &Constants) -> Result<Vec<Door>, Error> {
    check_dispatch(files)?;
    let mut doors = Vec::new();
    control_ranges(&mut function(files, "rmControl")?, numbers, &mut doors)?;
    memory_classes(&mut function(files, "rmAllocMemory")?, numbers, &mut doors)?;
    replaced_class(&mut function(files, "fixupHClass")?, numbers, &mut doors)?;
    Ok(doors)
}

/// The body of a function.
fn function(files: &[Source], name: &str) -> Result<Cursor, Error> {
    let wanted = format!("func {name}(");
    let found = files.iter().filter_map(|file| file.after(&wanted).ok());
    let found: Vec<Cursor> = found.collect();
    let [cursor] = &found[..] else {
        let count = found.len();
        return Err(Error::new(format!("nvproxy has {count} functions {name}")));
    };
    let mut cursor = cursor.clone();
    // The parameters, behind the parenthesis that was looked for, and the results.
    cursor.until(&[")"])?;
    cursor.until(&["{"])?;
    cursor.block()
}

/// The low half of a command that nobody lists: whoever serves it serves the range, but for what is marked as for
/// administrators, which this is not.
const UNLIKELY_METHOD: u32 = 0x3fff;

/// The class that most commands are of.
const NV20_SUBDEVICE_0: u32 = 0x2080;

/// `rmControl` passes commands without asking the table, by a mask or by their class.
fn control_ranges(
    body: &mut Cursor,
    numbers: &Constants,
    doors: &mut Vec<Door>,
) -> Result<(), Error> {
    let before = doors.len();
    while !body.at_end() {
        if !body.accept("if") {
            if body.is("{") {
                return Err(body.wrong("an `if` before a block"));
            }
            body.take()?;
            continue;
        }
        let mut condition = body.until(&["{"])?;
        let does = body.block()?.rest();
        if !does.contains("rmControl") {
            continue;
        }
        let (name, number) = if condition.accept("(") {
            condition.expect("ioctlParams . Cmd >> 16 ) & 0xffff == nvgpu .")?;
            let (name, class) = named(&mut condition, numbers)?;
            // Without the bit of the firmware's.
            (name, class << 16 | UNLIKELY_METHOD)
        } else {
            condition.expect("ioctlParams . Cmd & nvgpu .")?;
            let (name, mask) = named(&mut condition, numbers)?;
            condition.expect("!= 0")?;
            (name, NV20_SUBDEVICE_0 << 16 | UNLIKELY_METHOD | mask)
        };
        if !condition.at_end() {
            return Err(condition.wrong("the end of the condition"));
        }
        doors.push(Door {
            ioctl: "NV_ESC_RM_CONTROL",
            kind: Kind::ControlRange,
            number,
            name,
        });
    }
    if doors.len() == before {
        return Err(body.wrong("a range of control commands"));
    }
    Ok(())
}

/// Takes a name of nvgpu's, and says what it stands for.
fn named(cursor: &mut Cursor, numbers: &Constants) -> Result<(String, u32), Error> {
    let name = cursor.word()?.text;
    let number = numbers.number(&name, cursor)?;
    Ok((name, number))
}

/// `rmAllocMemory` has a list of its own of the classes that it allocates.
fn memory_classes(
    body: &mut Cursor,
    numbers: &Constants,
    doors: &mut Vec<Door>,
) -> Result<(), Error> {
    while !body.accept("switch") {
        if body.is("{") {
            body.block()?;
        } else {
            body.take()?;
        }
    }
    body.expect("ioctlParams . Params . HClass")?;
    let mut cases = body.block()?;
    while !cases.accept("default") {
        cases.expect("case")?;
        loop {
            cases.expect("nvgpu .")?;
            let (name, number) = named(&mut cases, numbers)?;
            doors.push(Door {
                ioctl: "NV_ESC_RM_ALLOC_MEMORY",
                kind: Kind::MemoryClass,
                number,
                name,
            });
            if !cases.accept(",") {
                break;
            }
        }
        cases.expect(":")?;
        cases.until(&["case", "default"])?;
    }
    cases.expect(":")?;
    let otherwise = cases.rest();
    if !otherwise.contains("errUndefinedHandler") {
        return Err(cases.wrong("a refusal of all other classes"));
    }
    body.expect(";")?;
    if !body.at_end() {
        return Err(body.wrong("the end of the function"));
    }
    Ok(())
}

/// `fixupHClass` has the class of an event stand for the one that its parameters name.
fn replaced_class(
    body: &mut Cursor,
    numbers: &Constants,
    doors: &mut Vec<Door>,
) -> Result<(), Error> {
    body.expect("if ioctlParams . HClass == nvgpu .")?;
    let (name, number) = named(body, numbers)?;
    body.block()?;
    body.expect("; return nil ;")?;
    doors.push(Door {
        ioctl: "NV_ESC_RM_ALLOC",
        kind: Kind::Class,
        number,
        name,
    });
    Ok(())
}

/// Each map of the table is asked in one place, by what the request says it is.
fn check_dispatch(files: &[Source]) -> Result<(), Error> {
    for dispatch in [
        ". abi . frontendIoctl [ nr ] . handle (",
        ". abi . uvmIoctl [ cmd ] . handle (",
        ". abi . controlCmd [ ioctlParams . Cmd ] . handle (",
        ". abi . allocationClass [ ioctlParams . HClass ] . handle (",
    ] {
        let wanted: Vec<&str> = dispatch.split(' ').collect();
        let places = |file: &Source| {
            let texts: Vec<&str> = file.tokens.iter().map(|token| &*token.text).collect();
            texts
                .windows(wanted.len())
                .filter(|window| *window == wanted)
                .count()
        };
        let count: usize = files.iter().map(places).sum();
        if count != 1 {
            let dispatch = dispatch.replace(' ', "");
            return Err(Error::new(format!(
                "nvproxy has {count} places with `{dispatch}`"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NUMBERS: &str = "
const (
	RM_GSS_LEGACY_MASK = 0x8000
	NV2081_BINAPI      = 0x2081
	NV01_EVENT         = 5
	MEMORY_A           = 0x3e
	MEMORY_B           = 0x3f
	MEMORY_C           = 0x71
)
";

    const SOURCE: &str = "
func (fd *fd) Ioctl(ctx context.Context) (uintptr, error) {
	return fd.dev.nvp.abi.frontendIoctl[nr].handle(&fi)
}
func (fd *uvm) Ioctl(ctx context.Context) (uintptr, error) {
	return fd.dev.nvp.abi.uvmIoctl[cmd].handle(&ui)
}
func rmControl(fi *frontendIoctlState) (uintptr, error) {
	if fi.ioctlParamsSize != nvgpu.SizeofNVOS54Parameters {
		return 0, linuxerr.EINVAL
	}
	if ioctlParams.Cmd&nvgpu.RM_GSS_LEGACY_MASK != 0 {
		return rmControlSimple(fi, &ioctlParams)
	}
	if (ioctlParams.Cmd>>16)&0xffff == nvgpu.NV2081_BINAPI {
		return rmControlSimple(fi, &ioctlParams)
	}
	return fi.fd.dev.nvp.abi.controlCmd[ioctlParams.Cmd].handle(fi, &ioctlParams)
}
func rmAllocMemory(fi *frontendIoctlState) (uintptr, error) {
	if log.IsLogging(log.Debug) {
		log()
	}
	switch ioctlParams.Params.HClass {
	case nvgpu.MEMORY_A:
		return a(fi, &ioctlParams)
	case nvgpu.MEMORY_B, nvgpu.MEMORY_C:
		return b(fi, &ioctlParams)
	default:
		fi.ctx.Warningf(errUndefinedHandler.Error())
		return 0, linuxerr.EINVAL
	}
}
func rmAlloc(fi *frontendIoctlState) (uintptr, error) {
	return fi.fd.dev.nvp.abi.allocationClass[ioctlParams.HClass].handle(fi)
}
func fixupHClass(fi *frontendIoctlState, ioctlParams *nvgpu.NVOS64_PARAMETERS) error {
	if ioctlParams.HClass == nvgpu.NV01_EVENT {
		ioctlParams.HClass = allocParams.HClass
	}
	return nil
}
";

    fn doors(text: &str) -> Result<Vec<Door>, String> {
        let numbers = Source::new("numbers.go", NUMBERS).expect("tokens");
        let numbers = Constants::read(&[numbers]).expect("constants");
        let source = Source::new("frontend.go", text).expect("tokens");
        read(&[source], &numbers).map_err(|error| error.to_string())
    }

    #[test]
    fn what_goes_past_the_table_is_found() {
        let found = doors(SOURCE).expect("doors");
        let lines = found.iter().map(|door| {
            let (kind, number) = (door.kind.name(), door.number);
            format!("{} {kind} {number:#x} {}", door.ioctl, door.name)
        });
        assert_eq!(
            lines.collect::<Vec<_>>(),
            [
                "NV_ESC_RM_CONTROL control-range 0x2080bfff RM_GSS_LEGACY_MASK",
                "NV_ESC_RM_CONTROL control-range 0x20813fff NV2081_BINAPI",
                "NV_ESC_RM_ALLOC_MEMORY memory-class 0x3e MEMORY_A",
                "NV_ESC_RM_ALLOC_MEMORY memory-class 0x3f MEMORY_B",
                "NV_ESC_RM_ALLOC_MEMORY memory-class 0x71 MEMORY_C",
                "NV_ESC_RM_ALLOC class 0x5 NV01_EVENT",
            ]
        );
        let ioctl = Granted {
            name: "NV_ESC_RM_ALLOC".to_owned(),
            capabilities: BTreeSet::from(["CapCompute".to_owned()]),
        };
        let mut served = Served::from([((Kind::Frontend, 0x2b), ioctl.clone())]);
        open(&found, &mut served);
        let event = &served[&(Kind::Class, 5)];
        assert_eq!(event.capabilities, ioctl.capabilities);
    }

    #[test]
    fn a_door_of_another_form_ends_it() {
        for (from, to, expected) in [
            (
                "if (ioctlParams.Cmd>>16)&0xffff == nvgpu.NV2081_BINAPI {",
                "if allowed(ioctlParams.Cmd) {",
                "frontend.go:15: `ioctlParams` was expected, and `allowed` found",
            ),
            (
                "!= 0 {",
                "!= 0 && more {",
                "frontend.go:12: the end of the condition was expected, and `&&` found",
            ),
            (
                "switch ioctlParams.Params.HClass {",
                "switch class {",
                "frontend.go:24: `ioctlParams` was expected, and `class` found",
            ),
            (
                "case nvgpu.MEMORY_A:",
                "case 0x3e:",
                "frontend.go:25: `nvgpu` was expected, and `0x3e` found",
            ),
            (
                "errUndefinedHandler",
                "nothing",
                "frontend.go:30: a refusal of all other classes was expected, and `fi` found",
            ),
            (
                "if ioctlParams.HClass == nvgpu.NV01_EVENT {",
                "if isEvent() {",
                "frontend.go:38: `ioctlParams` was expected, and `isEvent` found",
            ),
            (
                "return fd.dev.nvp.abi.uvmIoctl[cmd].handle(&ui)",
                "return 0",
                "nvproxy has 0 places with `.abi.uvmIoctl[cmd].handle(`",
            ),
            (
                "func rmAllocMemory",
                "func other",
                "nvproxy has 0 functions rmAllocMemory",
            ),
        ] {
            assert!(SOURCE.contains(from), "{from}");
            assert_eq!(
                doors(&SOURCE.replacen(from, to, 1)),
                Err(expected.to_owned())
            );
        }
    }
}
