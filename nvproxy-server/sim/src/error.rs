//! What the simulated driver alone can fail with when it is set up, handed over or taken up.

use std::io;

use nvproxy_server::backend;

/// Why not.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be set up.
    #[error("the simulator: {0}")]
    SetUp(#[source] io::Error),
    /// What was saved cannot be written, or not be read.
    #[error("what was saved of the simulated driver: {0}")]
    Damaged(#[source] serde_json::Error),
    /// What was saved is no state that it can have been in.
    #[error("what was saved of the simulated driver: {0}")]
    Impossible(#[from] Impossible),
    /// What was saved of a description is no number of one.
    #[error("a description: {0}")]
    Description(#[source] serde_json::Error),
    /// There is no description of this number, or it was given back already.
    #[error("there is no description {0} to restore")]
    NoDescription(i32),
}

impl From<Error> for backend::Error {
    fn from(error: Error) -> backend::Error {
        backend::Error::Driver(Box::new(error))
    }
}

/// What is wrong with a state that was read.
#[derive(Debug, thiserror::Error)]
pub enum Impossible {
    /// A descriptor is not of the file that was meant.
    #[error("an enclosed descriptor is of another file")]
    OtherFile,
    /// The description of this number is wrong.
    #[error("description {0}: {1}")]
    Description(i32, #[source] Box<Impossible>),
    /// The client with this handle is wrong.
    #[error("client {0:#x}: {1}")]
    Client(u32, #[source] Box<Impossible>),
    /// The object with this handle is wrong.
    #[error("object {0:#x}: {1}")]
    Object(u32, #[source] Box<Impossible>),
    /// A description has a number that the next one is to have.
    #[error("its number is still to be given out")]
    NumberNotGiven,
    /// Two descriptions have one file.
    #[error("its file is another's")]
    OthersFile,
    /// A description that is registered is not there.
    #[error("it is registered and not there")]
    Registered,
    /// A description is registered with this one, which is none of `nvidiactl` that is not registered itself.
    #[error("it cannot be registered with description {0}")]
    RegisteredWith(i32),
    /// An event is for this description.
    #[error("an event is for description {0}, which is not there")]
    Event(i32),
    /// A client has another handle than it is found by.
    #[error("it calls itself {0:#x}")]
    OtherHandle(u32),
    /// A client was made through this description.
    #[error("its description {0} is not there")]
    NoDescription(i32),
    /// A client is not an object of its own.
    #[error("it has no object of its own")]
    NoObject,
    /// An object has this parent.
    #[error("its parent {0:#x} is not there")]
    NoParent(u32),
    /// Something is of this GPU, by instance.
    #[error("there is no GPU {0}")]
    NoGpu(usize),
    /// A range of an object begins at this address.
    #[error("its range at {0:#x} does not hold its mappings")]
    Mappings(u64),
    /// A range of an address space begins at this address.
    #[error("its range at {0:#x} cannot be")]
    Range(u64),
    /// The GPU's memory is taken; in bytes.
    #[error("the GPU has no room for memory of {0} bytes")]
    NoRoom(u64),
    /// An allocation is longer than what it takes; in bytes.
    #[error("memory of {length} bytes takes {taken}")]
    Taken { length: u64, taken: u64 },
    /// An allocation is shown at an offset where it has ended; in bytes.
    #[error("memory of {length} bytes is mapped at {offset:#x}")]
    Mapped { length: u64, offset: u64 },
}
