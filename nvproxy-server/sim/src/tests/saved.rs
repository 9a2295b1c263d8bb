//! Saving and restoring: a driver that is handed over at any point answers as one that never was.
//!
//! The [scenario](super::scenario) asserts what it is told in every step; besides, the answers of runs with handovers
//! are compared with those of a run without.

use std::ops::Index;
use std::os::fd::AsFd;

use memmap2::MmapMut;

use super::scenario::{RICHEST, free_memory, scenario};
use super::*;
use nvproxy_server::backend::handover::Enclosures;

/// A driver, and what its tasks hold.
pub(super) struct World {
    pub driver: Simulator,
    pub open: BTreeMap<&'static str, Open>,
    /// Event descriptors, by the description that they are of.
    pub events: BTreeMap<&'static str, OwnedFd>,
    /// Of a file whose description is closed.
    pub mapping: Option<MmapMut>,
}

/// What was saved of a world. Tasks keep what they hold.
pub(super) struct SavedWorld {
    pub driver: serde_json::Value,
    pub files: BTreeMap<&'static str, serde_json::Value>,
    pub enclosures: Vec<OwnedFd>,
}

impl Index<&str> for World {
    type Output = Open;

    fn index(&self, name: &str) -> &Open {
        &self.open[name]
    }
}

impl World {
    pub fn new() -> World {
        World {
            driver: driver(),
            open: BTreeMap::new(),
            events: BTreeMap::new(),
            mapping: None,
        }
    }

    pub fn open(&mut self, name: &'static str, node: Node) -> i32 {
        let opened = open(&self.driver, node);
        let number = opened.number();
        self.open.insert(name, opened);
        number
    }

    pub fn close(&mut self, name: &str) {
        self.open.remove(name).expect("an open description");
    }

    pub fn listen(&mut self, name: &'static str) {
        let descriptor = self[name].file.event_descriptor();
        let descriptor = descriptor.expect("an event descriptor");
        self.events.insert(name, descriptor);
    }

    pub fn save(&self) -> SavedWorld {
        let mut enclosures = Enclosures::default();
        let driver = self.driver.save(&mut enclosures).expect("saved");
        let files = self.open.iter().map(|(name, open)| {
            let saved = open.file.save(&mut enclosures);
            (*name, saved.expect("saved"))
        });
        SavedWorld {
            driver,
            files: files.collect(),
            enclosures: enclosures.into(),
        }
    }

    /// Has another driver in place of this one, which then ends.
    fn hand_over(&mut self) {
        let (driver, files) = self.save().restore().expect("restored");
        for (name, file) in files {
            self.open.get_mut(name).expect("an open description").file = file;
        }
        self.driver = driver;
    }
}

type Files = BTreeMap<&'static str, Arc<dyn DeviceFile>>;

impl SavedWorld {
    pub fn restore(self) -> Result<(Simulator, Files), backend::Error> {
        // State travels as text.
        let text = self.driver.to_string();
        let saved = serde_json::from_str(&text).expect("the text of a value");
        let mut enclosures = Enclosures::from(self.enclosures);
        let driver = driver().restore(saved, &mut enclosures)?;
        let mut files = BTreeMap::new();
        for (name, file) in self.files {
            files.insert(name, driver.restore_file(file, &mut enclosures)?);
        }
        driver.finish_restoring();
        assert!(Vec::from(enclosures).is_empty(), "every descriptor is used");
        Ok((driver, files))
    }
}

/// Runs the scenario, with something done before some steps, and returns the answers.
fn run(before: impl Fn(usize, &mut World)) -> Vec<String> {
    let mut world = World::new();
    let steps = scenario().enumerate();
    steps
        .map(|(index, step)| {
            before(index, &mut world);
            step(&mut world)
        })
        .collect()
}

#[test]
fn a_driver_can_be_handed_over_between_any_two_requests() {
    let expected = run(|_, _| ());
    for at in 0..scenario().count() {
        let answers = run(|index, world| {
            if index == at {
                world.hand_over();
            }
        });
        assert_eq!(answers, expected, "handed over before step {at}");
    }
}

#[test]
fn a_driver_can_be_handed_over_again_and_again() {
    let expected = run(|_, _| ());
    let answers = run(|_, world| {
        for _ in 0..3 {
            world.hand_over();
        }
    });
    assert_eq!(answers, expected);
}

#[test]
fn a_driver_goes_on_after_a_handover_that_failed() {
    let expected = run(|_, _| ());
    let answers = run(|_, world| {
        drop(world.save());
        // The other process got everything and then died.
        drop(world.save().restore().expect("restored"));
    });
    assert_eq!(answers, expected);
}

#[test]
fn what_nobody_asks_for_is_closed() {
    let mut world = World::new();
    for step in scenario().take(RICHEST) {
        step(&mut world);
    }
    let used = free_memory(&world["control"]);
    let mut saved = world.save();
    // The program has closed it while it was handed over.
    saved.files.remove("uvm");
    let (driver, mut files) = saved.restore().expect("restored");
    world.driver = driver;
    let file = files.remove("control").expect("a file");
    world.open.get_mut("control").expect("a description").file = file;
    assert_eq!(free_memory(&world["control"]), used + 64);
    let uvm = world["uvm"].granted.as_fd();
    assert_eq!(world.driver.number_of(uvm), Err(Errno::EBADF));
}
