//! The ledger against a model that is too simple to be wrong: it finds everything out by looking at all there is.

use std::collections::BTreeSet;

use nvproxy_protocol::options::Settings;

use super::super::limits::MAXIMUM_OBJECTS;
use super::*;

const MIB: u64 = 1 << 20;

fn unlimited() -> Limits {
    Limits::of(&Settings::WITHOUT_LIMITS)
}

/// With as many bytes of each GPU's memory, and of the host's.
fn limits(gpu_memory: u64, host_memory: u64) -> Limits {
    let size = Size::of_at_least_one;
    Limits::with_memory(size(gpu_memory), size(host_memory))
}

fn ledger(memory: u64) -> Ledger {
    Ledger::new(limits(memory, u64::MAX))
}

/// An object of the first GPU with memory of its own.
fn charged(ledger: &mut Ledger, bytes: u64) -> Content {
    Content {
        gpu: Some(0),
        memory: vec![ledger.charge(Pool::Gpu(0), bytes).expect("room")],
    }
}

fn device(gpu: u32) -> Content {
    Content {
        gpu: Some(gpu),
        memory: Vec::new(),
    }
}

/// The client 1, made through the description 10, with a device 2 and memory 3 below it.
fn with_memory(bytes: u64) -> Ledger {
    let mut ledger = ledger(100 * MIB);
    ledger.add_client(1, 10, None);
    ledger.add_object(1, 2, 1, device(0));
    let memory = charged(&mut ledger, bytes);
    ledger.add_object(1, 3, 2, memory);
    ledger
}

#[test]
fn memory_is_given_back_by_whichever_way_it_is_freed() {
    type Way = (&'static str, fn(&mut Ledger));
    let ways: [Way; 5] = [
        ("itself", |ledger| ledger.free(1, 3)),
        ("its parent", |ledger| ledger.free(1, 2)),
        ("its client", |ledger| ledger.free(1, 1)),
        ("the description", |ledger| ledger.close(10)),
        ("its handle given out again", |ledger| {
            ledger.add_object(1, 3, 2, Content::default());
        }),
    ];
    for (way, free) in ways {
        let mut ledger = with_memory(MIB);
        assert_eq!(ledger.charged(0), MIB);
        free(&mut ledger);
        assert_eq!(ledger.charged(0), 0, "{way}");
        assert!(ledger.allocations.is_empty(), "{way}");
    }
}

#[test]
fn a_description_lives_as_long_as_one_that_is_registered_with_it() {
    let mut ledger = with_memory(MIB);
    ledger.register(11, 10);
    ledger.register(12, 10);
    ledger.close(10);
    ledger.close(12);
    assert!(ledger.has_client(1));
    ledger.close(11);
    assert!(!ledger.has_client(1));
    assert_eq!((ledger.charged(0), ledger.objects), (0, 0));
    assert!(ledger.descriptions.is_empty());
}

#[test]
fn a_description_is_not_closed_by_those_that_are_registered_with_it() {
    let mut ledger = with_memory(MIB);
    ledger.register(11, 10);
    ledger.close(11);
    assert!(ledger.has_client(1));
    ledger.close(10);
    assert!(!ledger.has_client(1));
}

#[test]
fn copies_are_charged_once_and_keep_the_memory() {
    for first in [1, 5] {
        let mut ledger = with_memory(MIB);
        ledger.add_client(5, 50, None);
        let copy = ledger.copy_of(1, 3).expect("an object");
        ledger.add_object(5, 3, 5, copy);
        let parcel = ledger.copy_of(5, 3).expect("an object");
        ledger.add_exported(90, 7, parcel);
        assert_eq!(ledger.charged(0), MIB);
        ledger.free(first, 3);
        assert_eq!(ledger.charged(0), MIB);
        ledger.free(6 - first, 3);
        assert_eq!(ledger.charged(0), MIB, "what lies in a description");
        assert!(ledger.copy_of_exported(90, 6).is_none());
        let unpacked = ledger.copy_of_exported(90, 7).expect("the parcel");
        assert_eq!(unpacked.gpu, Some(0));
        ledger.close(90);
        assert_eq!(ledger.charged(0), MIB, "what a request under way has");
        ledger.release(unpacked);
        assert_eq!(ledger.charged(0), 0);
    }
}

#[test]
fn each_gpu_has_the_limit() {
    let mut ledger = ledger(10);
    let first = ledger.charge(Pool::Gpu(0), 10).expect("room");
    assert_eq!(ledger.charge(Pool::Gpu(0), 1), Err(Full));
    assert!(ledger.charge(Pool::Gpu(1), 10).is_ok());
    assert_eq!(ledger.charge(Pool::Gpu(1), u64::MAX), Err(Full));
    assert!(ledger.raise(first, 12));
    assert!(!ledger.raise(first, 3));
    assert_eq!(ledger.charged(0), 12);
}

#[test]
fn the_host_has_a_limit_of_its_own_and_records_count() {
    let mut ledger = Ledger::new(limits(10, 10 * RECORD));
    let memory = ledger.charge(Pool::Host, 4 * RECORD).expect("room");
    assert_eq!(ledger.charge(Pool::Host, u64::MAX), Err(Full));
    assert!(ledger.charge(Pool::Gpu(0), 10).is_ok());
    assert_eq!(ledger.expect_objects(7), Err(Full));
    assert_eq!(ledger.expect_objects(5), Ok(()));
    assert_eq!(ledger.expect_client(), Ok(()));
    assert_eq!(ledger.expect_client(), Err(Full));
    assert_eq!(ledger.charge(Pool::Host, 1), Err(Full));
    ledger.expected_client();
    ledger.add_client(1, 10, None);
    assert_eq!(ledger.charge(Pool::Host, 1), Err(Full));
    let taken = Content {
        gpu: None,
        memory: vec![ledger.charge_anyway(Pool::Host, RECORD), memory],
    };
    ledger.release(taken);
    assert!(ledger.charge(Pool::Host, 4 * RECORD).is_ok());
    assert_eq!(ledger.charge(Pool::Host, 1), Err(Full));
}

#[test]
fn what_an_unknown_address_space_keeps_is_never_given_back() {
    let mut ledger = with_memory(MIB);
    let before = ledger.objects;
    // At the same place: they may be two address spaces.
    for _ in 0..2 {
        let content = charged(&mut ledger, MIB);
        ledger.map(UNKNOWN_SPACE, &(0..10), &[1], content);
        let content = charged(&mut ledger, MIB);
        ledger.add_range(UNKNOWN_SPACE, &(0..10), content);
    }
    ledger.unmap(UNKNOWN_SPACE, &(0..10), None);
    ledger.end_range(UNKNOWN_SPACE, 0);
    ledger.end_address_space(UNKNOWN_SPACE);
    assert_eq!((ledger.charged(0), ledger.objects), (5 * MIB, before));
}

#[test]
fn clients_and_objects_are_limited_and_requests_under_way_count() {
    let mut ledger = Ledger::new(Limits {
        clients: 2,
        objects: 3,
        ..unlimited()
    });
    assert_eq!(ledger.expect_client(), Ok(()));
    ledger.expected_client();
    ledger.add_client(1, 10, None);
    assert_eq!(ledger.expect_client(), Ok(()));
    assert_eq!(ledger.expect_client(), Err(Full));
    assert_eq!(ledger.expect_objects(4), Err(Full));
    assert_eq!(ledger.expect_objects(2), Ok(()));
    ledger.add_object(1, 2, 1, Content::default());
    assert_eq!(ledger.expect_objects(1), Err(Full));
    ledger.expected_objects(2);
    assert_eq!(ledger.expect_objects(2), Ok(()));
}

#[test]
fn it_is_the_same_after_a_handover() {
    let mut ledger = with_memory(MIB);
    let parcel = ledger.copy_of(1, 3).expect("an object");
    ledger.add_exported(90, 7, parcel);
    ledger.register(11, 10);
    let mapped = ledger.copy_of(1, 3).expect("an object");
    let own = Content {
        gpu: None,
        memory: vec![ledger.charge(Pool::Host, MIB).expect("room")],
    };
    ledger.add_range(1 << 61, &(0..100), own);
    ledger.map(1 << 61, &(10..20), &[u128::MAX], mapped);
    let text = serde_json::to_string(&ledger).expect("text");
    let other: Ledger = serde_json::from_str(&text).expect("a ledger");
    let mut other = other.with_limits(unlimited());
    for description in [10, 11] {
        assert_eq!(other.charged(0), MIB);
        other.close(description);
    }
    assert!(!other.has_client(1));
    assert_eq!(other.charged(0), MIB);
    other.close(90);
    assert_eq!(other.charged(0), MIB);
    assert_eq!(other.marks(), [1 << 61]);
    assert_eq!(other.charged_to_host, MIB);
    other.end_range(1 << 61, 0);
    assert_eq!((other.charged(0), other.objects), (0, 0));
    assert!(other.allocations.is_empty());
    assert!(other.marks().is_empty());
    assert_eq!(other.charged_to_host, 0);
}

#[test]
fn ranges_and_mappings_count_as_objects() {
    let mut ledger = with_memory(MIB);
    let before = ledger.objects;
    let mapped = ledger.copy_of(1, 3).expect("an object");
    ledger.add_range(90, &(0..100), Content::default());
    ledger.map(90, &(10..20), &[1, 2], mapped);
    assert_eq!(ledger.objects, before + 3);
    ledger.unmap(90, &(12..14), Some(&1));
    assert_eq!(ledger.objects, before + 4);
    ledger.unmap(90, &(0..u64::MAX), Some(&1));
    assert_eq!(ledger.objects, before + 2);
    ledger.close(90);
    assert_eq!((ledger.objects, ledger.charged(0)), (before, MIB));
}

/// A number below `below`, of a sequence that looks random and is the same each time (xorshift64).
pub(in crate::ledger) fn random(state: &mut u64, below: u64) -> u64 {
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state % below
}

/// The naive model: every object in one list, with the number of the allocation that it refers to.
#[derive(Default)]
struct Model {
    clients: Vec<(Handle, u64)>,
    /// Client, handle, parent, allocation.
    objects: Vec<(Handle, Handle, Handle, Option<usize>)>,
    /// Description, place, allocation.
    exported: Vec<(u64, u32, Option<usize>)>,
    sizes: Vec<u64>,
}

impl Model {
    fn charged(&self) -> u64 {
        let objects = self.objects.iter().filter_map(|object| object.3);
        let exported = self.exported.iter().filter_map(|parcel| parcel.2);
        let alive: BTreeSet<usize> = objects.chain(exported).collect();
        alive.iter().map(|allocation| self.sizes[*allocation]).sum()
    }

    fn find(&self, client: Handle, handle: Handle) -> Option<Option<usize>> {
        let mut objects = self.objects.iter();
        let found = objects.find(|object| (object.0, object.1) == (client, handle))?;
        Some(found.3)
    }

    fn free(&mut self, client: Handle, handle: Handle) {
        if client == handle {
            self.clients.retain(|known| known.0 != client);
            self.objects.retain(|object| object.0 != client);
            return;
        }
        let mut freed = BTreeSet::from([handle]);
        loop {
            let before = freed.len();
            for object in &self.objects {
                if object.0 == client && freed.contains(&object.2) {
                    freed.insert(object.1);
                }
            }
            if freed.len() == before {
                break;
            }
        }
        self.objects
            .retain(|object| object.0 != client || !freed.contains(&object.1));
    }

    fn close(&mut self, description: u64) {
        let theirs = self.clients.iter();
        let theirs: Vec<Handle> = theirs
            .filter(|client| client.1 == description)
            .map(|client| client.0)
            .collect();
        for client in theirs {
            self.free(client, client);
        }
        self.exported.retain(|parcel| parcel.0 != description);
    }
}

/// What both are told, again and again; few handles, so that they meet.
fn step(ledger: &mut Ledger, model: &mut Model, state: &mut u64) {
    let client = 1 + random(state, 3) as Handle;
    let object = 10 + random(state, 8) as Handle;
    let description = 100 + random(state, 3);
    match random(state, 12) {
        0 => {
            model.free(client, client);
            model.clients.push((client, description));
            ledger.add_client(client, description, None);
        }
        1..=4 => {
            let parents: Vec<Handle> = model
                .objects
                .iter()
                .filter(|known| known.0 == client && known.1 != object)
                .map(|known| known.1)
                .chain([client])
                .collect();
            let parent = parents[random(state, parents.len() as u64) as usize];
            if !ledger.has_client(client) || below(model, client, object, parent) {
                return;
            }
            let bytes = random(state, 2) * (1 + random(state, 30));
            let (content, allocation) = match ledger.charge(Pool::Gpu(0), bytes) {
                Ok(key) => {
                    model.sizes.push(bytes);
                    let memory = vec![key];
                    (
                        Content {
                            gpu: Some(0),
                            memory,
                        },
                        model.sizes.len() - 1,
                    )
                }
                Err(Full) => {
                    assert!(model.charged() + bytes > LIMIT);
                    return;
                }
            };
            model.free(client, object);
            model
                .objects
                .push((client, object, parent, Some(allocation)));
            ledger.add_object(client, object, parent, content);
        }
        5..=7 => {
            model.free(client, object);
            ledger.free(client, object);
        }
        8 => {
            model.free(client, client);
            ledger.free(client, client);
        }
        9 => {
            let of = 1 + random(state, 3) as Handle;
            let source = 10 + random(state, 8) as Handle;
            let copy = ledger.copy_of(of, source);
            let found = model.find(of, source);
            assert_eq!(copy.is_some(), found.is_some());
            if let (Some(copy), Some(allocation)) = (copy, found) {
                ledger.add_object(client, object, client, copy);
                if model.clients.iter().any(|known| known.0 == client) {
                    model.free(client, object);
                    model.objects.push((client, object, client, allocation));
                }
            }
        }
        10 => {
            let place = random(state, 3) as u32;
            if let Some(copy) = ledger.copy_of(client, object) {
                let allocation = model.find(client, object).flatten();
                let known = |parcel: &(u64, u32, _)| (parcel.0, parcel.1) != (description, place);
                model.exported.retain(known);
                model.exported.push((description, place, allocation));
                ledger.add_exported(description, place, copy);
            }
        }
        _ => {
            model.close(description);
            ledger.close(description);
        }
    }
}

/// Whether `parent` is `object` or below it: no driver would put an object there.
fn below(model: &Model, client: Handle, object: Handle, mut parent: Handle) -> bool {
    while parent != object {
        let mut objects = model.objects.iter();
        match objects.find(|known| (known.0, known.1) == (client, parent)) {
            Some(known) => parent = known.2,
            None => return false,
        }
    }
    true
}

const LIMIT: u64 = 100;

#[test]
fn long_random_sequences_come_to_what_the_model_says() {
    for seed in 1..=200 {
        let mut state = 0x9e37_79b9_7f4a_7c15u64.wrapping_mul(seed);
        let (mut ledger, mut model) = (ledger(LIMIT), Model::default());
        for number in 0..500 {
            step(&mut ledger, &mut model, &mut state);
            let charged = ledger.charged(0);
            assert_eq!(charged, model.charged(), "seed {seed}, step {number}");
            assert!(charged <= LIMIT, "seed {seed}, step {number}");
            let objects = model.objects.len() + model.exported.len();
            assert_eq!(ledger.objects, objects, "seed {seed}, step {number}");
        }
        for description in 100..103 {
            ledger.close(description);
        }
        assert_eq!((ledger.charged(0), ledger.objects), (0, 0));
        assert!(ledger.allocations.is_empty());
    }
}

/// A ledger with something of every kind.
fn rich() -> Ledger {
    let mut ledger = with_memory(MIB);
    ledger.register(11, 10);
    ledger.add_os_event(10, 1, 7);
    let copy = ledger.copy_of(1, 3).expect("a copy");
    ledger.add_exported(10, 0, copy);
    let key = ledger.charge(Pool::Host, MIB).expect("room");
    let memory = vec![key];
    ledger.add_space(7, Content { gpu: None, memory });
    ledger.add_range(7, &(0..64), Content::default());
    let copy = ledger.copy_of(1, 3).expect("a copy");
    ledger.map(7, &(0..64), &[5], copy);
    assert_eq!(ledger.begin_pin(PIN, MIB), Ok(()));
    let memory = vec![ledger.charge(Pool::Host, MIB).expect("room")];
    let shown = Content { gpu: None, memory };
    ledger.show(Some(8), &shown);
    ledger.show(Some(9), &shown);
    ledger.end_shown(9);
    ledger.release(shown);
    ledger
}

const PIN: Pin = Pin {
    description: 10,
    client: 1,
    parent: 2,
};

#[test]
fn a_pin_is_charged_from_its_begin_until_it_fails_or_what_it_made_is_freed() {
    type Way = (&'static str, fn(&mut Ledger));
    let finished = |ledger: &mut Ledger| {
        let content = ledger.finish_pin(PIN).expect("one that was begun");
        ledger.expected_objects(1);
        content
    };
    let ways: [Way; 3] = [
        ("given up", |ledger| ledger.give_up_pin(PIN)),
        ("the description", |ledger| ledger.close(10)),
        ("the other server", |ledger| {
            let text = serde_json::to_string(&*ledger).expect("text");
            let other: Ledger = serde_json::from_str(&text).expect("a ledger");
            *ledger = other.with_limits(unlimited());
            assert_eq!(ledger.charged_to_host, MIB);
            ledger.give_up_pin(PIN);
        }),
    ];
    for (way, end) in ways {
        let mut ledger = with_memory(MIB);
        ledger.limits = limits(u64::MAX, 2 * MIB);
        let objects = ledger.objects;
        assert_eq!(ledger.begin_pin(PIN, MIB), Ok(()));
        assert_eq!((ledger.charged_to_host, ledger.objects), (MIB, objects + 1));
        assert_eq!(ledger.begin_pin(PIN, MIB), Err(Full), "there are records");
        assert_eq!((ledger.charged_to_host, ledger.objects), (MIB, objects + 1));
        end(&mut ledger);
        assert_eq!(ledger.charged_to_host, 0, "{way}");
        assert!(ledger.finish_pin(PIN).is_none(), "{way}");
    }
    let mut ledger = with_memory(MIB);
    let other = Pin { parent: 3, ..PIN };
    assert!(ledger.finish_pin(PIN).is_none());
    assert_eq!(ledger.begin_pin(PIN, MIB), Ok(()));
    assert!(ledger.finish_pin(other).is_none());
    let content = finished(&mut ledger);
    assert!(ledger.finish_pin(PIN).is_none());
    ledger.add_object(1, 4, 2, content);
    assert_eq!((ledger.charged_to_host, ledger.objects), (MIB, 3));
    ledger.free(1, 4);
    assert_eq!((ledger.charged_to_host, ledger.objects), (0, 2));
}

/// The driver has made it, and nobody has said so yet.
#[test]
fn a_copy_of_what_is_not_known_has_what_the_pins_of_its_client_have() {
    let mut ledger = with_memory(MIB);
    assert!(ledger.copy_of(1, 4).is_none());
    assert_eq!(ledger.begin_pin(PIN, MIB), Ok(()));
    assert_eq!(ledger.begin_pin(PIN, MIB), Ok(()));
    let copy = ledger.copy_of(1, 4).expect("a copy");
    let known = ledger.copy_of(1, 3).expect("a copy");
    assert_eq!((copy.memory.len(), known.memory.len()), (2, 1));
    ledger.release(known);
    assert!(ledger.copy_of(9, 4).is_none(), "of another client");
    for object in [4, 5] {
        let content = ledger.finish_pin(PIN).expect("one that was begun");
        ledger.expected_objects(1);
        ledger.add_object(1, object, 2, content);
        ledger.free(1, object);
    }
    assert_eq!(ledger.charged_to_host, 2 * MIB);
    ledger.release(copy);
    assert_eq!(ledger.charged_to_host, 0);
    assert!(ledger.copy_of(1, 4).is_none());
}

/// It belongs to its client, and not to the description that it was issued on.
#[test]
fn a_pin_of_which_nothing_was_heard_is_charged_until_its_client_is_gone() {
    let on_another = Pin {
        description: 11,
        ..PIN
    };
    let mut ledger = with_memory(MIB);
    let objects = ledger.objects;
    assert_eq!(ledger.begin_pin(on_another, MIB), Ok(()));
    ledger.close(11);
    assert_eq!((ledger.charged_to_host, ledger.objects), (MIB, objects + 1));
    assert!(ledger.finish_pin(on_another).is_none());
    assert!(ledger.copy_of(1, 4).is_some_and(|copy| {
        let is_counted = copy.memory.len() == 1;
        ledger.release(copy);
        is_counted
    }));
    ledger.free(1, 1);
    assert_eq!((ledger.charged_to_host, ledger.objects), (0, 0));
}

fn read(saved: &serde_json::Value) -> Result<Ledger, serde_json::Error> {
    serde_json::from_str(&saved.to_string())
}

/// The paths of all objects in `value`.
fn objects(value: &serde_json::Value, path: String, found: &mut Vec<String>) {
    use serde_json::Value;
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                objects(field, format!("{path}/{name}"), found);
            }
            found.push(path);
        }
        Value::Array(elements) => {
            for (index, element) in elements.iter().enumerate() {
                objects(element, format!("{path}/{index}"), found);
            }
        }
        _ => {}
    }
}

#[test]
fn what_another_server_has_written_has_every_field_and_no_other() {
    let saved = serde_json::to_value(rich()).expect("saved");
    read(&saved).expect("as it was written");
    let mut paths = Vec::new();
    objects(&saved, String::new(), &mut paths);
    let mut removed = 0;
    for path in &paths {
        let changed = |change: &dyn Fn(&mut serde_json::Map<String, serde_json::Value>)| {
            let mut changed = saved.clone();
            let object = changed.pointer_mut(path).expect("a path");
            change(object.as_object_mut().expect("an object"));
            read(&changed).map(drop)
        };
        changed(&|fields| drop(fields.insert("more".to_owned(), 0.into())))
            .expect_err(&format!("{path}/more"));
        let object = saved.pointer(path).and_then(serde_json::Value::as_object);
        for name in object.expect("an object").keys() {
            // A number is a handle or a key, of which there may be any.
            if name.parse::<u128>().is_err() {
                changed(&|fields| drop(fields.remove(name))).expect_err(&format!("{path}/{name}"));
                removed += 1;
            }
        }
    }
    assert!(
        paths.len() > 20 && removed > 30,
        "{} {removed}",
        paths.len()
    );
}

#[test]
fn limits_and_sums_are_this_servers_own() {
    let mut saved = serde_json::to_value(rich()).expect("saved");
    for field in ["limits", "charged", "charged_to_host", "pending_clients"] {
        assert_eq!(saved.get(field), None);
    }
    assert!(Ledger::new(Limits::nothing()).expect_client().is_err());
    let mut own = read(&saved).expect("read");
    assert!(own.charge(Pool::Gpu(0), 1).is_err(), "not yet");
    let mut own = own.with_limits(limits(2 * MIB, 4 * MIB));
    assert_eq!((own.charged(0), own.charged_to_host), (MIB, 3 * MIB));
    assert!(own.charge(Pool::Gpu(0), MIB + 1).is_err());
    assert!(own.charge(Pool::Gpu(0), MIB).is_ok());
    assert!(own.charge(Pool::Host, MIB).is_err(), "there are records");
    // Numbers that no ledger has do no harm.
    saved["objects"] = u64::MAX.into();
    let full = read(&saved).expect("read");
    let mut full = full.with_limits(unlimited());
    full.add_object(1, 4, 2, Content::default());
    assert!(full.expect_objects(1).is_err());
    saved["allocations"]["4294967296"] = saved["allocations"]["0"].clone();
    let refused = read(&saved).expect_err("a slab of that many entries");
    assert!(
        refused
            .to_string()
            .contains("the number 4294967296, of at most")
    );
}

#[test]
fn a_full_ledger_is_written_in_less_than_is_handed_over() {
    const OBJECTS: u32 = 1 << 12;
    let mut ledger = Ledger::new(unlimited());
    let (client, device) = (u32::MAX, u32::MAX - 1);
    ledger.add_client(client, u64::MAX, None);
    ledger.add_object(client, device, client, Content::default());
    for index in 0..OBJECTS {
        let gpu = u32::MAX;
        let key = ledger.charge(Pool::Gpu(gpu), 1 << 40).expect("no limit");
        let content = Content {
            gpu: Some(gpu),
            memory: vec![key],
        };
        ledger.add_object(client, device - 1 - index, device, content);
    }
    let written = serde_json::to_string(&ledger).expect("written").len();
    // Each key is written twice, and has four digits here where it could have seven.
    let each = written.div_ceil(OBJECTS as usize) + 2 * 3;
    let all = each * MAXIMUM_OBJECTS;
    assert!(all as u64 <= crate::server::MAXIMUM_STATE, "{all} bytes");
}
