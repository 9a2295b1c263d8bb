//! Handing the real driver over, with ordinary files for its nodes.

use std::fs::File;
use std::io::{Seek, SeekFrom};

use nvproxy_abi::node::OPEN_ONLY;

use super::*;

mod keeping;

/// A driver with `nvidiactl` and the GPU with minor number 0.
fn driver() -> (tempfile::TempDir, Driver) {
    let devices = tempfile::tempdir().expect("a directory");
    for node in [Node::Control, Node::Gpu(0)] {
        File::create(devices.path().join(node.file_name())).expect("a file");
    }
    let driver = Driver::new(devices.path(), &[Node::Gpu(0)]);
    (devices, driver)
}

fn open_file(driver: &Driver, node: Node) -> Arc<dyn DeviceFile> {
    let opened = driver.open(node, OpenFlags::default()).expect("opened");
    opened.file.expect("a file")
}

/// Descriptors on their way to another process.
fn sent(enclosures: Enclosures) -> Enclosures {
    Enclosures::from(Vec::from(enclosures))
}

fn lent(file: &Arc<dyn DeviceFile>) -> File {
    file.lend().expect("a descriptor").into()
}

#[test]
fn files_keep_their_descriptions_across_a_handover() {
    let (devices, driver) = driver();
    let files = [Node::Control, Node::Gpu(0)].map(|node| open_file(&driver, node));
    // The position belongs to the open file description, by which one is recognized here.
    for (position, file) in (100..).zip(&files) {
        lent(file).seek(SeekFrom::Start(position)).expect("a seek");
    }
    let unused = open_file(&driver, Node::Control);
    let mut enclosures = Enclosures::default();
    let saved = driver.save(&mut enclosures).expect("saved");
    let save = |file: &Arc<dyn DeviceFile>, enclosures: &mut Enclosures| {
        file.save(enclosures).expect("saved")
    };
    let saved_files = files.each_ref().map(|file| save(file, &mut enclosures));
    let saved_unused = save(&unused, &mut enclosures);
    assert!(!unused.is_ready(), "saving opens nothing");

    let mut enclosures = sent(enclosures);
    let restored = Driver::new(devices.path(), &[Node::Gpu(0)])
        .restore(saved, &mut enclosures)
        .expect("restored");
    drop((driver, files, unused));
    let mut restore = |saved| {
        let restored = restored.restore_file(saved, &mut enclosures);
        restored.expect("restored")
    };
    let files = saved_files.map(&mut restore);
    let unused = restore(saved_unused);
    restored.finish_restoring();
    for (position, file) in (100..).zip(&files) {
        assert!(file.is_ready());
        assert_eq!(lent(file).stream_position().expect("a position"), position);
    }
    assert!(!unused.is_ready());
    assert_eq!(lent(&unused).stream_position().expect("a position"), 0);
    // The GPU's file keeps the presence; it goes with the last.
    assert_eq!(restored.opener(Node::Gpu(0)), Opener::Prompt);
    drop(files);
    assert_eq!(restored.opener(Node::Gpu(0)), Opener::Patient);
}

fn reason<T>(refused: Result<T, backend::Error>) -> String {
    refused.err().expect("a refusal").to_string()
}

#[test]
fn a_damaged_state_is_refused() {
    let (devices, driver) = driver();
    let file = open_file(&driver, Node::Gpu(0));
    file.number().expect("a command descriptor");
    let mut enclosures = Enclosures::default();
    let saved = driver.save(&mut enclosures).expect("saved");
    let saved_file = file.save(&mut enclosures).expect("saved");
    let mut none = Enclosures::default();
    for field in ["presences", "server", "keepers", "marks"] {
        let mut damaged = saved.clone();
        damaged.as_object_mut().expect("an object").remove(field);
        let refused = Driver::new(devices.path(), &[Node::Gpu(0)]).restore(damaged, &mut none);
        let expected = format!("what was saved of the driver: missing field `{field}`");
        assert_eq!(reason(refused), expected);
    }
    assert_eq!(
        reason(Driver::new(devices.path(), &[Node::Gpu(0)]).restore(saved.clone(), &mut none)),
        "the saved state names descriptor 0 of 0 that came with it"
    );
    let empty = Driver::new(Path::new("/nonexistent"), &[]);
    assert_eq!(
        reason(empty.restore_file(saved_file.clone(), &mut none)),
        "no descriptor of nvidia0 was handed over"
    );
    let fewer = Driver::new(Path::new("/nonexistent"), &[Node::Gpu(1)]);
    assert_eq!(
        reason(fewer.restore(saved.clone(), &mut none)),
        "a descriptor of nvidia0 was handed over, which the sandbox was not given"
    );
    let restored = Driver::new(devices.path(), &[Node::Gpu(0)])
        .restore(saved, &mut sent(enclosures))
        .expect("restored");
    for (field, value, expected) in [
        (
            "command",
            serde_json::json!({"descriptor": 7, "opened_by": 0, "file": 0}),
            "descriptor 7 of 0",
        ),
        (
            "command",
            serde_json::json!({"descriptor": 0, "opened_by": 1, "file": 0}),
            "nobody keeps what server 1 opened of nvidia0",
        ),
        (
            "node",
            "nvidia-uvm".into(),
            "keeps no description of nvidia-uvm",
        ),
        ("node", "nvidia-modeset".into(), "no node 'nvidia-modeset'"),
        ("more", true.into(), "unknown field `more`"),
    ] {
        let mut damaged = saved_file.clone();
        damaged[field] = value;
        let refused = reason(restored.restore_file(damaged, &mut none));
        assert!(refused.contains(expected), "{refused}");
    }
}

/// A descriptor of an open-only node is passed on if the sandbox was given that node; one of another is not.
#[test]
fn descriptors_of_nodes_that_were_given_have_numbers() {
    let devices = tempfile::tempdir().expect("a directory");
    let series = &OPEN_ONLY[0];
    let nodes = [1, 2].map(|number| series.node(number).expect("a node"));
    let stand_ins = ["/dev/null", "/dev/zero"];
    for (node, stand_in) in nodes.iter().zip(stand_ins) {
        let path = devices.path().join(node.file_name());
        std::fs::create_dir_all(path.parent().expect("a directory")).expect("made");
        std::os::unix::fs::symlink(stand_in, path).expect("a link");
    }
    let driver = Driver::new(devices.path(), &nodes[..1]);
    let [given, withheld] = stand_ins.map(|path| File::open(path).expect("a device"));
    let number = given.as_raw_fd();
    assert_eq!(driver.number_of(given.as_fd()), Ok(number));
    assert_eq!(driver.number_of(withheld.as_fd()), Err(Errno::EBADF));
}
