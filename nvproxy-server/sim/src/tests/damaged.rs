//! Saved states that are damaged: they are refused with a reason, or what is restored from them holds.

use serde_json::{Value, json};

use super::hostile::{Random, issue_ioctls};
use super::saved::{SavedWorld, World};
use super::scenario::{RICHEST, scenario};
use super::*;

/// A world with something of every kind.
fn rich() -> World {
    let mut world = World::new();
    for step in scenario().take(RICHEST) {
        step(&mut world);
    }
    world
}

impl SavedWorld {
    /// The same with another state.
    fn with(&self, driver: Value) -> SavedWorld {
        let copy = |descriptor: &OwnedFd| descriptor.try_clone().expect("a copy");
        SavedWorld {
            driver,
            files: self.files.clone(),
            enclosures: self.enclosures.iter().map(copy).collect(),
        }
    }

    /// Why it is not restored, if it is not.
    fn reason(self) -> Option<String> {
        self.restore().err().map(|error| error.to_string())
    }

    /// The same with something in the state changed, and why it is refused.
    fn refusal(&self, change: impl FnOnce(&mut Value)) -> Option<String> {
        let mut changed = self.driver.clone();
        change(&mut changed);
        self.with(changed).reason()
    }
}

/// The paths of all values in `value`.
fn paths(value: &Value, path: String, found: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                paths(field, format!("{path}/{name}"), found);
            }
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                paths(element, format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
    found.push(path);
}

fn all_paths(value: &Value) -> Vec<String> {
    let mut found = Vec::new();
    paths(value, String::new(), &mut found);
    found
}

fn at<'a>(value: &'a mut Value, path: &str) -> &'a mut Value {
    value.pointer_mut(path).expect("a path")
}

/// Whether a name is a field's rather than a handle or another number.
fn is_field(name: &str) -> bool {
    name.parse::<u64>().is_err()
}

#[test]
fn every_field_has_to_be_there_and_no_other() {
    let saved = rich().save();
    assert_eq!(saved.refusal(|_| ()), None);
    let (mut removed, mut added) = (0, 0);
    for path in all_paths(&saved.driver) {
        let (parent, name) = path.rsplit_once('/').unwrap_or_default();
        let in_object = saved.driver.pointer(parent).is_some_and(Value::is_object);
        if in_object && !path.is_empty() && is_field(name) {
            let refused = saved.refusal(|state| {
                at(state, parent)
                    .as_object_mut()
                    .expect("an object")
                    .remove(name);
            });
            assert!(refused.is_some(), "{path} removed");
            removed += 1;
        }
        if saved.driver.pointer(&path).is_some_and(Value::is_object) {
            let refused = saved.refusal(|state| at(state, &path)["more"] = json!(0));
            assert!(refused.is_some(), "{path}/more added");
            added += 1;
        }
    }
    assert!(removed > 100 && added > 20, "{removed} {added}");
}

#[test]
fn no_value_breaks_the_driver() {
    let world = rich();
    let saved = world.save();
    let mut random = Random(0x5eed);
    let likely = [0xc1d0_0000, 0x10, 0x11, 0x20, 0x40, 1, 2, 4096, 65536];
    let (mut refused, mut restored) = (0, 0);
    for path in all_paths(&saved.driver) {
        let values: &[Value] = match saved.driver.pointer(&path) {
            Some(Value::Number(_)) => &[
                json!(u64::MAX),
                json!(u64::MAX - 4095),
                json!(i32::MAX),
                json!(0),
                json!(-1),
            ],
            _ => &[json!("text"), json!([]), json!({}), Value::Null],
        };
        for value in values {
            let mut changed = saved.driver.clone();
            *at(&mut changed, &path) = value.clone();
            let Ok((_driver, mut files)) = saved.with(changed).restore() else {
                refused += 1;
                continue;
            };
            restored += 1;
            let mut open = |name, node| Open {
                node,
                file: files.remove(name).expect("a file"),
                granted: world.open[name].granted.try_clone().expect("a copy"),
            };
            let uvm = open("uvm", Node::Uvm);
            let others = [
                open("control", Node::Control),
                open("registered", Node::Gpu(0)),
            ];
            issue_ioctls(&uvm, others.each_ref(), &mut random, &likely);
        }
    }
    assert!(refused > 1000 && restored > 100, "{refused} {restored}");
}

#[test]
fn what_is_referred_to_has_to_be_there() {
    let saved = rich().save();
    let description = |name: &str| saved.files[name].to_string();
    let [control, gpu, uvm, registered] = ["control", "gpu", "uvm", "registered"].map(description);
    let file = |number: &str, field: &str| format!("/state/files/{number}/{field}");
    let object = |handle: u32, field: &str| {
        format!("/state/clients/by_handle/3251634176/objects/{handle}/{field}")
    };
    let range = "/state/files/".to_owned() + &uvm + "/address_space/ranges/68719476736";
    for (path, value, expected) in [
        (
            "/state/abi".to_owned(),
            json!("535.43.02"),
            "tables of driver 535.43.02",
        ),
        (
            "/state/next_file".to_owned(),
            json!(3),
            "still to be given out",
        ),
        (
            file(&control, "node"),
            json!("nvidia-caps"),
            "no node 'nvidia-caps'",
        ),
        (file(&control, "backing"), json!(99), "backings, not 99"),
        (file(&control, "backing"), json!(1), "its file is another's"),
        (
            file(&control, "pending/dataless"),
            json!(99),
            "names descriptor 99 of",
        ),
        (file(&control, "pending/dataless"), json!(1), "twice"),
        (
            format!("/registered/{registered}"),
            json!(99),
            "registered with description 99",
        ),
        (
            format!("/registered/{registered}"),
            json!(gpu.parse::<u32>().expect("a number")),
            "cannot be registered with description",
        ),
        (object(0x20, "detail/Memory"), json!(99), "memories, not 99"),
        (
            object(0x20, "parent"),
            json!(0x99),
            "object 0x20: its parent 0x99 is not there",
        ),
        (
            object(0x20, "gpu"),
            json!(2),
            "object 0x20: there is no GPU 2",
        ),
        (
            object(0x20, "kind"),
            json!("Chair"),
            "unknown variant `Chair`",
        ),
        (
            object(0x40, "detail/Virtual/base"),
            json!(u64::MAX),
            "does not hold its mappings",
        ),
        (
            object(0x40, "detail/Virtual/mappings/0/length"),
            json!(u64::MAX),
            "does not hold its mappings",
        ),
        (
            "/state/clients/by_handle/3251634176/handle".to_owned(),
            json!(1),
            "client 0xc1d00000: it calls itself 0x1",
        ),
        (
            "/state/clients/by_handle/3251634176/owner".to_owned(),
            json!(99),
            "client 0xc1d00000: its description 99 is not there",
        ),
        (
            "/state/os_events/by_id/1/file".to_owned(),
            json!(99),
            "an event is for description 99",
        ),
        (
            range.clone() + "/length",
            json!(u64::MAX),
            "its range at 0x1000000000 cannot be",
        ),
        (
            range.clone() + "/kind/External/0/gpu",
            json!(2),
            "its range at 0x1000000000 cannot be",
        ),
        (
            range + "/kind/External/0/_memory",
            json!(99),
            "memories, not 99",
        ),
        (
            "/memories/0/mappings/0/offset".to_owned(),
            json!(u64::MAX),
            "is mapped at",
        ),
        (
            "/memories/0/mappings/0/backing".to_owned(),
            json!(99),
            "backings, not 99",
        ),
        (
            "/backings/0/file".to_owned(),
            json!(99),
            "names descriptor 99 of",
        ),
        (
            "/backings/0/inode/number".to_owned(),
            json!(1),
            "of another file",
        ),
    ] {
        let refused = saved.refusal(|state| *at(state, &path) = value.clone());
        let refused = refused.unwrap_or_default();
        assert!(refused.contains(expected), "{path} {value}: {refused:?}");
    }
    let own = saved.refusal(|state| {
        let objects = at(state, "/state/clients/by_handle/3251634176/objects");
        let objects = objects.as_object_mut().expect("objects");
        objects.remove("3251634176");
    });
    assert!(own.is_some_and(|refused| refused.contains("no object of its own")));
}

#[test]
fn descriptors_have_to_be_those_that_were_sent() {
    let world = rich();
    let saved = world.save();
    let count = saved.enclosures.len();
    for kept in 0..count {
        let mut fewer = saved.with(saved.driver.clone());
        fewer.enclosures.truncate(kept);
        let refused = fewer.reason().unwrap_or_default();
        assert!(refused.contains("that came with it"), "{kept}: {refused:?}");
    }
    let mut reversed = saved.with(saved.driver.clone());
    reversed.enclosures.reverse();
    let refused = reversed.reason().unwrap_or_default();
    assert!(refused.contains("of another file"), "{refused:?}");
}

#[test]
fn a_description_is_restored_once_and_has_to_be_there() {
    let mut saved = rich().save();
    let control = saved.files["control"].clone();
    saved.files.insert("again", control.clone());
    let expected = format!("there is no description {control} to restore");
    let again = saved.with(saved.driver.clone()).reason();
    assert_eq!(again, Some(expected));
    for (value, expected) in [
        (json!(99), "there is no description 99 to restore"),
        (json!("one"), "a description: invalid type"),
    ] {
        saved.files.insert("again", value);
        let refused = saved.with(saved.driver.clone()).reason();
        let refused = refused.unwrap_or_default();
        assert!(refused.contains(expected), "{refused}");
    }
}
